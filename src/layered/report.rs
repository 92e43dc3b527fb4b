//! What became of the background writes, and of a close.

use std::fmt;

use crate::store::StoreError;

/// What became of the promotions so far.
///
/// Every event ends in exactly one way, so that
/// `events == promoted + coalesced + dropped + failed + pending` at all times, and `pending` is 0
/// after a flush.
///
/// See [`promotion_report`](super::LayeredPipelineCache::promotion_report) for an example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LayeredPromotionReport {
    /// Promotions: hits in a lower tier.
    pub events: u64,
    /// Hits promoted to every faster tier that accepts the artifact.
    pub promoted: u64,
    /// Tiers written to, over all events.
    pub promoted_layers: u64,
    /// Payload bytes written, over all events and tiers.
    pub promoted_bytes: u64,
    /// Events that relied on writes of the same key that were already under way.
    pub coalesced: u64,
    /// Events given up: a bound was reached, the key was removed, the cache was closed, or the
    /// runtime was shut down.
    pub dropped: u64,
    /// Events in which some tier failed to take the artifact.
    pub failed: u64,
    /// Events under way.
    pub pending: u64,
    /// Source tier of the last promotion that wrote.
    pub last_source_layer: Option<usize>,
    /// Tiers written to by the last promotion that wrote.
    pub last_promoted_layers: u64,
    /// Payload bytes written by the last promotion that wrote, over all its tiers.
    pub last_promoted_bytes: u64,
}

/// What became of the writes behind so far: the lower tiers of puts under
/// [`WritePolicy::Behind`](super::WritePolicy::Behind), and every tier of what was compiled.
///
/// `accepted == written + dropped + failed + pending` at all times, and `pending` is 0 after a
/// flush.
///
/// ```
/// # use pipeline_cache::{Artifact, InMemoryPipelineCache, LayeredPipelineCache, PipelineFingerprint};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pipeline_cache::StoreError> {
/// let (first, second) = (InMemoryPipelineCache::new(), InMemoryPipelineCache::new());
/// let cache = LayeredPipelineCache::builder().tier(first).tier(second).build();
/// cache.put(&PipelineFingerprint::from_bytes([1; 32]), Artifact::new("code")).await?;
/// cache.flush().await?;
/// let report = cache.write_behind_report();
/// assert_eq!((report.accepted, report.written, report.waiting), (1, 1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct WriteBehindReport {
    /// Puts and compiles whose writes were left to the background.
    pub accepted: u64,
    /// Of these, the writes that reached every target tier.
    pub written: u64,
    /// Of these, those given up: the key was removed, the cache was closed, or the runtime was shut
    /// down.
    pub dropped: u64,
    /// Of these, those that some tier failed to take at once.
    pub failed: u64,
    /// Of these, those under way.
    pub pending: u64,
    /// Of those dropped or failed, the ones of which some write was lost: nobody gave it up, and its
    /// runtime was shut down. The next flush or close reports them.
    pub lost: u64,
    /// Puts and compiles that relied on writes behind of the same key that were already under way.
    pub coalesced: u64,
    /// Puts and compiles that waited for their writes, because the background was full, closed, or
    /// busy with the key in a way they could not rely on.
    pub awaited: u64,
    /// Artifacts that a tier could not take, kept now to be offered to it again. Counted once for
    /// each such tier.
    pub waiting: u64,
    /// Artifacts that a tier took when they were offered again.
    pub recovered: u64,
    /// Artifacts that were kept and are lost to a tier: too many were kept and no local tier keeps
    /// intents, or the tier refused one too often while it took others, or for a reason that does not
    /// pass.
    pub abandoned: u64,
    /// Intents that were recorded in a local tier: writes to a network tier that were not done within
    /// half a second. See [`WriteIntents`](crate::store::WriteIntents).
    pub intents_kept: u64,
    /// Artifacts that a network tier took when they were offered because of an intent of an earlier
    /// process, or of this one, which no longer had the artifact in memory.
    pub intents_taken: u64,
    /// Intents that were dropped: there were too many or they were too old, their artifact was gone, or
    /// the tier refused it for good.
    pub intents_dropped: u64,
    /// Times that an intent could not be recorded: the local tier failed, or did not have the artifact.
    pub intents_failed: u64,
}

/// What a [`close`](super::LayeredPipelineCache::close) could not finish.
///
/// `Display` prints one line.
///
/// See [`close`](super::LayeredPipelineCache::close) for an example.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CloseReport {
    /// Requests that still searched or compiled at the end. They go on, but what they compile is lost to
    /// the tiers that are closed.
    pub unfinished_compiles: u64,
    /// Background writes to a tier that were given up, and those that were kept to be offered again.
    pub unfinished_writes: u64,
    /// Of the writes to network tiers that are not done, those that a local tier keeps as intents: the
    /// next process on it offers them. See [`WriteIntents`](crate::store::WriteIntents).
    pub kept_intents: u64,
    /// The errors of the tiers that failed to close, or not in time, and of the first write behind
    /// that failed since the last flush. Before them, the loss of writes behind since the last flush,
    /// of kind [`StoreErrorKind::Lost`](crate::StoreErrorKind::Lost).
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_messages"))]
    pub errors: Vec<StoreError>,
}

/// Each error as one line, with its causes.
#[cfg(feature = "serde")]
fn as_messages<S: serde::Serializer>(
    errors: &[StoreError],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(errors.iter().map(|error| format!("{error:#}")))
}

impl CloseReport {
    /// Whether everything was finished.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unfinished_compiles == 0 && self.unfinished_writes == 0 && self.errors.is_empty()
    }
}

impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            unfinished_compiles: compiles,
            unfinished_writes: writes,
            kept_intents: intents,
            errors,
        } = self;
        f.write_str(match self.is_clean() {
            true => "closed: nothing is left to write",
            false => "closed with work left",
        })?;
        if *compiles > 0 {
            write!(f, "; compiles under way: {compiles}")?;
        }
        if *writes > 0 {
            write!(f, "; writes not done: {writes}")?;
        }
        if *intents > 0 {
            write!(f, "; writes left to the next process: {intents}")?;
        }
        for error in errors {
            write!(f, "; {error:#}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreErrorKind, StoreOperation};

    #[test]
    fn a_close_that_left_something_says_what_in_one_line() {
        let report = CloseReport {
            unfinished_compiles: 1,
            unfinished_writes: 2,
            kept_intents: 3,
            errors: vec![StoreError::new(
                StoreErrorKind::TimedOut,
                "a tier".to_owned(),
                StoreOperation::Close,
            )],
        };
        let error = report.errors[0].to_string();
        let expected = format!(
            "closed with work left; compiles under way: 1; writes not done: 2; \
             writes left to the next process: 3; {error}"
        );
        assert_eq!(report.to_string(), expected);
    }
}
