//! Reports of evictions.

use std::collections::VecDeque;
use std::time::Duration;

/// How many reports are kept; older ones are dropped. The counters in the metrics lose nothing.
pub(crate) const KEPT_REPORTS: usize = 256;

/// Artifacts that one put evicted from an [`InMemoryPipelineCache`](super::InMemoryPipelineCache).
///
/// See [`eviction_reports`](super::InMemoryPipelineCache::eviction_reports) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct InMemoryEvictionReport {
    /// How many artifacts were evicted.
    pub entries: u64,
    /// Their size in bytes: payloads and texts of metadata.
    pub bytes: u64,
    /// The time since the oldest of them was put.
    pub max_age: Duration,
    /// Which budget was exceeded.
    pub reason: InMemoryEvictionReason,
}

/// Why artifacts were evicted from memory.
///
/// See [`eviction_reports`](super::InMemoryPipelineCache::eviction_reports) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum InMemoryEvictionReason {
    /// There were more artifacts than the budget of entries.
    EntryLimit,
    /// There were more bytes than the budget of bytes.
    ByteLimit,
    /// Both budgets were passed by one put.
    EntryAndByteLimit,
    /// A put larger than the whole budget of bytes was rejected, and what its key had before was
    /// removed.
    RejectedPut,
}

/// Adds up what one put evicts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    entries: u64,
    bytes: u64,
    max_age: Duration,
    by_entries: bool,
    by_bytes: bool,
}

/// The budget that an eviction kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Entries,
    Bytes,
}

impl Tally {
    pub(super) fn add(&mut self, limit: Limit, bytes: u64, age: Duration) {
        self.entries += 1;
        self.bytes += bytes;
        self.max_age = self.max_age.max(age);
        match limit {
            Limit::Entries => self.by_entries = true,
            Limit::Bytes => self.by_bytes = true,
        }
    }

    /// The report of a put, if it evicted anything.
    pub(super) fn into_report(self) -> Option<InMemoryEvictionReport> {
        let reason = match (self.by_entries, self.by_bytes) {
            (false, false) => return None,
            (true, false) => InMemoryEvictionReason::EntryLimit,
            (false, true) => InMemoryEvictionReason::ByteLimit,
            (true, true) => InMemoryEvictionReason::EntryAndByteLimit,
        };
        Some(InMemoryEvictionReport {
            entries: self.entries,
            bytes: self.bytes,
            max_age: self.max_age,
            reason,
        })
    }
}

/// The latest reports, oldest first.
#[derive(Debug, Default)]
pub(super) struct Reports(VecDeque<InMemoryEvictionReport>);

impl Reports {
    pub(super) fn push(&mut self, report: InMemoryEvictionReport) {
        if self.0.len() == KEPT_REPORTS {
            self.0.pop_front();
        }
        self.0.push_back(report);
    }

    pub(super) fn to_vec(&self) -> Vec<InMemoryEvictionReport> {
        self.0.iter().copied().collect()
    }
}
