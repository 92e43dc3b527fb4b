//! Trim: the folder brought back within its bounds, the least recently used entries first.
//!
//! An entry's time of use is its file's modification time, which a hit renews when it is an hour
//! old: far cheaper than keeping an index, and shared by all processes on the folder. A trim lists
//! the folder in steps, remembers the oldest [`MAX_CANDIDATES`] entries and no more, and removes them in
//! steps; where that is not enough, it lists again. So it never holds up the others, can be dropped
//! at any time, and takes the same memory for a million entries as for a hundred thousand.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::bounds::Bounds;
use super::evict::{Counted, MAX_CANDIDATES, Sweep};
use super::survey::{Listing, Named, Seen, see};
use super::usage::Total;
use crate::disk::error::Failures;
use crate::disk::{DiskCache, Inner};
use crate::store::{StoreError, StoreOperation};

/// What a trim did.
///
/// ```
/// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::new(folder.path()).await?;
/// for number in 0..5 {
///     let key = PipelineFingerprint::from_bytes([number; 32]);
///     cache.put(&key, Artifact::new("code")).await?;
/// }
/// let bounded = DiskCache::builder()
///     .root(folder.path())
///     .max_entries(2)
///     .open()
///     .await?;
/// let report = bounded.trim().await?;
/// assert_eq!((report.scanned, report.removed), (5, 3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskCacheTrimReport {
    /// Entries that were found.
    pub scanned: u64,
    /// Bytes of their files.
    pub scanned_bytes: u64,
    /// Entries that were removed.
    pub removed: u64,
    /// Bytes of their files.
    pub removed_bytes: u64,
    /// When the least recently used of the entries that stay was used, to within an hour.
    pub oldest_kept: Option<SystemTime>,
    /// How long it took.
    pub elapsed: Duration,
}

impl DiskCache {
    /// Removes the least recently used entries until the folder is within the builder's
    /// [`max_bytes`](super::DiskCacheBuilder::max_bytes),
    /// [`max_entries`](super::DiskCacheBuilder::max_entries) and
    /// [`max_age`](super::DiskCacheBuilder::max_age), and all corrupt entries that were set aside.
    ///
    /// Looks at every name in the folder, once for each 65,536 entries that have to go, with at
    /// most 8 MiB of memory. Others may go on, and trim, too: what they store or use meanwhile
    /// stays. What is no entry is left alone.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed; when entries cannot be looked at or removed, after the
    /// others have been, the first of them and how many more; of kind [`StoreErrorKind::Closed`](crate::StoreErrorKind::Closed) when the cache is closed meanwhile.
    ///
    /// # Cancel safety
    ///
    /// A dropped trim has removed some of what it was to remove.
    pub async fn trim(&self) -> Result<DiskCacheTrimReport, StoreError> {
        let inner = &self.inner;
        let _token = inner.tasks.token();
        inner.check_open(StoreOperation::Trim)?;
        // Where another process trims, two do: what either removes, both take for gone.
        let _lock = inner.lock_trim().await;
        let (report, failures) = inner.trim(inner.bounds).await?;
        match failures.into_first() {
            None => Ok(report),
            Some((key, fault)) => Err(inner.failed(StoreOperation::Trim, Some(&key), fault)),
        }
    }
}

/// What a listing found.
#[derive(Debug, Default)]
pub(in crate::disk) struct Survey {
    total: Total,
    /// The least recently used, at most [`MAX_CANDIDATES`] of them.
    pub(in crate::disk) oldest: BinaryHeap<Seen>,
    /// What could not be looked at.
    failures: Failures,
}

impl Survey {
    fn count(&mut self, seen: Seen) {
        self.total.entries += 1;
        self.total.bytes = self.total.bytes.saturating_add(seen.bytes);
        if self.oldest.len() < MAX_CANDIDATES {
            self.oldest.push(seen);
        } else if let Some(mut newest) = self.oldest.peek_mut().filter(|newest| seen < **newest) {
            *newest = seen;
        }
    }
}

