//! Trim: brings the folder back within its bounds, in the [order](super::order) of eviction.
//!
//! An entry's time of use is the modification time of its file. A hit renews it when it is an hour
//! old. That costs far less than an index, and all processes on the folder share it. A trim scans the
//! folder in steps, remembers the first [`MAX_CANDIDATES`] entries in that order, and removes them in
//! steps; if that is not enough, it scans again. So it delays no other operation, can be dropped at
//! any time, and takes the same memory for a million entries as for a hundred thousand.

use std::collections::BinaryHeap;
use std::fs::DirEntry;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::bounds::Bounds;
use super::evict::{Counted, EvictionCandidates, Evictor, MAX_CANDIDATES, Sweep};
use super::order::{EvictionOrder, worth};
use super::survey::{Listing, Named, Seen, inspect};
use super::usage::{Total, Usage};
use crate::disk::error::{Failures, Fault};
use crate::disk::leftovers::sweep_beside_entries;
use crate::disk::report::DiskCacheTrimReport;
use crate::disk::shared::Shared;
use crate::store::{StoreError, StoreOperation};
use crate::sync::blocking;

/// What a scan found.
#[derive(Debug, Default)]
pub(in crate::disk) struct Survey {
    total: Total,
    /// The first in the order of eviction, at most [`MAX_CANDIDATES`] of them.
    pub(in crate::disk) first: BinaryHeap<Seen>,
    /// Entries that could not be inspected.
    failures: Failures,
    /// An entry of more bytes does not fit. `None` is no bound.
    max_entry_bytes: Option<u64>,
    order: EvictionOrder,
    /// An entry that was last used before goes first, whatever it saves.
    expired: Option<SystemTime>,
}

impl Survey {
    /// Looks at the next names. Returns whether there may be more.
    fn step(&mut self, shared: &Shared, listing: &mut Listing) -> Result<bool, Fault> {
        let directory = &shared.directory;
        let each = |key, named, file: &DirEntry| {
            let outcome = match (named, inspect(key, file)) {
                (Named::Aside, Ok(Some(_))) => directory.remove_aside(&key),
                // `None` where it is gone meanwhile, or no regular file.
                (_, Ok(Some(seen))) => {
                    let seen = seen.dated_now(file);
                    let worth = self.worth(shared, &seen);
                    self.count(Seen { worth, ..seen });
                    Ok(())
                }
                (_, seen) => seen.map(drop),
            };
            if let Err(fault) = outcome {
                self.failures.note(&key, fault);
            }
        };
        listing.step_over_all(directory, each, sweep_beside_entries)
    }

    /// What an entry saves, where that counts.
    fn worth(&self, shared: &Shared, seen: &Seen) -> u64 {
        match self.order {
            EvictionOrder::LeastRecentlyUsed => 0,
            EvictionOrder::LeastTimeSaved if self.expired.is_some_and(|time| seen.used < time) => 0,
            EvictionOrder::LeastTimeSaved => {
                let metadata = shared.directory.metadata(&seen.key).and_then(Result::ok);
                let compile_time = metadata.and_then(|metadata| metadata.compile_time());
                worth(compile_time, seen.bytes, seen.used, SystemTime::now())
            }
        }
    }

    fn count(&mut self, mut seen: Seen) {
        seen.fits = self.max_entry_bytes.is_none_or(|max| seen.bytes <= max);
        self.total.entries += 1;
        self.total.bytes = self.total.bytes.saturating_add(seen.bytes);
        if self.first.len() < MAX_CANDIDATES {
            self.first.push(seen);
        } else if let Some(mut last) = self.first.peek_mut().filter(|last| seen < **last) {
            *last = seen;
        }
    }
}

/// Scans a folder and evicts what exceeds its bounds.
#[derive(Debug)]
pub(in crate::disk) struct Trimmer {
    shared: Arc<Shared>,
    usage: Arc<Usage>,
    bounds: Bounds,
    order: EvictionOrder,
    evictor: Arc<Evictor>,
    candidates: EvictionCandidates,
}

