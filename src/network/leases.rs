//! The compile leases of a server: one process of a fleet at a time compiles a key.
//!
//! A lease has a time to live, and a task of its holder renews it. A holder that dies, or stops, loses
//! it when the time is over; the server's clock alone counts. A holder that lost it compiles on and
//! stores the same artifact as whoever has it then: at worst a key is compiled twice.

use async_trait::async_trait;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backend::CredentialsVersion;
use super::call::Call;
use super::call_policy::{CallPolicy, Limits};
use super::caller::{Caller, as_task};
use super::request_error::RequestError;
use super::tier_leases::TierLeases;
use crate::key::PipelineFingerprint;
use crate::store::compile_lease::HeldLeases;
use crate::store::metrics::Counter;
use crate::store::{CompileLease, PipelineCacheMetrics, StoreError, StoreOperation, answer_begins};

/// The least time to live: what a renewal over a slow network takes, several times.
const MIN_TIME: Duration = Duration::from_millis(100);

/// The pause before a lease that another holds is asked for again, where nothing was announced: an
/// eighth of the time waited so far, within these bounds.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

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
}

/// How one kind of server keeps leases: a single request each.
pub(crate) trait LeaseBackend: Send + Sync + 'static {
    /// Learns that something about a key may have changed.
    type Watch: LeaseWatch;

    /// As [`Backend::version`](super::Backend::version).
    fn credentials_version(&self) -> Option<u64>;

    /// Grants it also to one who has it, whose last request may have got no answer.
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
    fn watch(&self, key: &PipelineFingerprint) -> Self::Watch;
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
        let time = time.max(MIN_TIME);
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
    async fn acquire(&self, key: &PipelineFingerprint) -> Result<Option<CompileLease>, StoreError> {
        let request = LeaseRequest {
            key: *key,
            token: format!("{:032x}", fastrand::u128(..)).into(),
            time: self.0.time,
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
            match self.ask(request.clone()).await? {
                Asked::Lease(lease) => return Ok(Some(lease)),
                Asked::Unsupported => return Ok(None),
                Asked::Held => {}
            }
            // Announced or not, it may be free when the watch has begun.
            let Some(watch) = &mut watch else {
                self.awaited.increment();
                tracing::debug!(tier = self.tier, key = %request.key, "waiting for the compile lease of another process");
                answer_begins();
                watch = Some(self.backend.watch(&request.key));
                continue;
            };
            let pause = (began.elapsed() / 8).clamp(MIN_PAUSE, MAX_PAUSE);
            let _ = timeout(watch.longest_wait(pause), watch.changed()).await;
        }
    }

    /// Asks in a task of its own. Where its caller leaves, a lease that comes is dropped.
    async fn ask(self: &Arc<Self>, request: LeaseRequest) -> Result<Asked, StoreError> {
        let leases = Arc::clone(self);
        as_task(|caller| async move {
            let key = request.key;
            let acquire = || leases.acquire_once(request.clone());
            leases.call(&caller, &key, acquire).await
        })
        .await
    }

    async fn acquire_once(self: &Arc<Self>, request: LeaseRequest) -> Result<Asked, RequestError> {
        let asked = Instant::now();
        Ok(match self.backend.acquire(&request).await? {
            LeaseAnswer::Granted => Asked::Lease(self.hold(request, asked)),
            LeaseAnswer::Stored => Asked::Lease(CompileLease::stored()),
            LeaseAnswer::Held => Asked::Held,
            LeaseAnswer::Unsupported => Asked::Unsupported,
        })
    }

    /// A lease that was granted to a request of this moment, and is renewed until it is dropped.
    fn hold(self: &Arc<Self>, request: LeaseRequest, asked: Instant) -> CompileLease {
        let (key, ended) = (request.key, CancellationToken::new());
        let keeper = Keeper {
            leases: Arc::clone(self),
            until: asked + self.time,
            ended: ended.clone(),
            request,
        };
        tokio::spawn(keeper.run());
        let hold = Hold {
            leases: Arc::clone(self),
            ended,
        };
        self.held.give(key, hold)
    }

    /// `None` once the caller has left.
    async fn call<T, F>(
        &self,
        caller: &Caller,
        key: &PipelineFingerprint,
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

/// What a lease holds.
struct Hold<L> {
    leases: Arc<Inner<L>>,
    ended: CancellationToken,
}

impl<L> Drop for Hold<L> {
    fn drop(&mut self) {
        self.leases.ending.send_modify(|ending| *ending += 1);
        self.ended.cancel();
    }
}

/// Renews a lease until it has ended.
struct Keeper<L> {
    leases: Arc<Inner<L>>,
    request: LeaseRequest,
    /// When it expires, unless it is renewed.
    until: Instant,
    ended: CancellationToken,
}

impl<L: LeaseBackend> Keeper<L> {
    async fn run(mut self) {
        let ended = self.ended.clone();
        let is_lost = tokio::select! {
            biased;
            () = ended.cancelled() => false,
            () = self.renew() => true,
        };
        if is_lost {
            self.leases.expired.increment();
            tracing::warn!(
                tier = self.leases.tier, key = %self.request.key,
                "compile lease expired under its holder, which was stopped or cut off: another process may compile the same key"
            );
            ended.cancelled().await;
        } else {
            // If this fails, the server ends it when its time is over.
            let (leases, request) = (&self.leases, &self.request);
            let release = || leases.backend.release(request);
            let _ = leases.call(&Caller::default(), &request.key, release).await;
        }
        self.leases.ending.send_modify(|ending| *ending -= 1);
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
            let renewed = leases.call(&caller, &request.key, renew).await;
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
