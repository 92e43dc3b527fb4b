//! The compile leases of a server: one process of a fleet at a time compiles a key.
//!
//! A lease has a time to live, and a task of its holder renews it. A holder that dies, or stops, loses
//! it when the time is over; the server's clock alone counts. A holder that lost it compiles on and
//! stores the same artifact as whoever has it then: at worst a key is compiled twice.

use async_trait::async_trait;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backend::CredentialsVersion;
use super::call::Call;
use super::call_policy::{CallPolicy, Limits};
use super::caller::{Caller, as_task};
use super::request_error::RequestError;
use crate::key::PipelineFingerprint;
use crate::store::compile_lease::HeldLeases;
use crate::store::metrics::Counter;
use crate::store::{
    CompileLease, PipelineCacheMetrics, StoreError, StoreErrorKind, StoreOperation, answer_begins,
};

/// The least time to live: what a renewal over a slow network takes, several times.
const MIN_TIME: Duration = Duration::from_millis(100);

/// The longest: a holder that dies keeps its key from the others for so long.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The pause before a lease that another holds is asked for again, where nothing was announced: an
/// eighth of the time waited so far, within these bounds.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The pause of one who has waited for so long.
pub(crate) fn pause_after(waited: Duration) -> Duration {
    (waited / 8).clamp(MIN_PAUSE, MAX_PAUSE)
}

/// For one who waits to be told whether the lease is free by now, in a single request. A server that
/// answered before and takes longer now is not waited for.
const ASKING_AGAIN: Duration = Duration::from_secs(2);

/// The leases of a tier, whatever its server.
#[async_trait]
pub(crate) trait TierLeases: fmt::Debug + Send + Sync {
    /// Waits for as long as another holds the lease. An entry that is there counts as the artifact,
    /// unless it is to be ignored.
    async fn acquire(
        &self,
        key: &PipelineFingerprint,
        ignores_entry: bool,
    ) -> Result<Option<CompileLease>, StoreError>;

    /// The lease of a key, if this process holds it.
    fn held(&self, key: &PipelineFingerprint) -> Option<CompileLease>;

    /// Grants no more. Waits until the server knows of those that have ended.
    async fn close(&self, deadline: Duration);

    fn count(&self, metrics: &mut PipelineCacheMetrics);
}

/// What the server says to one who asks for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseAnswer {
    Granted,
    /// Another has it.
    Held,
    /// There is no need for one: the artifact is there.
    Stored,
    /// The server grants none to anybody, for the time being.
    #[cfg_attr(
        not(any(feature = "remote-cache", feature = "object-store")),
        expect(dead_code, reason = "every Redis server grants leases")
    )]
    Unsupported,
}

/// A lease as the server knows it.
#[derive(Debug, Clone)]
pub(crate) struct LeaseRequest {
    pub(crate) key: PipelineFingerprint,
    /// Tells its holder from all others.
    pub(crate) token: Arc<str>,
    pub(crate) time: Duration,
    /// Whether an entry under the key is of no use to who asks, who found it corrupt or refused it. Then
    /// the answer is never [`LeaseAnswer::Stored`].
    pub(crate) ignores_entry: bool,
}

/// How one kind of server keeps leases: a single request each.
pub(crate) trait LeaseBackend: Send + Sync + 'static {
    /// Learns that something about a key may have changed.
    type Watch: LeaseWatch;

    /// As [`Backend::version`](super::Backend::version).
    fn credentials_version(&self) -> Option<u64>;

    /// Grants it, for its whole time, also to one who has it, whose last request may have got no
    /// answer.
    fn acquire(
        &self,
        lease: &LeaseRequest,
    ) -> impl Future<Output = Result<LeaseAnswer, RequestError>> + Send;

    /// Whether it is still held, for its whole time again.
    fn renew(
        &self,
        lease: &LeaseRequest,
    ) -> impl Future<Output = Result<bool, RequestError>> + Send;

    /// Ends it, unless another has it by now.
    fn release(
        &self,
        lease: &LeaseRequest,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// Announcements about a key, from now on. They may get lost.
    fn watch(&self, lease: &LeaseRequest) -> Self::Watch;
}

pub(crate) trait LeaseWatch: Send {
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// How long to wait for a change before the lease is asked for again. Longer than `pause` where no
    /// change is missed.
    fn longest_wait(&self, pause: Duration) -> Duration {
        pause
    }
}

pub(crate) struct NetworkLeases<L>(Arc<Inner<L>>);

struct Inner<L> {
    backend: L,
    tier: String,
    time: Duration,
    /// Of its own, so that leases cost no lookup and no put.
    policy: CallPolicy,
    held: HeldLeases,
    /// Leases that have ended and that the server does not know of yet.
    ending: watch::Sender<usize>,
    closed: CancellationToken,
    awaited: Counter,
    expired: Counter,
}

