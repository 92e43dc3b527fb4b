//! Fetches an alias before its source is asked for: from a store across a network to one on this
//! machine.

use super::SourceAliases;
use super::known::{KeptAlias, Known};
use crate::key::PipelineFingerprint;
use crate::store::{Fetched, StoreError};

/// What came of it.
#[derive(Debug)]
pub(crate) enum PrefetchedAlias {
    /// So many payload bytes were fetched.
    Fetched(u64),
    AlreadyThere,
    Missing,
    /// A store has an entry that is no alias, or that may not be copied, or no store here takes it.
    Refused,
    /// A store has a damaged entry.
    Damaged,
}

impl SourceAliases {
    /// Copies an alias to the last store of this machine that takes it, or, where none does, to the
    /// table in memory.
    ///
    /// An alias is small: it is asked for like any other, whoever else asks for it meanwhile.
    pub(crate) async fn prefetch(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<PrefetchedAlias, StoreError> {
        let (local, network) = (&self.table.stores.local, &self.table.stores.network);
        let mut failed = None;
        for kept in local.iter().rev() {
            match kept.store.contains(key).await {
                Ok(true) => return Ok(PrefetchedAlias::AlreadyThere),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        if local.is_empty() && self.table.peek(key).is_some() {
            return Ok(PrefetchedAlias::AlreadyThere);
        }
        let mut answer = PrefetchedAlias::Missing;
        for kept in network {
            let stored = match kept.store.fetch(key).await {
                Ok(Fetched::Hit(stored)) => stored,
                Ok(Fetched::Miss) => continue,
                Ok(Fetched::Refused) => {
                    answer = PrefetchedAlias::Refused;
                    continue;
                }
                Ok(Fetched::Corrupt(_)) => {
                    answer = PrefetchedAlias::Damaged;
                    continue;
                }
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            let Ok(fingerprint) = stored.payload()[..].try_into() else {
                answer = PrefetchedAlias::Refused;
                continue;
            };
            if !kept.store.is_trusted_source() {
                answer = PrefetchedAlias::Refused;
                continue;
            }
            let fetched = PrefetchedAlias::Fetched(stored.len() as u64);
            let mut takers = local.iter().rev().filter(|kept| kept.store.is_writable());
            match takers.find(|kept| kept.store.accepts_maker(&stored)) {
                Some(last) => last.store.put(key, stored).await?,
                None => {
                    let fingerprint = PipelineFingerprint::from_bytes(fingerprint);
                    let alias = KeptAlias {
                        fingerprint,
                        stored,
                    };
                    let known = Known::kept(&kept.store, &alias);
                    self.table.known.insert(*key, known);
                }
            }
            return Ok(fetched);
        }
        match (answer, failed) {
            (PrefetchedAlias::Missing, Some(error)) => Err(error),
            (answer, _) => Ok(answer),
        }
    }
}
