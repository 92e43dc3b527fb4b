//! No more connections to a server than requests may be under way.
//!
//! The HTTP client opens a connection whenever none is idle, and one whose answer was read to the
//! end is not idle at once: its own task first has to hand it back. So a busy client opens ever
//! more of them than it uses. Here it is made to wait for a [place](super::places), or for one that
//! comes back.

use reqwest::Url;
use std::collections::HashMap;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tower_layer::Layer;
use tower_service::Service;

use super::places::{End, Place, Places};

tokio::task_local! {
    /// The request that runs in this task.
    static REQUEST: Arc<Holder>;
}

/// The connections of one client.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    most: usize,
    connect_timeout: Duration,
    /// By scheme, host and port: a connection to one of them is of no use for another.
    servers: Arc<Mutex<HashMap<String, Arc<Places>>>>,
}

impl Connections {
    /// No more than `most` to a server, each of which is to open within `connect_timeout`.
    pub(super) fn new(most: usize, connect_timeout: Duration) -> Self {
        Self {
            most,
            connect_timeout,
            servers: Arc::default(),
        }
    }

    /// Those to the server of a URL.
    pub(super) fn places(&self, url: &Url) -> Arc<Places> {
        let server = url.origin().ascii_serialization();
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if !servers.contains_key(&server) {
            // A server chooses where it redirects to: no more are kept in mind than are of use.
            servers.retain(|_, places| Arc::strong_count(places) > 1 || !places.are_free());
        }
        let places = servers.entry(server);
        Arc::clone(places.or_insert_with(|| Arc::new(Places::new(self.most))))
    }
}

/// Runs a request to a server up to its answer's head.
pub(super) async fn ask<T: Send, E: Send>(
    places: Arc<Places>,
    request: impl Future<Output = Result<T, E>> + Send,
) -> Result<(T, Lease), E> {
    let lease = Lease {
        holder: Arc::new(Holder {
            places,
            stage: Mutex::new(Stage::New),
        }),
        end: End::Closes,
    };
    let holder = &lease.holder;
    let mut request = pin!(REQUEST.scope(Arc::clone(holder), request));
    let mut is_first = true;
    let answer = poll_fn(|context| {
        let polled = request.as_mut().poll(context);
        // By now it would have asked for a connection, had there been no idle one.
        if std::mem::take(&mut is_first) && !matches!(polled, Poll::Ready(Err(_))) {
            holder.reuses_if(|stage| stage == Stage::New);
        }
        polled
    })
    .await?;
    holder.has_another();
    Ok((answer, lease))
}

/// A request and the connection it may hold, until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    holder: Arc<Holder>,
    /// What becomes of the connection, as things stand.
    end: End,
}

impl Lease {
    /// From now on the connection is left to other requests.
    pub(super) fn ends(&mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.holder.move_on(Stage::Ended, self.end);
    }
}

/// What a request and the openings it asks for know of each other.
#[derive(Debug)]
struct Holder {
    places: Arc<Places>,
    stage: Mutex<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// It has asked for a new connection.
    Asks,
    Holds,
    Ended,
}

impl Holder {
    /// Leaves what it holds.
    fn move_on(&self, to: Stage, end: End) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *stage, to) == Stage::Holds {
            self.places.end(end);
        }
    }

    /// It asks for a connection: what it had before, if anything, was no good.
    fn asks(&self) {
        self.move_on(Stage::Asks, End::Closes);
    }

    /// It has got a connection, and not by having it opened.
    fn has_another(&self) {
        self.reuses_if(|stage| matches!(stage, Stage::New | Stage::Asks));
    }

    fn reuses_if(&self, is_due: impl Fn(Stage) -> bool) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due(*stage) {
            *stage = Stage::Holds;
            self.places.reuse();
        }
    }

    /// The connection that it asked for is open.
    fn opened(&self, place: Place) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if *stage == Stage::Asks {
            *stage = Stage::Holds;
            place.keep();
        } else {
            place.leave();
        }
    }

    /// Whether another connection has come back before the opening that is polled now has ended.
    /// The client then moves the opening to a task of its own, which is how that shows.
    fn is_served(self: &Arc<Self>) -> bool {
        let polls = REQUEST.try_with(|request| Arc::ptr_eq(request, self));
        let served = polls != Ok(true);
        if served {
            self.has_another();
        }
        served
    }

    /// A place for its new connection; none if it needs none any more.
    async fn place(self: &Arc<Self>) -> Option<Place> {
        let mut place = pin!(Arc::clone(&self.places).one_more());
        poll_fn(|context| {
            if self.is_served() {
                Poll::Ready(None)
            } else {
                place.as_mut().poll(context).map(Some)
            }
        })
        .await
    }
}

impl<S> Layer<S> for Connections {
    type Service = Sparing<S>;

    fn layer(&self, inner: S) -> Sparing<S> {
        Sparing {
            inner: Arc::new(inner),
            connect_timeout: self.connect_timeout,
        }
    }
}

/// Opens connections, sparingly.
#[derive(Debug)]
pub(super) struct Sparing<S> {
    /// Shared, because the client clones this several times for each request, and most requests
    /// open no connection.
    inner: Arc<S>,
    /// From here and not from the client, which would count the wait for a place.
    connect_timeout: Duration,
}

