//! No more connections than requests may be under way.
//!
//! The HTTP client opens a connection whenever none is idle, and one whose answer was read to the
//! end is not idle at once: its own task first has to hand it back. So a busy client opens ever
//! more of them than it uses. Here it is made to wait a moment for one that is on its way back,
//! and what it has begun to open is given up once another has come free.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower_layer::Layer;
use tower_service::Service;

/// How long a connection may take to come back. Only a process that gets no time takes this long.
const COMING_BACK: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// Cancelled once the request that runs in this task has its answer, or wants none.
    static ANSWERED: CancellationToken;
}

/// The connections of one client.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    /// Those that were opened and are not known to be closed: no fewer than there are.
    open: AtomicUsize,
    /// Requests under way, each with one connection at most.
    under_way: AtomicUsize,
    last_end: Mutex<Option<Instant>>,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            open: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            last_end: Mutex::default(),
        }))
    }

    /// Runs a request up to its answer's head.
    pub(super) async fn ask<T: Send>(&self, request: impl Future<Output = T> + Send) -> T {
        let answered = CancellationToken::new();
        let _answered = answered.clone().drop_guard();
        ANSWERED.scope(answered, request).await
    }

    /// A request begins. The value is to be dropped when it has ended, however it did: its
    /// connection may be on its way back from then on.
    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.0.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(self)
    }

    /// One connection is closed, or will be.
    pub(super) fn closed(&self) {
        let less = |open: usize| Some(open.saturating_sub(1));
        let _ = self
            .0
            .open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }

    /// Counts one more, unless that would be too many.
    fn reserve(&self) -> bool {
        let more = |open: usize| (open < self.0.most).then_some(open + 1);
        let reserved = self
            .0
            .open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        reserved.is_ok()
    }

    fn last_end(&self) -> Option<Instant> {
        *self
            .0
            .last_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more may be opened. What is counted then is taken back unless it is kept.
    async fn permit(&self) -> Opening {
        if !self.reserve() {
            if let Some(ended) = self.last_end() {
                sleep(COMING_BACK.saturating_sub(ended.elapsed())).await;
            }
            // None is idle and none comes back any more, so those in use are all there are: the
            // others have been closed by the server, or for being idle.
            let in_use = self.0.under_way.load(Ordering::SeqCst);
            self.0.open.store(in_use, Ordering::SeqCst);
        }
        Opening(Some(self.clone()))
    }
}

/// A request that has begun and not ended.
pub(super) struct UnderWay<'a>(&'a Connections);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Inner {
            under_way,
            last_end,
            ..
        } = &*self.0.0;
        *last_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection that is being opened, and counts.
struct Opening(Option<Connections>);

impl Opening {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(connections) = self.0.take() {
            connections.closed();
        }
    }
}

impl<S> Layer<S> for Connections {
    type Service = Sparing<S>;

    fn layer(&self, inner: S) -> Sparing<S> {
        Sparing {
            inner,
            connections: self.clone(),
        }
    }
}

/// Opens connections, sparingly.
#[derive(Debug, Clone)]
pub(super) struct Sparing<S> {
    inner: S,
    connections: Connections,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl<S, R> Service<R> for Sparing<S>
where
    S: Service<R, Error = BoxError> + Clone + Send + 'static,
    S::Response: Send,
    S::Future: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, target: R) -> Self::Future {
        // The one that was found ready is the one to call.
        let unready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, unready);
        let connections = self.connections.clone();
        let answered = ANSWERED
            .try_with(CancellationToken::clone)
            .unwrap_or_default();
        Box::pin(async move {
            let opening = async {
                let opening = connections.permit().await;
                let opened = inner.call(target).await;
                if opened.is_ok() {
                    opening.keep();
                }
                opened
            };
            let opened = answered.run_until_cancelled(opening).await;
            opened.unwrap_or_else(|| Err("another connection came free".into()))
        })
    }
}
