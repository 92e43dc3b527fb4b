//! The bounds of a folder, and when it is time to trim it.

use std::time::{Duration, SystemTime};

use super::usage::{Stored, Total};

/// The longest time between two counts of a bounded folder, as long as there are puts.
const COUNT_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The bounds that a trim brings a folder back within. `None` is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::disk) struct Bounds {
    pub(in crate::disk) max_bytes: Option<u64>,
    pub(in crate::disk) max_entries: Option<u64>,
    pub(in crate::disk) max_age: Option<Duration>,
}

impl Bounds {
    pub(in crate::disk) fn is_any(&self) -> bool {
        self.max_bytes.is_some() || self.max_entries.is_some() || self.max_age.is_some()
    }

    /// Whether a folder that holds so much is within the bounds on that.
    pub(in crate::disk) fn hold(&self, total: &Total) -> bool {
        self.max_bytes.is_none_or(|max| total.bytes <= max)
            && self.max_entries.is_none_or(|max| total.entries <= max)
    }

    /// Before when an entry must have been used to be too old.
    pub(in crate::disk) fn expired(&self) -> Option<SystemTime> {
        self.max_age
            .and_then(|age| SystemTime::now().checked_sub(age))
    }

    /// Whether it is time for a trim in the background.
    pub(in crate::disk) fn is_due(&self, total: &Total) -> bool {
        !self.less(16).hold(total) || total.age() > self.count_interval()
    }

    pub(in crate::disk) fn count_interval(&self) -> Duration {
        self.max_age
            .map_or(COUNT_INTERVAL, |age| (age / 8).min(COUNT_INTERVAL))
            // A count of seconds says no more.
            .max(Duration::from_secs(2))
    }

    /// Where a trim in the background stops.
    pub(in crate::disk) fn low_water(&self) -> Self {
        self.less(8)
    }

    /// Whether so much is one part in so many of a bound, or more.
    pub(in crate::disk) fn is_part(&self, stored: Stored, part: u64) -> bool {
        let bytes = self.max_bytes.is_some_and(|max| stored.bytes >= max / part);
        let entries = self
            .max_entries
            .is_some_and(|max| stored.entries >= max / part);
        bytes || entries
    }

    /// Bounds that are lower by one part in so many, and never nothing of something.
    pub(in crate::disk) fn less(&self, part: u64) -> Self {
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
    fn marks_leave_something_of_a_small_bound() {
        for max in 0..100 {
            let bounds = Bounds {
                max_entries: Some(max),
                ..Bounds::default()
            };
            let (high, low) = (bounds.less(16), bounds.low_water());
            assert!(low.max_entries <= high.max_entries && high.max_entries <= Some(max));
            assert_eq!(low.max_entries == Some(0), max == 0);
        }
    }
}