impl Trimmer {
    pub(in crate::disk) fn new(
        shared: &Arc<Shared>,
        usage: &Arc<Usage>,
        bounds: Bounds,
        order: EvictionOrder,
        evictor: Evictor,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            usage: Arc::clone(usage),
            bounds,
            order,
            evictor: Arc::new(evictor),
            candidates: EvictionCandidates::default(),
        }
    }

    pub(in crate::disk) fn evictor(&self) -> &Arc<Evictor> {
        &self.evictor
    }

    /// Whether what one scan found and left serves the next trims. In the order of last use, what is put
    /// later goes later. In another it may go before.
    pub(in crate::disk) fn keeps_candidates(&self) -> bool {
        self.order == EvictionOrder::LeastRecentlyUsed
    }

    /// What the last trim found and left.
    pub(in crate::disk) fn candidates(&self) -> &EvictionCandidates {
        &self.candidates
    }

    /// Returns what it did, and what it could not remove. Fails where the folder cannot be listed.
    pub(in crate::disk) async fn trim(
        &self,
        bounds: Bounds,
    ) -> Result<(DiskCacheTrimReport, Failures), StoreError> {
        let start = Instant::now();
        let mut found = None;
        let mut sweep = Sweep::default();
        loop {
            let survey = self.survey().await?;
            let total = survey.total;
            let found = *found.get_or_insert(total);
            let was_full = survey.first.len() == MAX_CANDIDATES;
            let removed_before = sweep.removed;
            sweep.left = total;
            // Failures of an earlier round happen again.
            sweep.failures = survey.failures;
            sweep.candidates =
                blocking::blocking(move || survey.first.into_sorted_vec().into()).await;
            let in_this_trim = Counted::InThisTrim;
            while self.evictor.step(bounds, &mut sweep, in_this_trim).await {
                self.shared.check_open(StoreOperation::Trim)?;
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
                oldest_kept: sweep.candidates.iter().map(|seen| seen.used).min(),
                elapsed: start.elapsed(),
            };
            tracing::debug!(tier = %self.shared, ?report, "disk cache trimmed");
            if self.bounds.is_any() && self.keeps_candidates() {
                self.candidates.keep(sweep.candidates);
            }
            return Ok((report, sweep.failures));
        }
    }

    /// Scans the folder, and removes what was set aside in it. Each step is one closure on the
    /// blocking pool: a hop for each of a million names would take longer than the scan.
    pub(in crate::disk) async fn survey(&self) -> Result<Survey, StoreError> {
        let operation = StoreOperation::Trim;
        let failed = |fault| self.shared.failed(operation, None, fault);
        let is_bounded = self.bounds.is_any();
        let usage = Arc::clone(&self.usage);
        let opened = self.shared.run_in_background(move |shared| {
            let (before, reported) = match is_bounded {
                true => usage.report(&shared.directory),
                false => (None, false),
            };
            // The scan counts what could not be reported, so it must not be added again.
            let before = before.filter(|_| reported);
            if before.is_none() {
                usage.forget_unreported();
            }
            let stored_before = usage.stored();
            let listing = Listing::open(&shared.directory);
            listing.map(|listing| (before, stored_before, listing))
        });
        let (before, stored_before, mut listing) = opened.await.map_err(failed)?;
        let mut survey = Survey {
            // What a trim in the background cannot keep on its own.
            max_entry_bytes: self.bounds.low_water().max_bytes,
            order: self.order,
            expired: self.bounds.expired(),
            ..Survey::default()
        };
        loop {
            self.shared.check_open(operation)?;
            let step = self.shared.run_in_background(move |shared| {
                let more = survey.step(shared, &mut listing);
                more.map(|more| (more, listing, survey))
            });
            let more;
            (more, listing, survey) = step.await.map_err(failed)?;
            if !more {
                break;
            }
        }
        if is_bounded {
            let (usage, total) = (Arc::clone(&self.usage), survey.total);
            let correct = self.shared.run_in_background(move |shared| {
                usage.correct(&shared.directory, before, stored_before, total);
            });
            correct.await;
        }
        Ok(survey)
    }
}

impl DiskCacheTrimReport {
    /// What is left in the folder.
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
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_scan_remembers_the_least_recently_used() {
        let mut survey = Survey::default();
        let total = MAX_CANDIDATES as u64 + 1000;
        for number in (0..total).map(|number| number * 7919 % total) {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            survey.count(Seen {
                fits: true,
                worth: 0,
                used: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
                key: PipelineFingerprint::from_bytes(key),
                bytes: 1,
                in_future: false,
            });
        }
        assert_eq!((survey.total.entries, survey.total.bytes), (total, total));
        let oldest = survey.first.into_sorted_vec();
        assert_eq!(oldest.len(), MAX_CANDIDATES);
        for (number, seen) in oldest.iter().enumerate() {
            let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            assert_eq!(seen.used, expected);
        }
    }
}
