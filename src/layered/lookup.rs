//! The options and the answer of a layered lookup.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::admission::LookupPriority;
use crate::artifact::{Artifact, FrameError};
use crate::store::{Locality, StoreError};

/// The options of one lookup. The default asks every tier and has the deadline of the cache.
///
/// ```
/// use pipeline_cache::{LookupOptions, TierSelection};
/// use std::time::Duration;
///
/// // For a keystroke: only what is on this machine, and soon.
/// let keystroke = LookupOptions::new()
///     .tiers(TierSelection::Local)
///     .deadline(Duration::from_millis(5));
/// # let _ = keystroke;
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LookupOptions {
    pub(super) tiers: TierSelection,
    pub(super) deadline: Option<Duration>,
    pub(super) priority: LookupPriority,
    pub(super) promotion: Promotion,
}

impl LookupOptions {
    /// Every tier, and the deadline of the cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets which tiers may be asked.
    #[must_use]
    pub const fn tiers(mut self, tiers: TierSelection) -> Self {
        self.tiers = tiers;
        self
    }

    /// Sets how long this caller waits, at most as long as the deadline of the cache. Other callers
    /// that wait for the same key are not affected.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets whether a user waits for the answer. The two priorities have bounds of their own, so that
    /// interactive lookups never queue behind background ones.
    #[must_use]
    pub const fn priority(mut self, priority: LookupPriority) -> Self {
        self.priority = priority;
        self
    }
}

/// Where an artifact goes that was found in a lower tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Promotion {
    /// To every faster tier.
    #[default]
    ToAll,
    /// To the last local tier that takes it, which keeps the most.
    ToLastLocal,
}

/// Which tiers a lookup may ask.
///
/// See [`LookupOptions`] for an example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TierSelection {
    /// All tiers.
    #[default]
    All,
    /// The tiers on this machine.
    Local,
}

impl fmt::Display for TierSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all tiers",
            Self::Local => "local tiers",
        })
    }
}

impl TierSelection {
    pub(super) fn allows(self, locality: Locality) -> bool {
        match self {
            Self::All => true,
            Self::Local => locality == Locality::Local,
        }
    }
}

/// In which order a search asks the tiers.
///
/// See [`LayeredPipelineCacheBuilder`](super::LayeredPipelineCacheBuilder) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupPolicy {
    /// All at once.
    Concurrent,
    /// The local tiers at once. The network tiers after `delay`, or as soon as all local tiers have
    /// missed. A fast disk hit then never reaches the network.
    Hedged {
        /// The head start of the local tiers. Zero asks all tiers at once.
        delay: Duration,
    },
    /// One after the other, in the order of the tiers.
    Sequential,
}

impl Default for LookupPolicy {
    /// Hedged by two milliseconds.
    fn default() -> Self {
        Self::Hedged {
            delay: Duration::from_millis(2),
        }
    }
}

/// What one tier did in a lookup.
///
/// See [`TierReport`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TierOutcome {
    /// It had the artifact.
    Hit,
    /// It did not have it.
    Miss,
    /// It held a corrupt entry.
    Corrupt(FrameError),
    /// It had an entry that its settings refuse: see [`Fetched::Refused`](crate::Fetched::Refused).
    Refused,
    /// It failed.
    Failed(StoreError),
    /// It gave no answer before a deadline.
    TimedOut,
    /// It was not asked, because its circuit breaker is open: most of its recent calls failed.
    BreakerOpen,
    /// It was asked, but another tier answered first.
    Cancelled,
    /// It was not asked: a faster tier had the artifact, or the options exclude it.
    Skipped,
}

impl TierOutcome {
    /// Whether the tier could not say if it has the artifact, or held a corrupt entry.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        match self {
            Self::Corrupt(_) | Self::Failed(_) | Self::TimedOut | Self::BreakerOpen => true,
            Self::Hit | Self::Miss | Self::Refused | Self::Cancelled | Self::Skipped => false,
        }
    }

    /// The outcome in a word or two, without a reason.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Corrupt(_) => "corrupt",
            Self::Refused => "refused",
            Self::Failed(_) => "failed",
            Self::TimedOut => "timed out",
            Self::BreakerOpen => "circuit breaker open",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for TierOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(reason) => write!(f, "{}: {reason}", self.label()),
            Self::Failed(error) => write!(f, "{}: {error:#}", self.label()),
            _ => f.write_str(self.label()),
        }
    }
}

