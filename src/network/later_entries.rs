//! Entries of a later release that lookups have found. They are good entries of other processes, and
//! no put replaces them for a while.

use moka::sync::Cache;
use std::time::Duration;

use crate::artifact::FrameError;
use crate::key::PipelineFingerprint;
use crate::store::{Fetched, StoreError};

/// The most keys that are remembered.
const CAPACITY: u64 = 4096;

/// Longer than a compile takes: it ends with a put of the key that was looked up.
const KEPT: Duration = Duration::from_secs(60 * 60);

#[derive(Debug)]
pub(super) struct LaterEntries(Cache<PipelineFingerprint, ()>);

impl Default for LaterEntries {
    fn default() -> Self {
        let keys = Cache::builder().max_capacity(CAPACITY).time_to_live(KEPT);
        Self(keys.build())
    }
}

impl LaterEntries {
    /// Remembers the key, or forgets it, as the entry is of a later release or is not.
    pub(super) fn learn(&self, key: &PipelineFingerprint, fetched: &Result<Fetched, StoreError>) {
        match fetched {
            Err(_) => {}
            Ok(Fetched::Corrupt(FrameError::UnknownFormat)) => self.0.insert(*key, ()),
            Ok(_) => self.forget(key),
        }
    }

    pub(super) fn contains(&self, key: &PipelineFingerprint) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn forget(&self, key: &PipelineFingerprint) {
        self.0.invalidate(key);
    }
}
