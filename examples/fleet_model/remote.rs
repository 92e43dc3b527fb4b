//! A machine's tier across the network, as the library's network tiers are: requests that run on for
//! a while when their caller has left, time limits and circuit breakers. A call is not repeated.

use async_trait::async_trait;
use pipeline_cache::store::answer_begins;
use pipeline_cache::{
    Artifact, CompileLeases, Fetched, Locality, PipelineCacheMetrics, PipelineCacheStore,
    PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::breaker::{Breaker, PROBE_INTERVAL};
use crate::clock::Clock;
use crate::lease_table::TIME_TO_LIVE;
use crate::network::Wire;
use crate::server::{Answer, Failure, Operation, Request, Server};
use crate::workload::{Workload, program_of};

/// The defaults of the library.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// What takes longer comes too late for a renewal.
const LEASE_TIMEOUT: Duration = Duration::from_millis(TIME_TO_LIVE.as_millis() as u64 / 3);
const ABANDONED_AFTER: Duration = Duration::from_secs(1);
const CONCURRENT_REQUESTS: usize = 64;

#[derive(Clone)]
pub(crate) struct Remote(pub(crate) Arc<Client>);

pub(crate) struct Client {
    pub(crate) clock: Clock,
    workload: Arc<Workload>,
    pub(crate) wire: Wire,
    server: Arc<Server>,
    grants_leases: bool,
    permits: Semaphore,
    pub(crate) reads: Breaker,
    pub(crate) writes: Breaker,
    /// Of their own, so that leases cost no lookup and no put.
    pub(crate) leases: Breaker,
}

impl Remote {
    pub(crate) fn new(
        clock: Clock,
        workload: Arc<Workload>,
        wire: Wire,
        server: Arc<Server>,
        grants_leases: bool,
    ) -> Self {
        Self(Arc::new(Client {
            clock,
            workload,
            wire,
            server,
            grants_leases,
            permits: Semaphore::new(CONCURRENT_REQUESTS),
            reads: Breaker::default(),
            writes: Breaker::default(),
            leases: Breaker::default(),
        }))
    }
}

impl Client {
    /// A request whose caller waits for it. It runs on when the caller leaves.
    pub(crate) async fn call(
        self: &Arc<Self>,
        request: Request,
        breaker: fn(&Self) -> &Breaker,
    ) -> Result<Answer, StoreErrorKind> {
        let is_sent = match request.operation {
            // Probes run in the background.
            Operation::Get => !self.reads.is_open(),
            _ => breaker(self).admits(self.clock.now()),
        };
        if !is_sent {
            return Err(StoreErrorKind::BreakerOpen);
        }
        let (left, begun) = (CancellationToken::new(), CancellationToken::new());
        let _left_on_drop = left.clone().drop_guard();
        let attempt = Arc::clone(self).attempt(request, breaker, left, begun.clone());
        let mut attempt = tokio::spawn(attempt);
        let answer = tokio::select! {
            biased;
            answer = &mut attempt => answer,
            () = begun.cancelled() => {
                answer_begins();
                attempt.await
            }
        };
        answer.unwrap_or(Err(StoreErrorKind::Panicked))
    }

    async fn attempt(
        self: Arc<Self>,
        request: Request,
        breaker: fn(&Self) -> &Breaker,
        left: CancellationToken,
        begun: CancellationToken,
    ) -> Result<Answer, StoreErrorKind> {
        let clock = self.clock;
        let began = clock.now();
        let limit = match request.operation {
            Operation::Get | Operation::Put => ATTEMPT_TIMEOUT,
            _ => LEASE_TIMEOUT,
        };
        let answer = async {
            // Never closed.
            let _permit = self.permits.acquire().await;
            self.server.ask(&self.wire, request, &begun).await
        };
        let is_abandoned = async {
            left.cancelled().await;
            clock.sleep_until(began + ABANDONED_AFTER).await;
        };
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = is_abandoned => Err(Failure::TimedOut),
            () = clock.sleep(limit) => Err(Failure::TimedOut),
        };
        if breaker(&self).learn(clock.now(), answer.is_err()) && request.operation == Operation::Get
        {
            tokio::spawn(Arc::clone(&self).probe_reads(request));
        }
        answer.map_err(|failure| match failure {
            Failure::Refused => StoreErrorKind::Unreachable,
            Failure::Overloaded => StoreErrorKind::Unavailable,
            Failure::TimedOut => StoreErrorKind::TimedOut,
        })
    }

    /// Reads are probed in the background until the breaker closes.
    async fn probe_reads(self: Arc<Self>, request: Request) {
        while self.reads.is_open() {
            self.clock.sleep(PROBE_INTERVAL).await;
            let probe = CancellationToken::new();
            let asked = self.server.ask(&self.wire, request, &probe);
            let has_failed = tokio::select! {
                biased;
                answer = asked => answer.is_err(),
                () = self.clock.sleep(ATTEMPT_TIMEOUT) => true,
            };
            self.reads.learn(self.clock.now(), has_failed);
        }
    }
}

#[async_trait]
impl PipelineCacheStore for Remote {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let program = program_of(key);
        let request = Request {
            operation: Operation::Get,
            program,
        };
        let answer = self.0.call(request, |client| &client.reads).await;
        match answer.map_err(|kind| error(StoreOperation::Get, kind))? {
            Answer::Hit => {
                let artifact = &self.0.workload.program(program).artifact;
                Ok(Fetched::Hit(artifact.clone()))
            }
            _ => Ok(Fetched::Miss),
        }
    }

    async fn put(&self, key: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        let request = Request {
            operation: Operation::Put,
            program: program_of(key),
        };
        let answer = self.0.call(request, |client| &client.writes).await;
        answer
            .map(drop)
            .map_err(|kind| error(StoreOperation::Put, kind))
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        let fetched = self.fetch(key).await?;
        Ok(matches!(fetched, Fetched::Hit(_)))
    }

    /// Nothing in the model removes.
    async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Err(error(StoreOperation::Remove, StoreErrorKind::ReadOnly))
    }

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        self.0.grants_leases.then_some(self as _)
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        PipelineCacheMetrics::default()
    }

    fn locality(&self) -> Locality {
        Locality::Network
    }
}

pub(crate) fn error(operation: StoreOperation, kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, "remote", operation)
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("remote")
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}
