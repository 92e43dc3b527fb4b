//! The bounds of a folder, and when a trim is due.

use std::time::{Duration, SystemTime};

use super::usage::{Stored, Total};
use crate::store::alias_bytes;

/// The longest time between two scans of a bounded folder, as long as there are puts.
const SCAN_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The bounds that a trim brings a folder back within. `None` is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::disk) struct Bounds {
    pub(in crate::disk) max_bytes: Option<u64>,
    pub(in crate::disk) max_entries: Option<u64>,
    pub(in crate::disk) max_age: Option<Duration>,
}

impl Bounds {
    /// The bounds of the folder of source aliases, beside a folder with these.
    pub(in crate::disk) fn of_aliases(&self) -> Self {
        Self {
            max_bytes: self.max_bytes.map(alias_bytes),
            ..*self
        }
    }

    pub(in crate::disk) fn is_any(&self) -> bool {
        self.max_bytes.is_some() || self.max_entries.is_some() || self.max_age.is_some()
    }

    /// Whether a total is within the bounds on bytes and entries.
    pub(in crate::disk) fn admit(&self, total: &Total) -> bool {
        self.max_bytes.is_none_or(|max| total.bytes <= max)
            && self.max_entries.is_none_or(|max| total.entries <= max)
    }

    /// The largest file that a put may add: no put evicts more than about half of the folder.
    pub(in crate::disk) fn max_entry_bytes(&self) -> u64 {
        self.max_bytes.map_or(u64::MAX, |max| max / 2)
    }

    /// By how much a total exceeds the bounds, in thousandths of a bound.
    pub(in crate::disk) fn excess(&self, total: &Total) -> u64 {
        let excess = |held: u64, max: Option<u64>| {
            let max = max.unwrap_or(u64::MAX);
            let over = u128::from(held.saturating_sub(max)) * 1000;
            u64::try_from(over / u128::from(max.max(1))).unwrap_or(u64::MAX)
        };
        let bytes = excess(total.bytes, self.max_bytes);
        bytes.max(excess(total.entries, self.max_entries))
    }

    /// An entry that was last used before this time is too old.
    pub(in crate::disk) fn expired(&self) -> Option<SystemTime> {
        self.max_age
            .and_then(|age| SystemTime::now().checked_sub(age))
    }

    /// Whether a trim in the background is due: the total is above the high-water mark, or the last
    /// scan, of this age, is too old.
    pub(in crate::disk) fn is_due(&self, total: &Total, age: Duration) -> bool {
        !self.high_water().admit(total) || age > self.scan_interval()
    }

    pub(in crate::disk) fn scan_interval(&self) -> Duration {
        self.max_age
            .map_or(SCAN_INTERVAL, |age| (age / 8).min(SCAN_INTERVAL))
            // The time of a scan is known to the second.
            .max(Duration::from_secs(2))
    }

    /// The high-water mark, above which a trim in the background is due.
    pub(in crate::disk) fn high_water(&self) -> Self {
        self.less(16)
    }

    /// The low-water mark, at which a trim in the background stops.
    pub(in crate::disk) fn low_water(&self) -> Self {
        self.less(8)
    }

    /// Whether `stored` is at least one `part`-th of a bound.
    pub(in crate::disk) fn is_part(&self, stored: Stored, part: u64) -> bool {
        let bytes = self.max_bytes.is_some_and(|max| stored.bytes >= max / part);
        let entries = self
            .max_entries
            .is_some_and(|max| stored.entries >= max / part);
        bytes || entries
    }

    /// Bounds that are lower by one `part`-th. A bound that is not 0 does not become 0.
    fn less(&self, part: u64) -> Self {
        Self {
            max_bytes: self.max_bytes.map(|max| max - max / part),
            max_entries: self.max_entries.map(|max| max - max / part),
            max_age: self.max_age,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excess_is_that_of_the_bound_that_is_exceeded_most() {
        let bounds = Bounds {
            max_bytes: Some(2000),
            max_entries: Some(10),
            ..Bounds::default()
        };
        let excess = |bytes, entries| {
            bounds.excess(&Total {
                bytes,
                entries,
                ..Total::default()
            })
        };
        assert_eq!(excess(2000, 10), 0);
        assert_eq!(excess(2002, 10), 1);
        assert_eq!(excess(2002, 12), 200);
        assert!(excess(u64::MAX, 0) > 1000);
        assert_eq!(Bounds::default().excess(&Total::default()), 0);
    }

    #[test]
    fn the_marks_of_a_small_bound_are_not_zero() {
        for max in 0..100 {
            let bounds = Bounds {
                max_entries: Some(max),
                ..Bounds::default()
            };
            let (high, low) = (bounds.high_water(), bounds.low_water());
            assert!(low.max_entries <= high.max_entries && high.max_entries <= Some(max));
            assert_eq!(low.max_entries == Some(0), max == 0);
        }
    }
}