impl<S> Clone for Sparing<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            ..*self
        }
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl<S, R> Service<R> for Sparing<S>
where
    S: Service<R, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Response: Send,
    S::Future: Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    /// Whether the one that opens is ready shows once there is a place.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: R) -> Self::Future {
        let opening = open(Arc::clone(&self.inner), target, self.connect_timeout);
        // All requests run under a lease.
        let Ok(request) = REQUEST.try_with(Arc::clone) else {
            return Box::pin(opening);
        };
        request.asks();
        Box::pin(async move {
            let place = request
                .place()
                .await
                .ok_or("another connection came back")?;
            // It goes on whatever comes back meanwhile: it has its place, and others may want it.
            let mut opening = pin!(opening);
            let opened = poll_fn(|context| {
                request.is_served();
                opening.as_mut().poll(context)
            });
            let opened = opened.await?;
            request.opened(place);
            Ok(opened)
        })
    }
}

/// Opens a connection within a time limit.
async fn open<S, R>(opener: Arc<S>, target: R, limit: Duration) -> Result<S::Response, BoxError>
where
    S: Service<R, Error = BoxError> + Clone + Send + Sync,
    S::Future: Send,
    R: Send,
{
    let mut opener = S::clone(&opener);
    let opening = async {
        poll_fn(|context| opener.poll_ready(context)).await?;
        opener.call(target).await
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection was opened in time");
    timeout(limit, opening).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::future::ready;
    use tokio::sync::Notify;
    use tokio::time::advance;

    /// Opens a connection once it is told to.
    #[derive(Clone, Default)]
    struct Opens(Arc<Notify>);

    impl Service<()> for Opens {
        type Response = ();
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            let told = Arc::clone(&self.0);
            Box::pin(async move {
                told.notified().await;
                Ok(())
            })
        }
    }

    fn server(name: &str) -> Url {
        Url::parse(&format!("http://{name}/")).unwrap()
    }

    fn connections(most: usize) -> Connections {
        Connections::new(most, Duration::from_secs(2))
    }

    /// A request that has an idle connection.
    async fn reuses(connections: &Connections, url: &Url) -> Lease {
        let asked = ask(connections.places(url), ready(Ok::<_, BoxError>(())));
        asked.await.unwrap().1
    }

    fn has_place(connections: &Connections, url: &Url) -> bool {
        let place = connections.places(url).one_more().now_or_never();
        place.is_some()
    }

    /// A request gets the connection of `lease`, which comes back before its own is open: the
    /// client moves the opening aside. What becomes of both.
    async fn moved_aside(
        connections: &Connections,
        mut lease: Lease,
    ) -> (Result<(), BoxError>, Lease) {
        let url = server("a");
        let opens = Opens::default();
        let request = async {
            let mut opening = connections.layer(opens.clone()).call(());
            assert!((&mut opening).now_or_never().is_none());
            lease.ends(End::Returns);
            drop(lease);
            let aside = tokio::spawn(opening);
            tokio::task::yield_now().await;
            opens.0.notify_one();
            Ok::<_, BoxError>(aside.await.unwrap())
        };
        ask(connections.places(&url), request).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_holds_its_connection_until_it_ends() {
        let (connections, url) = (connections(1), server("a"));
        let opens = Opens::default();
        opens.0.notify_one();
        let request = async { connections.layer(opens).call(()).await };
        let (_, opened) = ask(connections.places(&url), request).await.unwrap();
        assert!(!has_place(&connections, &url));
        assert!(has_place(&connections, &server("b")));
        drop(opened);
        advance(Duration::from_millis(20)).await;
        assert!(has_place(&connections, &url));
        let _reused = reuses(&connections, &url).await;
        assert!(!has_place(&connections, &url));
    }

    #[tokio::test(start_paused = true)]
    async fn an_opening_that_has_no_place_is_given_up_once_another_came_back() {
        let (connections, url) = (connections(1), server("a"));
        let first = reuses(&connections, &url).await;
        let (opened, second) = moved_aside(&connections, first).await;
        assert!(opened.is_err());
        assert!(!has_place(&connections, &url), "it holds what came back");
        drop(second);
        advance(Duration::from_millis(20)).await;
        assert!(has_place(&connections, &url), "and nothing else");
    }

    #[tokio::test(start_paused = true)]
    async fn an_opening_that_has_its_place_goes_on_for_the_next_request() {
        let (connections, url) = (connections(2), server("a"));
        let first = reuses(&connections, &url).await;
        let (opened, second) = moved_aside(&connections, first).await;
        opened.unwrap();
        assert!(!has_place(&connections, &url));
        // The next request gets it: there are two still.
        let third = reuses(&connections, &url).await;
        assert!(!has_place(&connections, &url));
        drop((second, third));
        advance(Duration::from_millis(20)).await;
        assert!(connections.places(&url).are_free());
    }

    #[tokio::test(start_paused = true)]
    async fn an_opening_that_is_dropped_leaves_nothing() {
        let (connections, url) = (connections(1), server("a"));
        let opens = Opens::default();
        let request = async { connections.layer(opens).call(()).await };
        assert!(
            ask(connections.places(&url), request)
                .now_or_never()
                .is_none()
        );
        assert!(connections.places(&url).are_free());
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_were_asked_once_are_forgotten() {
        let connections = connections(1);
        for number in 0..100 {
            drop(reuses(&connections, &server(&format!("host{number}"))).await);
            advance(Duration::from_millis(20)).await;
        }
        assert_eq!(connections.servers.lock().unwrap().len(), 1);
    }
}
