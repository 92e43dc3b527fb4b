//! A remote that is down for a while.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Down {
    /// It does not answer: a partition, a frozen machine
    Hangs,
    /// It refuses connections: a process that ended
    Refuses,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outage {
    /// When it begins.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) down: Down,
}

impl Outage {
    pub(crate) fn includes(&self, now: Duration) -> bool {
        (self.at..self.ends()).contains(&now)
    }

    pub(crate) fn ends(&self) -> Duration {
        self.at + self.lasts
    }
}
