//! A recorded run: the keys that a cache was asked for, and what each costs.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use crate::key::{PassThrough, PipelineFingerprint};

/// The keys that a cache was asked for in one run, in the order of their first use.
///
/// A cache that [records](crate::LayeredPipelineCacheBuilder::record_run) makes one of them. It is
/// [saved](Self::save) as one file, and the next run, or another machine, [loads](Self::load) it and
/// [prefetches](crate::LayeredPipelineCache::prefetch) what it names.
///
/// It holds fingerprints, sizes and times: no source, no artifact and no secret. A clone is cheap.
///
/// ```
/// use pipeline_cache::layered::RecordedRun;
/// use pipeline_cache::{Artifact, InMemoryPipelineCache, LayeredPipelineCache, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("build.run");
/// let cache = LayeredPipelineCache::builder()
///     .tier(InMemoryPipelineCache::new())
///     .record_run()
///     .build();
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// cache.put(&key, Artifact::new("code")).await?;
/// cache.get(&key).await;
///
/// if let Some(run) = cache.recorded_run().await {
///     run.save(&path).await?;
/// }
/// let run = RecordedRun::load(&path).await?;
/// assert_eq!((run.keys()[0].key, run.keys()[0].bytes), (key, Some(4)));
/// assert_eq!(run.not_kept(), 0); // otherwise raise `max_recorded_keys`
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedRun {
    keys: Arc<[RecordedKey]>,
    not_kept: u64,
}

/// A key of a [`RecordedRun`], and what it costs.
///
/// See [`RecordedRun`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RecordedKey {
    /// The key, of an artifact or of a source alias.
    pub key: PipelineFingerprint,
    /// What has this key.
    pub kind: RecordedKind,
    /// How many requests of the run were for it.
    pub uses: u64,
    /// The payload bytes. `None` if the run has never seen the payload.
    pub bytes: Option<u64>,
    /// How long the compile took, now or on the machine that made the artifact; for a source alias,
    /// the parse and its key. `None` if the run could not tell.
    pub compile_time: Option<Duration>,
}

/// What a [`RecordedKey`] names.
///
/// See [`RecordedRun`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum RecordedKind {
    /// An artifact.
    Artifact,
    /// A [source alias](crate::SourceAliases): the next run need not parse the source.
    SourceAlias,
}

impl fmt::Display for RecordedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Artifact => "artifact",
            Self::SourceAlias => "source alias",
        })
    }
}

impl RecordedRun {
    /// The most keys that a run, and so its file, can hold.
    pub const MAX_KEYS: usize = 1_000_000;

    /// At most [`MAX_KEYS`](Self::MAX_KEYS); those beyond are counted as not kept.
    pub(super) fn new(mut keys: Vec<RecordedKey>, not_kept: u64) -> Self {
        let beyond = keys.len().saturating_sub(Self::MAX_KEYS) as u64;
        keys.truncate(Self::MAX_KEYS);
        Self {
            keys: keys.into(),
            not_kept: not_kept.saturating_add(beyond),
        }
    }

    /// The keys, in the order of their first use.
    #[must_use]
    pub fn keys(&self) -> &[RecordedKey] {
        &self.keys
    }

    /// Requests for keys that were not kept, because the
    /// [bound](crate::LayeredPipelineCacheBuilder::max_recorded_keys) was reached; after a
    /// [merge](Self::merge), also keys beyond [`MAX_KEYS`](Self::MAX_KEYS).
    #[must_use]
    pub const fn not_kept(&self) -> u64 {
        self.not_kept
    }

    /// The payload bytes of all keys whose size is known.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = self.keys.iter().filter_map(|key| key.bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// The compile time of all artifacts for which it is known: what a run without a cache computes
    /// at least. The parses of source aliases are not in it.
    #[must_use]
    pub fn compile_time(&self) -> Duration {
        let artifacts = self.keys.iter();
        let artifacts = artifacts.filter(|key| key.kind == RecordedKind::Artifact);
        let times = artifacts.filter_map(|key| key.compile_time);
        times.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// This run and a newer one as one: first the keys of this run, then those that only the newer has.
    /// Uses are added; sizes and times are those of the newer run where it knows them.
    ///
    /// Takes some milliseconds for 100,000 keys: call it off the runtime's workers for so many.
    ///
    /// ```
    /// use pipeline_cache::layered::RecordedRun;
    ///
    /// let (monday, tuesday) = (RecordedRun::default(), RecordedRun::default());
    /// assert_eq!(monday.merge(&tuesday), RecordedRun::default());
    /// ```
    #[must_use]
    pub fn merge(&self, newer: &Self) -> Self {
        let mut keys = self.keys.to_vec();
        let mut places: HashMap<_, _, BuildHasherDefault<PassThrough>> = HashMap::default();
        places.extend(keys.iter().enumerate().map(|(at, key)| (key.key, at)));
        for key in newer.keys.iter() {
            match places.get(&key.key) {
                Some(&at) => keys[at].add(key),
                None => {
                    places.insert(key.key, keys.len());
                    keys.push(*key);
                }
            }
        }
        Self::new(keys, self.not_kept.saturating_add(newer.not_kept))
    }

    /// The keys in the order in which they are prefetched: source aliases, then what saves the most
    /// compile time for each byte, then what is of unknown cost. Equals are in the order of first use.
    ///
    /// Takes some milliseconds for 100,000 keys: call it off the runtime's workers for so many.
    ///
    /// ```
    /// use pipeline_cache::layered::RecordedRun;
    ///
    /// assert!(RecordedRun::default().most_valuable_first().is_empty());
    /// ```
    #[must_use]
    pub fn most_valuable_first(&self) -> Vec<RecordedKey> {
        let mut keys = self.keys.to_vec();
        keys.sort_by(RecordedKey::by_value);
        keys
    }
}

impl RecordedKey {
    /// Adds what a newer run knows of the same key.
    fn add(&mut self, newer: &Self) {
        self.uses = self.uses.saturating_add(newer.uses);
        self.bytes = newer.bytes.or(self.bytes);
        self.compile_time = newer.compile_time.or(self.compile_time);
    }

    /// What is worth more is less.
    fn by_value(&self, other: &Self) -> Ordering {
        let is_artifact = |key: &Self| key.kind == RecordedKind::Artifact;
        let of_kind = is_artifact(self).cmp(&is_artifact(other));
        of_kind.then_with(|| match (self.cost(), other.cost()) {
            // An alias is small, whatever it saves.
            _ if !is_artifact(self) => Ordering::Equal,
            // The quotients are compared without a division. No product overflows: the factors have
            // 64 bits.
            (Some((time, bytes)), Some((of_other, bytes_of_other))) => {
                let (this, other) = (time * bytes_of_other, of_other * bytes);
                other.cmp(&this)
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        })
    }

    /// The nanoseconds of the compile and the bytes, where both are known.
    fn cost(&self) -> Option<(u128, u128)> {
        let nanos = u128::from(nanos(self.compile_time?));
        Some((nanos, u128::from(self.bytes?.max(1))))
    }
}

/// Whole nanoseconds, at most `u64::MAX` of them.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