impl<L: LeaseBackend> NetworkLeases<L> {
    pub(crate) fn new(tier: String, backend: L, time: Duration, mut limits: Limits) -> Self {
        let time = time.clamp(MIN_TIME, MAX_TIME);
        // What takes longer comes too late for a renewal.
        limits.attempt_timeout = limits.attempt_timeout.min(time / 3);
        limits.call_timeout = limits.call_timeout.min(time);
        Self(Arc::new(Inner {
            backend,
            tier,
            time,
            policy: CallPolicy::new(limits),
            held: HeldLeases::default(),
            ending: watch::Sender::new(0),
            closed: CancellationToken::new(),
            awaited: Counter::default(),
            expired: Counter::default(),
        }))
    }
}

#[async_trait]
impl<L: LeaseBackend> TierLeases for NetworkLeases<L> {
    async fn acquire(
        &self,
        key: &PipelineFingerprint,
        ignores_entry: bool,
    ) -> Result<Option<CompileLease>, StoreError> {
        let request = LeaseRequest {
            key: *key,
            token: format!("{:032x}", fastrand::u128(..)).into(),
            time: self.0.time,
            ignores_entry,
        };
        let waited = self.0.wait_for(request);
        tokio::select! {
            biased;
            () = self.0.closed.cancelled() => Ok(None),
            lease = waited => lease,
        }
    }

    fn held(&self, key: &PipelineFingerprint) -> Option<CompileLease> {
        self.0.held.of(key)
    }

    async fn close(&self, deadline: Duration) {
        self.0.closed.cancel();
        let mut ending = self.0.ending.subscribe();
        if *ending.borrow() == 0 || Handle::try_current().is_err() {
            return;
        }
        // What is still held then, the server ends by itself.
        let _ = timeout(deadline, ending.wait_for(|ending| *ending == 0)).await;
    }

    fn count(&self, metrics: &mut PipelineCacheMetrics) {
        metrics.awaited_compiles = self.0.awaited.get();
        metrics.expired_leases = self.0.expired.get();
    }
}

/// What came of asking once.
enum Asked {
    Lease(CompileLease),
    Held,
    Unsupported,
}

impl<L: LeaseBackend> Inner<L> {
    /// `None` where the server grants none.
    async fn wait_for(
        self: &Arc<Self>,
        request: LeaseRequest,
    ) -> Result<Option<CompileLease>, StoreError> {
        let began = Instant::now();
        let mut watch = None;
        loop {
            let limit = watch.is_some().then(|| ASKING_AGAIN.min(self.time / 3));
            match self.ask(request.clone(), limit).await? {
                Asked::Lease(lease) => return Ok(Some(lease)),
                Asked::Unsupported => return Ok(None),
                Asked::Held => {}
            }
            // Announced or not, it may be free when the watch has begun.
            let Some(watch) = &mut watch else {
                self.awaited.increment();
                tracing::debug!(tier = self.tier, key = %request.key, "waiting for the compile lease of another process");
                answer_begins();
                watch = Some(self.backend.watch(&request));
                continue;
            };
            let pause = pause_after(began.elapsed());
            let _ = timeout(watch.longest_wait(pause), watch.changed()).await;
        }
    }

    /// Asks in a task of its own. Where its caller leaves, a lease that comes is dropped.
    async fn ask(
        self: &Arc<Self>,
        request: LeaseRequest,
        limit: Option<Duration>,
    ) -> Result<Asked, StoreError> {
        let leases = Arc::clone(self);
        as_task(|caller| async move {
            let asking = Asking {
                leases,
                request,
                may_be_granted: AtomicBool::new(false),
            };
            let (leases, key) = (&asking.leases, &asking.request.key);
            leases.call(&caller, key, limit, || asking.ask()).await
        })
        .await
    }

    /// A lease that was granted to a request of this moment, and is renewed until it is dropped.
    fn hold(self: &Arc<Self>, request: LeaseRequest, asked: Instant) -> CompileLease {
        let (key, (ended, has_ended)) = (request.key, oneshot::channel());
        let renewer = LeaseRenewer {
            leases: Arc::clone(self),
            until: asked + self.time,
            request,
        };
        tokio::spawn(renewer.run(has_ended));
        let hold = Hold {
            leases: Arc::clone(self),
            ended: Some(ended),
        };
        self.held.give(key, hold)
    }

    /// Tells the server that a lease has ended. If this fails, the server ends it when its time is
    /// over.
    async fn release(&self, request: &LeaseRequest) {
        let release = || self.backend.release(request);
        let caller = Caller::default();
        let _ = self.call(&caller, &request.key, None, release).await;
    }