impl Inner {
    /// What it did, and what it failed to; an error where the folder cannot be listed.
    pub(in crate::disk) async fn trim(
        self: &Arc<Self>,
        bounds: Bounds,
    ) -> Result<(DiskCacheTrimReport, Failures), StoreError> {
        let start = Instant::now();
        let mut found = None;
        let mut sweep = Sweep::default();
        loop {
            let survey = self.survey().await?;
            let total = survey.total;
            let found = *found.get_or_insert(total);
            let was_full = survey.oldest.len() == MAX_CANDIDATES;
            let removed_before = sweep.removed;
            sweep.left = total;
            // Those of an earlier round fail again.
            sweep.failures = survey.failures;
            sweep.candidates = self
                .run_aside(move |_| survey.oldest.into_sorted_vec().into())
                .await;
            let in_this_trim = Counted::InThisTrim;
            while self.evict_step(bounds, &mut sweep, in_this_trim).await {
                self.check_open(StoreOperation::Trim)?;
            }
            let again = was_full && sweep.candidates.is_empty() && sweep.removed > removed_before;
            if again {
                continue;
            }
            let report = DiskCacheTrimReport {
                scanned: found.entries,
                scanned_bytes: found.bytes,
                removed: sweep.removed,
                removed_bytes: sweep.removed_bytes,
                oldest_kept: sweep.candidates.front().map(|seen| seen.used),
                elapsed: start.elapsed(),
            };
            tracing::debug!(tier = %self, ?report, "trimmed");
            if self.bounds.is_any() {
                self.candidates.keep(sweep.candidates);
            }
            return Ok((report, sweep.failures));
        }
    }

    /// Lists the folder, and removes what was set aside in it.
    pub(in crate::disk) async fn survey(self: &Arc<Self>) -> Result<Survey, StoreError> {
        let operation = StoreOperation::Trim;
        let counts = self.bounds.is_any();
        let opened = self.run_aside(move |inner| {
            let (before, reported) = match counts {
                true => inner.usage.report(&inner.folder),
                false => (None, false),
            };
            // What could not be reported is about to be counted, and must not be added to that.
            let before = before.filter(|_| reported);
            if before.is_none() {
                inner.usage.forget_unreported();
            }
            let stored_before = inner.usage.stored();
            Listing::open(&inner.folder).map(|listing| (before, stored_before, listing))
        });
        let failed = |fault| self.failed(operation, None, fault);
        let (before, stored_before, mut listing) = opened.await.map_err(failed)?;
        let mut survey = Survey::default();
        loop {
            self.check_open(operation)?;
            let step = self.run_aside(move |inner| {
                let more = listing.step(&inner.folder, |key, named, file| {
                    let looked = match (named, see(key, file)) {
                        (Named::Aside, Ok(Some(_))) => inner.folder.remove_aside(&key),
                        (_, looked) => looked.map(|seen| {
                            // Nothing where it is gone meanwhile, or what no cache made.
                            seen.into_iter().for_each(|seen| survey.count(seen));
                        }),
                    };
                    if let Err(fault) = looked {
                        survey.failures.note(&key, fault);
                    }
                });
                more.map(|more| (more, listing, survey))
            });
            let more;
            (more, listing, survey) = step.await.map_err(failed)?;
            if !more {
                break;
            }
        }
        if counts {
            let total = survey.total;
            self.run_aside(move |inner| {
                let (usage, folder) = (&inner.usage, &inner.folder);
                usage.correct(folder, before, stored_before, total);
            })
            .await;
        }
        Ok(survey)
    }
}

impl DiskCacheTrimReport {
    pub(in crate::disk) fn kept(&self) -> Total {
        Total {
            entries: self.scanned.saturating_sub(self.removed),
            bytes: self.scanned_bytes.saturating_sub(self.removed_bytes),
            ..Total::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PipelineFingerprint;

    #[test]
    fn a_survey_remembers_the_oldest() {
        let mut survey = Survey::default();
        let total = MAX_CANDIDATES as u64 + 1000;
        for number in (0..total).map(|number| number * 7919 % total) {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            survey.count(Seen {
                used: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
                key: PipelineFingerprint::from_bytes(key),
                bytes: 1,
            });
        }
        assert_eq!((survey.total.entries, survey.total.bytes), (total, total));
        let oldest = survey.oldest.into_sorted_vec();
        assert_eq!(oldest.len(), MAX_CANDIDATES);
        for (number, seen) in oldest.iter().enumerate() {
            let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            assert_eq!(seen.used, expected);
        }
    }
}
