//! Writes to network tiers that are not done, kept by a local tier over restarts.
//!
//! Every background write to a network tier is owed from its start. What is still owed a little later
//! is recorded as an intent, so that a healthy network costs no intent, and a process that is killed
//! during an outage has left one. See [`super::intent_offers`] for how intents are offered.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::tier::Tier;
use crate::key::PipelineFingerprint;
use crate::store::metrics::Counter;
use crate::store::{IntentsAdded, Locality};
use crate::sync::lock::lock;

/// What is owed is recorded at the second tick.
const TICK: Duration = Duration::from_millis(250);
const TICKS_BEFORE: u64 = 2;
/// Ticks before a record is tried again: the artifact is not in the local tier yet, or that fails.
const TICKS_AGAIN: u64 = 20;
/// How often the artifact may be missing in the local tier.
const MAX_MISSING: u32 = 3;

/// What is owed at most. Three megabytes.
const MAX_OWED: usize = 1 << 16;

/// Intents are recorded so many at a time, in a few milliseconds on the blocking pool.
const BATCH: usize = 256;

/// An artifact for a tier.
type Write = (PipelineFingerprint, usize);

#[derive(Debug)]
pub(super) struct Intents {
    me: Weak<Self>,
    tiers: Arc<[Tier]>,
    /// The tier that keeps them.
    keeper: Option<usize>,
    timeout: Duration,
    state: Mutex<State>,
    /// Notified when there is an intent of an artifact that this process no longer has in memory.
    pub(super) left: Notify,
    pub(super) counters: IntentCounters,
}

#[derive(Debug, Default)]
pub(super) struct IntentCounters {
    pub(super) kept: Counter,
    pub(super) taken: Counter,
    pub(super) dropped: Counter,
    pub(super) failed: Counter,
}

#[derive(Debug, Default)]
struct State {
    owed: HashMap<Write, Owed>,
    /// Recorded, and not owed any more: to be removed.
    settled: Vec<Write>,
    tick: u64,
    /// Whether a task records.
    is_recording: bool,
}

#[derive(Debug, Clone, Copy)]
enum Owed {
    New {
        /// At which tick it is recorded.
        due: u64,
        missing: u32,
        /// Whether this process still has the artifact in memory, and offers it from there.
        in_memory: bool,
    },
    /// There is an intent.
    Recorded,
}

