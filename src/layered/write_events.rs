//! What has caused the background writes, how they ended, and the reports that count them.
//!
//! Several writes of one cause make one [`Event`], which counts itself in its report when the last
//! of them has ended.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::report::{LayeredPromotionReport, WriteBehindReport};
use crate::store::StoreError;
use crate::sync::lock::lock;

#[derive(Debug, Default)]
pub(super) struct Reports {
    pub(super) promotions: LayeredPromotionReport,
    pub(super) behind: WriteBehindReport,
    /// The first write behind that was lost since it was last taken.
    behind_error: Option<StoreError>,
    /// Puts whose writes behind were lost since that was last taken.
    behind_lost: u64,
}

/// What has caused a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A hit in the tier of this index.
    Hit(usize),
    Put,
    /// A put whose write was kept.
    Offer,
    /// An intent that an earlier process left.
    Intent,
}

impl Cause {
    /// Whether a write is kept that fails. A promotion is not: the artifact is in another tier. An
    /// intent is kept already.
    pub(super) fn is_kept(self) -> bool {
        matches!(self, Self::Put | Self::Offer)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit(tier) => write!(f, "promotion from tier {tier}"),
            Self::Put => f.write_str("write behind"),
            Self::Offer => f.write_str("write behind, offered again"),
            Self::Intent => f.write_str("write of an earlier process"),
        }
    }
}

/// How a write to one tier ended.
#[derive(Debug)]
pub(super) enum WriteEnd {
    /// So many payload bytes were written.
    Written(u64),
    /// The tier had the artifact.
    WasThere,
    /// It will be offered again.
    Kept,
    Failed(StoreError),
    GivenUp,
    /// Nobody gave it up: it went down with its runtime.
    Lost,
}

/// The writes that one hit or one put has caused. Its drop counts it in its report.
#[derive(Debug)]
pub(super) struct Event {
    reports: Arc<Mutex<Reports>>,
    pub(super) cause: Cause,
    total: Mutex<Total>,
}

/// What became of the writes of an event.
#[derive(Debug, Default)]
struct Total {
    tiers_written: u64,
    bytes_written: u64,
    any_dropped: bool,
    any_lost: bool,
    any_failed: bool,
    /// Of the failures that are not kept.
    first_error: Option<StoreError>,
}

impl Total {
    fn add(&mut self, end: WriteEnd) {
        match end {
            WriteEnd::Written(bytes) => {
                self.tiers_written += 1;
                self.bytes_written += bytes;
            }
            WriteEnd::WasThere => {}
            WriteEnd::Kept => self.any_failed = true,
            WriteEnd::Failed(error) => {
                self.any_failed = true;
                self.first_error.get_or_insert(error);
            }
            WriteEnd::GivenUp => self.any_dropped = true,
            WriteEnd::Lost => (self.any_dropped, self.any_lost) = (true, true),
        }
    }
}

impl Event {
    pub(super) fn begin(reports: &Arc<Mutex<Reports>>, cause: Cause) -> Arc<Self> {
        {
            let mut reports = lock(reports);
            match cause {
                Cause::Offer | Cause::Intent => {}
                Cause::Put => {
                    reports.behind.accepted += 1;
                    reports.behind.pending += 1;
                }
                Cause::Hit(_) => {
                    reports.promotions.events += 1;
                    reports.promotions.pending += 1;
                }
            }
        }
        Arc::new(Self {
            reports: Arc::clone(reports),
            cause,
            total: Mutex::default(),
        })
    }

    /// One of its writes has ended.
    pub(super) fn add(&self, end: WriteEnd) {
        lock(&self.total).add(end);
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let total = std::mem::take(&mut *lock(&self.total));
        let mut reports = lock(&self.reports);
        match self.cause {
            Cause::Offer => reports.end_offer(total),
            // Counted by whoever offers it.
            Cause::Intent => {}
            Cause::Put => reports.end_write_behind(total),
            Cause::Hit(source) => reports.promotions.end(source, &total),
        }
    }
}

impl LayeredPromotionReport {
    fn end(&mut self, source: usize, total: &Total) {
        self.pending -= 1;
        *match total {
            Total {
                any_failed: true, ..
            } => &mut self.failed,
            Total {
                any_dropped: true, ..
            } => &mut self.dropped,
            _ => &mut self.promoted,
        } += 1;
        self.promoted_layers += total.tiers_written;
        self.promoted_bytes += total.bytes_written;
        if total.tiers_written > 0 {
            self.last_source_layer = Some(source);
            self.last_promoted_layers = total.tiers_written;
            self.last_promoted_bytes = total.bytes_written;
        }
    }
}

impl Reports {
    fn end_write_behind(&mut self, total: Total) {
        let report = &mut self.behind;
        report.pending -= 1;
        *match &total {
            Total {
                any_failed: true, ..
            } => &mut report.failed,
            Total {
                any_dropped: true, ..
            } => &mut report.dropped,
            _ => &mut report.written,
        } += 1;
        if total.any_lost {
            report.lost += 1;
            self.behind_lost += 1;
        }
        self.remember(total.first_error);
    }

    fn end_offer(&mut self, total: Total) {
        self.behind.recovered += total.tiers_written;
        if let Some(error) = total.first_error {
            self.abandon(1, error);
        }
    }

    /// So many artifacts that were kept are lost to their tiers.
    pub(super) fn abandon(&mut self, artifacts: u64, error: StoreError) {
        self.behind.abandoned += artifacts;
        self.remember(Some(error));
    }

    /// A flush returns it, unless there was another before it.
    pub(super) fn remember(&mut self, given_up: Option<StoreError>) {
        self.behind_error = self.behind_error.take().or(given_up);
    }

    /// The first write behind that was given up since the last call.
    pub(super) fn take_behind_error(&mut self) -> Option<StoreError> {
        self.behind_error.take()
    }

    /// How many puts have lost writes behind since the last call.
    pub(super) fn take_behind_lost(&mut self) -> u64 {
        std::mem::take(&mut self.behind_lost)
    }
}
