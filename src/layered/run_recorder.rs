//! Records what a run is asked for: one short lock for each request, in one of many shards.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::recorded_run::{RecordedKey, RecordedKind, RecordedRun};
use crate::artifact::Artifact;
use crate::key::{PassThrough, PipelineFingerprint};
use crate::store::metrics::Counter;
use crate::sync::lock::lock;

/// Enough that a few dozen threads rarely meet in one.
const SHARDS: usize = 64;

pub(super) struct RunRecorder {
    shards: Box<[Shard]>,
    max_keys: usize,
    /// Keys that are kept. A new key gets this as its place in the order of first use.
    keys: AtomicUsize,
    not_kept: Counter,
}

/// On cache lines of its own, so that neighbours do not slow each other down.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<HashMap<PipelineFingerprint, Recorded, BuildHasherDefault<PassThrough>>>);

struct Recorded {
    /// The place in the order of first use.
    place: usize,
    key: RecordedKey,
}

/// What a request tells of its key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) bytes: Option<u64>,
    pub(super) compile_time: Option<Duration>,
}

impl Cost {
    pub(super) fn of(artifact: &Artifact) -> Self {
        Self {
            bytes: Some(artifact.len() as u64),
            compile_time: artifact.metadata().compile_time(),
        }
    }
}

impl RunRecorder {
    /// Room is made as keys come.
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            max_keys: max_keys.min(RecordedRun::MAX_KEYS),
            keys: AtomicUsize::new(0),
            not_kept: Counter::default(),
        }
    }

    /// A request for a key was answered. Allocates only for a key that is new.
    pub(super) fn used(&self, key: &PipelineFingerprint, kind: RecordedKind, cost: Cost) {
        let mut shard = lock(&self.shard(key).0);
        match shard.entry(*key) {
            Entry::Occupied(mut recorded) => {
                let recorded = &mut recorded.get_mut().key;
                recorded.uses = recorded.uses.saturating_add(1);
                recorded.learn(cost);
            }
            Entry::Vacant(vacant) => match self.next_place() {
                Some(place) => {
                    let Cost {
                        bytes,
                        compile_time,
                    } = cost;
                    let key = RecordedKey {
                        key: *key,
                        kind,
                        uses: 1,
                        bytes,
                        compile_time,
                    };
                    vacant.insert(Recorded { place, key });
                }
                None => self.not_kept.increment(),
            },
        }
    }

    /// What a key costs that a request has missed: its artifact is put.
    pub(super) fn put(&self, key: &PipelineFingerprint, artifact: &Artifact) {
        if let Some(recorded) = lock(&self.shard(key).0).get_mut(key) {
            recorded.key.learn(Cost::of(artifact));
        }
    }

    fn next_place(&self) -> Option<usize> {
        let next = |keys| (keys < self.max_keys).then_some(keys + 1);
        let taken = self
            .keys
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.ok()
    }

    fn shard(&self, key: &PipelineFingerprint) -> &Shard {
        let hash = BuildHasherDefault::<PassThrough>::default().hash_one(key);
        // Other bits than those that the map of the shard uses.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// The run so far. Takes some milliseconds for 100,000 keys, and holds up one shard at a time.
    pub(super) fn run(&self) -> RecordedRun {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = lock(&shard.0);
            all.extend(
                shard
                    .values()
                    .map(|recorded| (recorded.place, recorded.key)),
            );
        }
        all.sort_unstable_by_key(|(place, _)| *place);
        let keys = all.into_iter().map(|(_, key)| key).collect();
        RecordedRun::new(keys, self.not_kept.get())
    }
}

impl RecordedKey {
    fn learn(&mut self, cost: Cost) {
        self.bytes = cost.bytes.or(self.bytes);
        self.compile_time = cost.compile_time.or(self.compile_time);
    }
}

impl fmt::Debug for RunRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunRecorder")
            .field("keys", &self.keys)
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> PipelineFingerprint {
        PipelineFingerprint::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn keys_come_in_the_order_of_first_use_whatever_their_shard() {
        let recorder = RunRecorder::new(usize::MAX);
        for n in (0..1_000).chain(0..10) {
            recorder.used(&key(n), RecordedKind::Artifact, Cost::default());
        }
        let run = recorder.run();
        assert!(run.keys().iter().map(|key| key.key).eq((0..1_000).map(key)));
        assert_eq!((run.keys()[9].uses, run.keys()[10].uses), (2, 1));
    }

    #[test]
    fn numbered_keys_spread_over_the_shards() {
        for at in [0, 12, 24] {
            let recorder = RunRecorder::new(usize::MAX);
            for n in 0..10_000_u64 {
                let mut bytes = [0; 32];
                bytes[at..at + 8].copy_from_slice(&n.to_be_bytes());
                let key = PipelineFingerprint::from_bytes(bytes);
                recorder.used(&key, RecordedKind::Artifact, Cost::default());
            }
            let fullest = recorder
                .shards
                .iter()
                .map(|shard| lock(&shard.0).len())
                .max();
            assert!(fullest < Some(10_000 / 16), "{fullest:?} from byte {at}");
        }
    }
}
