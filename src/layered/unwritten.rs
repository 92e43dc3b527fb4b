//! Writes behind that a tier could not take, kept in memory to be offered again. Those to network
//! tiers are kept over restarts as well, where a local tier keeps intents: see [`super::intents`].
//!
//! While a tier is in trouble, one of them is offered now and then. Once the tier takes it, the
//! others follow. An artifact that a tier refuses again and again while it takes others is given up:
//! it is in the way of every flush, and it is not the tier that is in trouble.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreErrorKind};
use crate::sync::write_queue::WriteLimits;

#[derive(Debug)]
pub(super) struct Unwritten {
    limits: WriteLimits,
    /// How often a tier that takes others may refuse one.
    max_refusals: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first. One for each key and tier.
    kept: VecDeque<Kept>,
    bytes: u64,
    /// How many writes each tier has taken.
    taken: HashMap<usize, u64>,
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
    /// How often the tier refused it that took another since the refusal before.
    refusals: u32,
    /// How many writes the tier had taken when it refused this one the last time.
    taken_before: u64,
}

impl Kept {
    pub(super) fn new(
        key: &PipelineFingerprint,
        artifact: &Artifact,
        tier: usize,
        error: StoreError,
    ) -> Self {
        Self {
            key: *key,
            artifact: artifact.clone(),
            tier,
            error,
            refusals: 0,
            taken_before: 0,
        }
    }

    fn is_of(&self, key: &PipelineFingerprint, tier: usize) -> bool {
        self.key == *key && self.tier == tier
    }
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
    pub(super) fn new(limits: WriteLimits, max_refusals: u32) -> Self {
        Self {
            limits,
            max_refusals: max_refusals.max(1),
            state: Mutex::default(),
        }
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an artifact. Returns those that are no longer kept: this one, if it was refused too
    /// often, or else the oldest, to stay within the bounds.
    pub(super) fn keep(&self, mut kept: Kept) -> Vec<Kept> {
        let mut state = self.lock();
        state.count_refusal(&mut kept);
        state.forget(|other| other.is_of(&kept.key, kept.tier));
        if self.is_refused(&kept) {
            return vec![kept];
        }
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

    /// The tier has taken the artifact.
    pub(super) fn taken(&self, key: &PipelineFingerprint, tier: usize) {
        let mut state = self.lock();
        *state.taken.entry(tier).or_default() += 1;
        state.forget(|kept| kept.is_of(key, tier));
    }

    /// How many writes the tier has taken.
    pub(super) fn number_taken(&self, tier: usize) -> u64 {
        self.lock().number_taken(tier)
    }

    /// The tier has the artifact, or never takes it.
    pub(super) fn forget(&self, key: &PipelineFingerprint, tier: usize) {
        self.lock().forget(|kept| kept.is_of(key, tier));
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
        state.kept.iter().any(|kept| kept.is_of(key, tier))
    }

    /// Whether it was refused too often.
    pub(super) fn is_refused(&self, kept: &Kept) -> bool {
        kept.refusals >= self.max_refusals
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
    fn number_taken(&self, tier: usize) -> u64 {
        self.taken.get(&tier).copied().unwrap_or(0)
    }

    /// Whose fault a refusal is shows in what becomes of the others.
    fn count_refusal(&self, kept: &mut Kept) {
        kept.taken_before = self.number_taken(kept.tier);
        let mut others = self.kept.iter();
        let Some(before) = others.find(|other| other.is_of(&kept.key, kept.tier)) else {
            return;
        };
        let was_sent = kept.error.kind() != StoreErrorKind::BreakerOpen;
        let took_another = kept.taken_before > before.taken_before;
        kept.refusals = before.refusals + u32::from(was_sent && took_another);
        if !was_sent {
            kept.taken_before = before.taken_before;
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOperation;

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);
    const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([2; 32]);

    /// How many are given up when the first tier refuses the key so.
    fn refuse(unwritten: &Unwritten, kind: StoreErrorKind) -> usize {
        let error = StoreError::new(kind, "tier", StoreOperation::Put);
        let kept = Kept::new(&KEY, &Artifact::new("code"), 0, error);
        unwritten.keep(kept).len()
    }

    fn unwritten(max_refusals: u32) -> Unwritten {
        let limits = WriteLimits {
            entries: 10,
            bytes: 1000,
            concurrency: 1,
        };
        Unwritten::new(limits, max_refusals)
    }

    #[test]
    fn only_a_refusal_after_the_tier_took_another_is_counted() {
        use StoreErrorKind::{BreakerOpen, Unavailable};
        let unwritten = unwritten(2);
        for _ in 0..5 {
            assert_eq!(refuse(&unwritten, Unavailable), 0);
        }
        unwritten.taken(&OTHER, 1);
        assert_eq!(refuse(&unwritten, Unavailable), 0, "that was another tier");
        unwritten.taken(&OTHER, 0);
        assert_eq!(refuse(&unwritten, BreakerOpen), 0, "nothing was sent");
        assert_eq!(refuse(&unwritten, Unavailable), 0, "the first");
        assert_eq!(refuse(&unwritten, Unavailable), 0, "none was taken since");
        unwritten.taken(&OTHER, 0);
        assert_eq!(refuse(&unwritten, Unavailable), 1, "the second");
        assert_eq!((unwritten.len(), unwritten.lock().bytes), (0, 0));
    }
}