    /// `None` once the caller has left. With a limit, a single request is made, within it.
    async fn call<T, F>(
        &self,
        caller: &Caller,
        key: &PipelineFingerprint,
        single_request: Option<Duration>,
        request: impl Fn() -> F + Send + Sync,
    ) -> Option<Result<T, StoreError>>
    where
        T: Send,
        F: Future<Output = Result<T, RequestError>> + Send,
    {
        let operation = StoreOperation::CompileLease;
        let call = Call {
            tier: &self.tier,
            operation,
            key,
            credentials: self,
            caller,
            single_request,
        };
        let result = self.policy.run(call, |_| request()).await?;
        Some(result.map_err(|error| {
            StoreError::new(error.kind, self.tier.clone(), operation).with_source(error)
        }))
    }
}

impl<L: LeaseBackend> CredentialsVersion for Inner<L> {
    fn version(&self) -> Result<Option<u64>, RequestError> {
        Ok(self.backend.credentials_version())
    }
}

/// A lease that is asked for, once or again.
struct Asking<L: LeaseBackend> {
    leases: Arc<Inner<L>>,
    request: LeaseRequest,
    /// Whether the server may have granted it in a reply that was lost.
    may_be_granted: AtomicBool,
}

impl<L: LeaseBackend> Asking<L> {
    async fn ask(&self) -> Result<Asked, RequestError> {
        let asked = Instant::now();
        let before = self.may_be_granted.swap(true, Ordering::Relaxed);
        let answer = self.leases.backend.acquire(&self.request).await;
        // A proxy may fail after the server behind it has granted the lease.
        let is_lost = |error: &RequestError| {
            use StoreErrorKind::{TimedOut, Unavailable, Unreachable};
            matches!(error.kind, TimedOut | Unavailable | Unreachable)
        };
        let may_be_granted = match &answer {
            Ok(_) => false,
            Err(error) => before || is_lost(error),
        };
        self.may_be_granted.store(may_be_granted, Ordering::Relaxed);
        Ok(match answer? {
            LeaseAnswer::Granted => Asked::Lease(self.leases.hold(self.request.clone(), asked)),
            LeaseAnswer::Stored => Asked::Lease(CompileLease::stored()),
            LeaseAnswer::Held => Asked::Held,
            LeaseAnswer::Unsupported => Asked::Unsupported,
        })
    }
}

impl<L: LeaseBackend> Drop for Asking<L> {
    /// Otherwise nobody has it, and the others wait for its time.
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (*self.may_be_granted.get_mut(), Handle::try_current()) else {
            return;
        };
        let (leases, request) = (Arc::clone(&self.leases), self.request.clone());
        let ending = Ending::new(&leases.ending);
        runtime.spawn(async move {
            leases.release(&request).await;
            drop(ending);
        });
    }
}

/// Counts a lease that has ended and that the server does not know of yet.
struct Ending(watch::Sender<usize>);

impl Ending {
    fn new(ending: &watch::Sender<usize>) -> Self {
        ending.send_modify(|ending| *ending += 1);
        Self(ending.clone())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.send_modify(|ending| *ending -= 1);
    }
}

/// What a lease holds.
struct Hold<L> {
    leases: Arc<Inner<L>>,
    /// Tells the renewer, if its runtime has not dropped it.
    ended: Option<oneshot::Sender<Ending>>,
}

impl<L> Drop for Hold<L> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            // Where nobody renews it, the server ends it.
            drop(ended.send(Ending::new(&self.leases.ending)));
        }
    }
}

/// Renews a lease until it has ended.
struct LeaseRenewer<L> {
    leases: Arc<Inner<L>>,
    request: LeaseRequest,
    /// When it expires, unless it is renewed.
    until: Instant,
}

impl<L: LeaseBackend> LeaseRenewer<L> {
    async fn run(mut self, mut has_ended: oneshot::Receiver<Ending>) {
        let ended = tokio::select! {
            biased;
            ended = &mut has_ended => Some(ended),
            () = self.renew() => None,
        };
        let (leases, request) = (&self.leases, &self.request);
        if let Some(_ending) = ended {
            leases.release(request).await;
            return;
        }
        leases.expired.increment();
        tracing::warn!(
            tier = leases.tier, key = %request.key,
            "compile lease expired under its holder, which was stopped or cut off: another process may compile the same key"
        );
    }

    /// Ends when the lease is lost.
    async fn renew(&mut self) {
        let time = self.leases.time;
        let mut pause = time / 3;
        loop {
            sleep(pause).await;
            let asked = Instant::now();
            let (leases, request) = (&self.leases, &self.request);
            let renew = || leases.backend.renew(request);
            let caller = Caller::default();
            let renewed = leases.call(&caller, &request.key, None, renew).await;
            pause = match renewed {
                Some(Ok(true)) => {
                    self.until = asked + time;
                    time / 3
                }
                Some(Ok(false)) => return,
                _ if Instant::now() >= self.until => return,
                _ => time / 10,
            };
        }
    }
}

impl<L> fmt::Debug for NetworkLeases<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkLeases")
            .field("time", &self.0.time)
            .field("held", &self.0.held)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