impl Intents {
    pub(super) fn new(tiers: &Arc<[Tier]>, timeout: Duration) -> Arc<Self> {
        let keeps =
            |tier: &Tier| tier.locality == Locality::Local && tier.write_intents().is_some();
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            keeper: tiers.iter().position(keeps),
            tiers: Arc::clone(tiers),
            timeout,
            state: Mutex::default(),
            left: Notify::new(),
            counters: IntentCounters::default(),
        })
    }

    /// The tier that keeps intents, if there is one.
    pub(super) fn keeper(&self) -> Option<&Tier> {
        self.keeper.map(|keeper| &self.tiers[keeper])
    }

    fn are_kept_for(&self, tier: usize) -> bool {
        self.keeper.is_some() && self.tiers[tier].locality == Locality::Network
    }

    /// A write to a tier begins.
    pub(super) fn owe(&self, key: &PipelineFingerprint, tier: usize) {
        if self.are_kept_for(tier) {
            self.owe_from(key, tier, TICKS_BEFORE, true);
        }
    }

    fn owe_from(&self, key: &PipelineFingerprint, tier: usize, ticks: u64, in_memory: bool) {
        let mut state = lock(&self.state);
        if state.owed.len() >= MAX_OWED {
            self.counters.failed.increment();
            return;
        }
        let new = Owed::New {
            due: state.tick + ticks,
            missing: 0,
            in_memory,
        };
        match state.owed.entry((*key, tier)) {
            Entry::Occupied(_) if in_memory => {}
            entry => drop(entry.insert_entry(new)),
        }
        self.start_recording(state);
    }

    /// The tier has the artifact, or never takes it.
    pub(super) fn settle(&self, key: &PipelineFingerprint, tier: usize) {
        if !self.are_kept_for(tier) {
            return;
        }
        let mut state = lock(&self.state);
        if let Some(Owed::Recorded) = state.owed.remove(&(*key, tier)) {
            self.remove_later(state, (*key, tier));
        }
    }

    /// As [`settle`](Self::settle), where an earlier process recorded it.
    pub(super) fn settle_recorded(&self, key: &PipelineFingerprint, tier: usize) {
        let mut state = lock(&self.state);
        state.owed.remove(&(*key, tier));
        self.remove_later(state, (*key, tier));
    }

    fn remove_later(&self, mut state: MutexGuard<'_, State>, write: Write) {
        // One that stays is offered once more, which is harmless.
        if state.settled.len() < MAX_OWED {
            state.settled.push(write);
        }
        self.start_recording(state);
    }

    /// This process no longer has the artifact in memory; whether the tier is offered it all the same.
    pub(super) fn overflow(&self, key: &PipelineFingerprint, tier: usize) -> bool {
        if !self.are_kept_for(tier) {
            return false;
        }
        let recorded = {
            let mut state = lock(&self.state);
            match state.owed.get(&(*key, tier)) {
                Some(Owed::Recorded) => state.owed.remove(&(*key, tier)).is_some(),
                _ => false,
            }
        };
        match recorded {
            true => self.left.notify_one(),
            false => self.owe_from(key, tier, 0, false),
        }
        true
    }

    /// The key was removed, here and in the tier that keeps intents.
    pub(super) fn forget_key(&self, key: &PipelineFingerprint) {
        let mut state = lock(&self.state);
        for tier in 0..self.tiers.len() {
            state.owed.remove(&(*key, tier));
        }
    }

    /// Whether this process offers the artifact itself.
    pub(super) fn is_owed(&self, key: &PipelineFingerprint, tier: usize) -> bool {
        lock(&self.state).owed.contains_key(&(*key, tier))
    }

    /// How many intents of this process there are, of artifacts that it has in memory.
    pub(super) fn recorded(&self) -> u64 {
        let state = lock(&self.state);
        let recorded = state
            .owed
            .values()
            .filter(|owed| matches!(owed, Owed::Recorded));
        recorded.count() as u64
    }

    /// Starts the task that records, if there is none: also where the last one is gone with its runtime.
    fn start_recording(&self, mut state: MutexGuard<'_, State>) {
        if state.is_recording {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            state.is_recording = true;
            // A runtime that is shutting down drops the task at once, and that takes the lock.
            drop(state);
            runtime.spawn(Recording(Some(Weak::clone(&self.me))).run());
        }
    }

    /// Records everything that is owed now, and removes what is settled.
    pub(super) async fn record_all(&self) {
        self.record(|_| true).await;
    }

    /// Removes what is settled.
    pub(super) async fn remove_settled(&self) {
        self.record(|_| false).await;
    }

    async fn record(&self, is_due: impl Fn(u64) -> bool) {
        let Some(keeper) = self.keeper() else {
            return;
        };
        let (due, settled) = {
            let mut state = lock(&self.state);
            let due = state.owed.iter().filter_map(|(write, owed)| match owed {
                Owed::New { due, .. } if is_due(*due) => Some(*write),
                _ => None,
            });
            (due.collect::<Vec<_>>(), std::mem::take(&mut state.settled))
        };
        for (tier, keys) in self.batches(due) {
            let name = self.tiers[tier].name();
            let add = keeper.intents(|intents| intents.add(name, &keys));
            match timeout(self.timeout, add).await {
                Ok(Ok(added)) => self.added(tier, &keys, &added),
                failed => self.not_added(tier, &keys, failed.is_err()),
            }
        }
        for (tier, keys) in self.batches(settled) {
            let name = self.tiers[tier].name();
            let remove = keeper.intents(|intents| intents.remove(name, &keys));
            if !matches!(timeout(self.timeout, remove).await, Ok(Ok(()))) {
                // The tier that keeps them has logged why.
                tracing::debug!(
                    tier = name,
                    intents = keys.len(),
                    "intents of writes that are done stay"
                );
            }
        }
    }

    /// The keys for each tier, in portions.
    fn batches(&self, writes: Vec<Write>) -> Vec<(usize, Vec<PipelineFingerprint>)> {
        let of = |tier| {
            writes
                .iter()
                .filter(move |write| write.1 == tier)
                .map(|write| write.0)
        };
        let tiers = (0..self.tiers.len()).map(|tier| (tier, of(tier).collect::<Vec<_>>()));
        let batches = tiers.flat_map(|(tier, keys)| {
            let batches = keys.chunks(BATCH).map(|keys| (tier, keys.to_vec()));
            batches.collect::<Vec<_>>()
        });
        batches.collect()
    }

    fn added(&self, tier: usize, keys: &[PipelineFingerprint], added: &IntentsAdded) {
        self.counters.dropped.add(added.dropped);
        let missing: HashSet<_> = added.missing.iter().collect();
        let mut state = lock(&self.state);
        let again = state.tick + TICKS_AGAIN;
        for key in keys {
            let write = (*key, tier);
            let is_missing = missing.contains(key);
            let owed = state.owed.get_mut(&write);
            match owed {
                // Settled meanwhile.
                None if !is_missing => state.settled.push(write),
                None | Some(Owed::Recorded) => {}
                Some(Owed::New { due, missing, .. }) if is_missing => {
                    (*due, *missing) = (again, *missing + 1);
                    if *missing >= MAX_MISSING {
                        self.counters.failed.increment();
                        state.owed.remove(&write);
                    }
                }
                Some(owed) => {
                    self.counters.kept.increment();
                    match owed {
                        Owed::New {
                            in_memory: false, ..
                        } => {
                            state.owed.remove(&write);
                            self.left.notify_one();
                        }
                        _ => *owed = Owed::Recorded,
                    }
                }
            }
        }
    }

    fn not_added(&self, tier: usize, keys: &[PipelineFingerprint], timed_out: bool) {
        // The tier that keeps them has logged why, unless it hangs.
        tracing::debug!(
            tier = self.tiers[tier].name(),
            intents = keys.len(),
            timed_out,
            "intents of writes not kept"
        );
        self.counters.failed.add(keys.len() as u64);
        let mut state = lock(&self.state);
        let again = state.tick + TICKS_AGAIN;
        for key in keys {
            if let Some(Owed::New { due, .. }) = state.owed.get_mut(&(*key, tier)) {
                *due = again;
            }
        }
    }

    /// The next tick; whether there is nothing left to do.
    async fn tick(&self) -> bool {
        let tick = {
            let mut state = lock(&self.state);
            state.tick += 1;
            state.tick
        };
        self.record(|due| due <= tick).await;
        let mut state = lock(&self.state);
        let is_new = |owed: &Owed| matches!(owed, Owed::New { .. });
        let idle = state.settled.is_empty() && !state.owed.values().any(is_new);
        state.is_recording = !idle;
        idle
    }
}

/// The task that records what is owed, until all of it is recorded or settled.
struct Recording(Option<Weak<Intents>>);

impl Recording {
    async fn run(mut self) {
        loop {
            sleep(TICK).await;
            // Not held while nothing happens: dropping the cache ends the task.
            let Some(intents) = self.0.as_ref().and_then(Weak::upgrade) else {
                return;
            };
            if intents.tick().await {
                // Another may have started since: it is not for this one to stop that.
                self.0 = None;
                return;
            }
        }
    }
}

impl Drop for Recording {
    /// It ends early, as with its runtime: another may take over.
    fn drop(&mut self) {
        if let Some(intents) = self.0.as_ref().and_then(Weak::upgrade) {
            lock(&intents.state).is_recording = false;
        }
    }
}
