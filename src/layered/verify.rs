//! Recompiles a sample of the hits and compares.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::metrics::Counter;

/// A stored artifact that differs from what its program compiles to now.
///
/// Either the compiler is not deterministic, or the scope leaves out something that changes the
/// artifact, or another writer stored another artifact under the key.
///
/// See [`verify_sample`](super::LayeredPipelineCacheBuilder::verify_sample) for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifyMismatch {
    /// The key.
    pub key: PipelineFingerprint,
    /// The artifact that was served.
    pub stored: Artifact,
    /// The artifact that the same input compiled to now.
    pub recompiled: Artifact,
}

type OnMismatch = Arc<dyn Fn(&VerifyMismatch) + Send + Sync>;

/// Which hits are verified, and what is called for a mismatch.
#[derive(Clone)]
pub(super) struct VerifySettings {
    /// How many of a million hits are verified.
    pub(super) ppm: u64,
    pub(super) on_mismatch: OnMismatch,
}

impl fmt::Debug for VerifySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifySettings")
            .field("ppm", &self.ppm)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct Verifier {
    settings: Option<VerifySettings>,
    /// The sum of `ppm` over the hits so far. Each full million verifies one hit.
    millionths: AtomicU64,
    /// One recompile runs at a time, so that verifying does not load the machine.
    slot: Arc<Semaphore>,
    pub(super) verified: Counter,
    pub(super) mismatches: Counter,
}

/// A hit that is to be verified.
pub(super) struct Sample {
    _slot: OwnedSemaphorePermit,
    on_mismatch: OnMismatch,
}

const MILLION: u64 = 1_000_000;

impl Verifier {
    pub(super) fn new(settings: Option<VerifySettings>) -> Self {
        Self {
            settings,
            millionths: AtomicU64::new(0),
            slot: Arc::new(Semaphore::new(1)),
            verified: Counter::default(),
            mismatches: Counter::default(),
        }
    }

    /// Whether the next hit is to be verified: if it is sampled, and no other is being verified.
    pub(super) fn sample(&self) -> Option<Sample> {
        let settings = self.settings.as_ref()?;
        let before = self.millionths.fetch_add(settings.ppm, Ordering::Relaxed);
        let is_sampled = before / MILLION != before.wrapping_add(settings.ppm) / MILLION;
        if !is_sampled {
            return None;
        }
        let slot = Arc::clone(&self.slot).try_acquire_owned().ok()?;
        let on_mismatch = Arc::clone(&settings.on_mismatch);
        Some(Sample {
            _slot: slot,
            on_mismatch,
        })
    }

    /// Compares a hit with what it compiles to now, in the background.
    pub(super) fn verify(
        self: &Arc<Self>,
        sample: Sample,
        key: PipelineFingerprint,
        stored: Artifact,
        recompile: impl Future<Output = Option<Artifact>> + Send + 'static,
    ) {
        let verifier = Arc::clone(self);
        // Detached: a panic ends this task alone.
        drop(tokio::spawn(async move {
            if let Some(recompiled) = recompile.await {
                verifier.compare(key, stored, recompiled, &sample.on_mismatch);
            }
        }));
    }

    fn compare(
        &self,
        key: PipelineFingerprint,
        stored: Artifact,
        recompiled: Artifact,
        on_mismatch: &OnMismatch,
    ) {
        self.verified.increment();
        if stored != recompiled {
            self.mismatches.increment();
            tracing::error!(
                %key,
                stored = %blake3::Hash::from_bytes(*stored.digest()),
                recompiled = %blake3::Hash::from_bytes(*recompiled.digest()),
                "verification failed: the stored artifact differs from the recompiled one"
            );
            on_mismatch(&VerifyMismatch {
                key,
                stored,
                recompiled,
            });
        }
    }
}
