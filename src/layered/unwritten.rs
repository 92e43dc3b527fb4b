//! Writes behind that a tier could not take, kept to be offered again while the process lives.
//!
//! While a tier is in trouble, one of them is offered now and then. Once the tier takes it, the
//! others follow.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreErrorKind};
use crate::sync::write_queue::WriteLimits;

#[derive(Debug)]
pub(super) struct Unwritten {
    limits: WriteLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first. One for each key and tier.
    kept: VecDeque<Kept>,
    bytes: u64,
    /// Whether a task offers them.
    is_offered: bool,
}

/// An artifact that a tier does not have.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) key: PipelineFingerprint,
    pub(super) artifact: Artifact,
    pub(super) tier: usize,
    /// Why the tier did not take it the last time.
    pub(super) error: StoreError,
}

/// Whether a tier may take the same artifact a little later.
pub(super) const fn passes(kind: StoreErrorKind) -> bool {
    kind.is_transient()
        || matches!(
            kind,
            StoreErrorKind::Io | StoreErrorKind::StorageFull | StoreErrorKind::PermissionDenied
        )
}

impl Unwritten {
    pub(super) fn new(limits: WriteLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
        }
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an artifact. Returns those that are no longer kept, the oldest, to stay within the
    /// bounds.
    pub(super) fn keep(&self, kept: Kept) -> Vec<Kept> {
        let mut state = self.lock();
        state.forget(|other| other.key == kept.key && other.tier == kept.tier);
        state.bytes += kept.artifact.len() as u64;
        state.kept.push_back(kept);
        let mut given_up = Vec::new();
        while state.kept.len() > self.limits.entries || state.bytes > self.limits.bytes {
            let Some(oldest) = state.kept.pop_front() else {
                break;
            };
            state.bytes -= oldest.artifact.len() as u64;
            given_up.push(oldest);
        }
        given_up
    }

    /// The tier has the artifact, or never takes it.
    pub(super) fn forget(&self, key: &PipelineFingerprint, tier: usize) {
        self.lock()
            .forget(|kept| kept.key == *key && kept.tier == tier);
    }

    /// The key was removed: no tier is to have it.
    pub(super) fn forget_key(&self, key: &PipelineFingerprint) {
        self.lock().forget(|kept| kept.key == *key);
    }

    /// What this tier is to be offered, oldest first.
    pub(super) fn of(&self, tier: usize) -> Vec<Kept> {
        let state = self.lock();
        let kept = state.kept.iter().filter(|kept| kept.tier == tier);
        kept.cloned().collect()
    }

    pub(super) fn contains(&self, key: &PipelineFingerprint, tier: usize) -> bool {
        let state = self.lock();
        let mut kept = state.kept.iter();
        kept.any(|kept| kept.key == *key && kept.tier == tier)
    }

    pub(super) fn len(&self) -> u64 {
        self.lock().kept.len() as u64
    }

    /// Why the oldest was not taken.
    pub(super) fn error(&self) -> Option<StoreError> {
        self.lock().kept.front().map(|kept| kept.error.clone())
    }

    /// Whether the caller is to offer what is kept from now on.
    pub(super) fn start_offering(&self) -> bool {
        let mut state = self.lock();
        let starts = !state.is_offered && !state.kept.is_empty();
        state.is_offered |= starts;
        starts
    }

    /// Whether there is nothing left to offer. Another may start then.
    pub(super) fn stop_if_empty(&self) -> bool {
        let mut state = self.lock();
        state.is_offered &= !state.kept.is_empty();
        !state.is_offered
    }

    pub(super) fn stop_offering(&self) {
        self.lock().is_offered = false;
    }
}

impl State {
    fn forget(&mut self, is_meant: impl Fn(&Kept) -> bool) {
        let bytes = &mut self.bytes;
        self.kept.retain(|kept| {
            let stays = !is_meant(kept);
            if !stays {
                *bytes -= kept.artifact.len() as u64;
            }
            stays
        });
    }
}
