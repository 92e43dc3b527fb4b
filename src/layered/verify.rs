//! Trust, and look now and then: a share of the hits is compiled again and compared.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::metrics::Counter;

/// A stored artifact that is not what its program compiles to now.
///
/// Either the compiler is not deterministic, or its scope leaves out something that changes the
/// artifact, or the artifact was made by someone else.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifyMismatch {
    /// The key.
    pub key: PipelineFingerprint,
    /// What was served.
    pub stored: Artifact,
    /// What the compiler made of the same input now.
    pub recompiled: Artifact,
}

type OnMismatch = Arc<dyn Fn(&VerifyMismatch) + Send + Sync>;

/// Which hits are verified, and what happens then.
#[derive(Clone)]
pub(super) struct VerifySettings {
    /// Of a million hits.
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
    /// Millionths of hits so far: each time a million is full, a hit is verified.
    millionths: AtomicU64,
    /// One at a time: verifying is no reason to load the machine.
    slot: Arc<Semaphore>,
    pub(super) verified: Counter,
    pub(super) mismatches: Counter,
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

    /// Compiles a hit again in the background, if it is its turn and no other is being verified.
    pub(super) fn maybe_verify<F, C, E>(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        stored: &Artifact,
        compile: F,
    ) where
        F: FnOnce() -> C + Send + 'static,
        C: Future<Output = Result<Artifact, E>> + Send + 'static,
        E: Send + 'static,
    {
        let Some(settings) = &self.settings else {
            return;
        };
        let before = self.millionths.fetch_add(settings.ppm, Ordering::Relaxed);
        let its_turn = before / MILLION != before.wrapping_add(settings.ppm) / MILLION;
        if !its_turn {
            return;
        }
        let Ok(slot) = Arc::clone(&self.slot).try_acquire_owned() else {
            return;
        };
        let (verifier, stored) = (Arc::clone(self), stored.clone());
        let on_mismatch = Arc::clone(&settings.on_mismatch);
        // Not waited for by anyone: a panic ends with the task, and so does the runtime.
        drop(tokio::spawn(async move {
            let _slot = slot;
            // A compile that fails says nothing of the artifact.
            if let Ok(recompiled) = compile().await {
                verifier.compare(key, stored, recompiled, &on_mismatch);
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
                "a stored artifact is not what its program compiles to"
            );
            on_mismatch(&VerifyMismatch {
                key,
                stored,
                recompiled,
            });
        }
    }
}
