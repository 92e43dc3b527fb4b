//! How a machine acquires compile leases, as the library's network tiers do: it asks, learns of the
//! end of a lease that another holds, looks again now and then, and renews what it holds.

use async_trait::async_trait;
use pipeline_cache::store::answer_begins;
use pipeline_cache::{
    CompileLease, CompileLeases, PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::lease_table::{TIME_TO_LIVE, Watch};
use crate::remote::{Client, Remote, error};
use crate::server::{Answer, Operation, Request};
use crate::workload::{ProgramId, program_of};

/// The pause before the next question: an eighth of the time waited so far, within these bounds.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

enum Asked {
    Lease(CompileLease),
    Held,
}

#[async_trait]
impl CompileLeases for Remote {
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        let client = &self.0;
        let lease = match client.reads.is_open() {
            true => Err(StoreErrorKind::BreakerOpen),
            false => client.wait_for_lease(program_of(key)).await,
        };
        lease
            .map(Some)
            .map_err(|kind| error(StoreOperation::CompileLease, kind))
    }
}

impl Client {
    async fn wait_for_lease(
        self: &Arc<Self>,
        program: ProgramId,
    ) -> Result<CompileLease, StoreErrorKind> {
        static NEXT_HOLDER: AtomicU64 = AtomicU64::new(0);
        let holder = NEXT_HOLDER.fetch_add(1, Ordering::Relaxed);
        let began = self.clock.now();
        let mut ended = None;
        loop {
            if let Asked::Lease(lease) = self.ask_for_lease(program, holder).await? {
                return Ok(lease);
            }
            let Some(ended) = &mut ended else {
                answer_begins();
                ended = Some(self.watch(program).await?);
                continue;
            };
            self.pause(began, ended).await;
        }
    }

    /// Asks in a task of its own. Where its caller leaves, a lease that comes is dropped.
    async fn ask_for_lease(
        self: &Arc<Self>,
        program: ProgramId,
        holder: u64,
    ) -> Result<Asked, StoreErrorKind> {
        let client = Arc::clone(self);
        let asked = tokio::spawn(async move {
            Ok(
                match client.send(Operation::Acquire(holder), program).await? {
                    Answer::Granted => Asked::Lease(client.hold(program, holder)),
                    Answer::Stored => Asked::Lease(CompileLease::stored()),
                    _ => Asked::Held,
                },
            )
        });
        asked.await.unwrap_or(Err(StoreErrorKind::Panicked))
    }

    async fn send(
        self: &Arc<Self>,
        operation: Operation,
        program: ProgramId,
    ) -> Result<Answer, StoreErrorKind> {
        let request = Request { operation, program };
        self.call(request, |client| &client.leases).await
    }

    async fn watch(self: &Arc<Self>, program: ProgramId) -> Result<Watch, StoreErrorKind> {
        match self.send(Operation::Watch, program).await? {
            Answer::Watching(ended) => Ok(Watch::new(ended)),
            _ => Err(StoreErrorKind::Protocol),
        }
    }

    /// Until the lease of another has ended, or it is time to look.
    async fn pause(&self, began: Duration, ended: &mut Watch) {
        let waited = self.clock.now() - began;
        let pause = (waited / 8).clamp(MIN_PAUSE, MAX_PAUSE);
        let announced = async {
            ended.changed().await;
            self.clock.sleep(self.wire.latency).await;
        };
        tokio::select! {
            biased;
            () = announced => {}
            () = self.clock.sleep(pause) => {}
        }
    }

    /// A lease that is renewed until it is dropped.
    fn hold(self: &Arc<Self>, program: ProgramId, holder: u64) -> CompileLease {
        let ended = CancellationToken::new();
        tokio::spawn(Arc::clone(self).keep(program, holder, ended.clone()));
        CompileLease::new(ended.drop_guard())
    }

    async fn keep(self: Arc<Self>, program: ProgramId, holder: u64, ended: CancellationToken) {
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = self.renew(program, holder) => return,
        }
        // If this fails, the server ends it when its time is over.
        let _ = self.send(Operation::Release(holder), program).await;
    }

    /// Ends when the lease is lost.
    async fn renew(self: &Arc<Self>, program: ProgramId, holder: u64) {
        let mut until = self.clock.now() + TIME_TO_LIVE;
        let mut pause = TIME_TO_LIVE / 3;
        loop {
            self.clock.sleep(pause).await;
            let asked = self.clock.now();
            pause = match self.send(Operation::Renew(holder), program).await {
                Ok(Answer::Granted) => {
                    until = asked + TIME_TO_LIVE;
                    TIME_TO_LIVE / 3
                }
                Ok(_) => return,
                Err(_) if self.clock.now() >= until => return,
                Err(_) => TIME_TO_LIVE / 10,
            };
        }
    }
}