/// What one tier did in a lookup, and how long it took.
///
/// ```
/// use pipeline_cache::layered::TierOutcome;
/// use pipeline_cache::{
///     InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, PipelineFingerprint,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// let lookup = cache.lookup(&key, &LookupOptions::new()).await;
/// for (name, tier) in cache.tier_names().zip(lookup.tiers()) {
///     println!("{name}: {} in {:?}", tier.outcome, tier.elapsed);
///     assert!(matches!(tier.outcome, TierOutcome::Miss));
///     if tier.outcome.is_failure() {
///         eprintln!("{name} could not say");
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TierReport {
    /// Its answer, or why there is none.
    pub outcome: TierOutcome,
    /// The time from the call to its answer, or to the end of the lookup. Zero for a tier that was
    /// skipped, or answered without a search.
    pub elapsed: Duration,
}

impl TierReport {
    pub(super) const SKIPPED: Self = Self {
        outcome: TierOutcome::Skipped,
        elapsed: Duration::ZERO,
    };

    pub(super) const TIMED_OUT: Self = Self {
        outcome: TierOutcome::TimedOut,
        elapsed: Duration::ZERO,
    };
}

/// Where an artifact came from. [`tier_names`](crate::LayeredPipelineCache::tier_names) names the
/// tiers.
///
/// See [`Lookup`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LookupSource {
    /// The tier of this index, in the order they were given to the cache.
    Tier(usize),
    /// A promotion from this tier that was not yet written.
    Promotion(usize),
    /// A write behind that was not yet done.
    WriteBehind,
}

impl fmt::Display for LookupSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tier(tier) => write!(f, "tier {tier}"),
            Self::Promotion(tier) => write!(f, "promotion from tier {tier}"),
            Self::WriteBehind => f.write_str("write behind"),
        }
    }
}

/// An artifact, and where it came from.
pub(super) type Found = (Artifact, LookupSource);

/// The answer to a lookup: the artifact, if there is one, and what every tier did.
///
/// ```
/// use pipeline_cache::{
///     Artifact, InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, LookupSource,
///     PipelineFingerprint,
/// };
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pipeline_cache::StoreError> {
/// let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// cache.put(&key, Artifact::new("code")).await?;
///
/// let lookup = cache.lookup(&key, &LookupOptions::new()).await;
/// assert_eq!(lookup.source(), Some(LookupSource::Tier(0)));
/// assert!(!lookup.is_degraded());
/// assert_eq!(lookup.into_artifact(), Some(Artifact::new("code")));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Lookup {
    pub(super) found: Option<Found>,
    /// `None` if no tier had to be asked.
    pub(super) asked: Option<Arc<[TierReport]>>,
    pub(super) tiers: usize,
}

impl Lookup {
    /// A hit for which no tier had to be asked.
    pub(super) const fn without_search(found: Found, tiers: usize) -> Self {
        Self {
            found: Some(found),
            asked: None,
            tiers,
        }
    }

    /// The same, as a miss.
    pub(super) fn without_artifact(self) -> Self {
        Self {
            found: None,
            ..self
        }
    }

    /// The artifact.
    #[must_use]
    pub fn artifact(&self) -> Option<&Artifact> {
        self.found.as_ref().map(|(artifact, _)| artifact)
    }

    /// The artifact, by value.
    #[must_use]
    pub fn into_artifact(self) -> Option<Artifact> {
        self.found.map(|(artifact, _)| artifact)
    }

    /// Where the artifact came from.
    #[must_use]
    pub fn source(&self) -> Option<LookupSource> {
        self.found.as_ref().map(|(_, source)| *source)
    }

    /// What each tier did, in the order of the tiers.
    pub fn tiers(&self) -> impl ExactSizeIterator<Item = TierReport> + '_ {
        (0..self.tiers).map(|tier| self.tier(tier))
    }

    fn tier(&self, tier: usize) -> TierReport {
        if let Some(asked) = &self.asked {
            return asked[tier].clone();
        }
        if self.source() == Some(LookupSource::Tier(tier)) {
            TierReport {
                outcome: TierOutcome::Hit,
                elapsed: Duration::ZERO,
            }
        } else {
            TierReport::SKIPPED
        }
    }

    /// Whether this is a miss that might have been a hit: a tier failed, timed out or held a corrupt
    /// entry. [`tiers`](Self::tiers) says which, and why.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.found.is_none() && self.tiers().any(|tier| tier.outcome.is_failure())
    }
}
