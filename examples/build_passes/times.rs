//! Where the time of a program went.

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// From source to artifact, by kind of work. What is waited for counts for that work too.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Times {
    /// The hash of the source, and a look into the table of known spellings.
    pub(crate) hash: Duration,
    pub(crate) parse: Duration,
    /// The canonical form and its hash.
    pub(crate) key: Duration,
    /// The tiers: those of artifacts and those of known spellings.
    pub(crate) lookup: Duration,
    /// Validation and the artifact.
    pub(crate) compile: Duration,
}

/// The same for a whole pass, in milliseconds.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct TimesMs {
    pub(crate) hash: f64,
    pub(crate) parse: f64,
    pub(crate) key: f64,
    pub(crate) lookup: f64,
    pub(crate) compile: f64,
}

impl AddAssign for Times {
    fn add_assign(&mut self, other: Self) {
        let Self {
            hash,
            parse,
            key,
            lookup,
            compile,
        } = other;
        self.hash += hash;
        self.parse += parse;
        self.key += key;
        self.lookup += lookup;
        self.compile += compile;
    }
}

impl Times {
    pub(crate) fn sum(&self) -> Duration {
        self.hash + self.parse + self.key + self.lookup + self.compile
    }

    pub(crate) fn to_ms(self) -> TimesMs {
        TimesMs {
            hash: milliseconds(self.hash),
            parse: milliseconds(self.parse),
            key: milliseconds(self.key),
            lookup: milliseconds(self.lookup),
            compile: milliseconds(self.compile),
        }
    }
}

/// To the nanosecond, and not what binary fractions make of it.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}
