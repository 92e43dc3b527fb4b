//! The leave to make what no tier has.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::key::PipelineFingerprint;

/// The leave to make the artifact of a key, as
/// [`PipelineCacheStore::compile_lease`](crate::PipelineCacheStore::compile_lease) gives it. It ends when the last
/// clone is dropped.
///
/// ```
/// use pipeline_cache::CompileLease;
/// use std::sync::Arc;
///
/// let leads = Arc::new(tokio::sync::Mutex::new(()));
/// let lease = CompileLease::new(leads.clone().try_lock_owned().unwrap());
/// assert!(leads.try_lock().is_err());
/// drop(lead);
/// assert!(leads.try_lock().is_ok());
/// ```
#[derive(Clone)]
#[must_use = "the leave ends when it is dropped"]
pub struct CompileLease {
    _hold: Arc<dyn Any + Send + Sync>,
}

impl CompileLease {
    /// A leave that lasts as long as `hold` is not dropped.
    pub fn new(hold: impl Any + Send + Sync) -> Self {
        Self {
            _hold: Arc::new(hold),
        }
    }
}

impl fmt::Debug for CompileLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompileLease")
    }
}

/// The leads of a tier that are held by somebody.
///
/// Whoever has asked for one may give up the write that it was for before that is over: a deadline
/// passed, a tier above has what it needs. So whatever writes the key holds its lead as well.
#[derive(Clone, Default)]
pub(crate) struct CompileLeases(Arc<Mutex<Held>>);

type Held = HashMap<PipelineFingerprint, Weak<dyn Any + Send + Sync>>;

impl CompileLeases {
    /// A leave for a key that lasts as long as `hold` is not dropped.
    pub(crate) fn give(
        &self,
        key: PipelineFingerprint,
        hold: impl Any + Send + Sync,
    ) -> CompileLease {
        let lease = CompileLease::new(Given {
            _name: Name {
                leases: self.clone(),
                key,
            },
            _hold: hold,
        });
        self.lock().insert(key, Arc::downgrade(&lease._hold));
        lease
    }

    /// The lead of a key, if somebody holds it.
    pub(crate) fn of(&self, key: &PipelineFingerprint) -> Option<CompileLease> {
        let hold = self.lock().get(key)?.upgrade()?;
        Some(CompileLease { _hold: hold })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CompileLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CompileLeases")
            .field(&self.lock().len())
            .finish()
    }
}

struct Given<T> {
    // Dropped first: whoever is given the key next has a name of its own.
    _name: Name,
    _hold: T,
}

struct Name {
    leases: CompileLeases,
    key: PipelineFingerprint,
}

impl Drop for Name {
    fn drop(&mut self) {
        let mut held = self.leases.lock();
        if held
            .get(&self.key)
            .is_some_and(|own| own.strong_count() == 0)
        {
            held.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_is_found_as_long_as_anybody_holds_it() {
        let key = PipelineFingerprint::from_bytes([1; 32]);
        let (leads, hold) = (CompileLeases::default(), Arc::new(()));
        let first = leads.give(key, Arc::clone(&hold));
        let second = leads.of(&key).unwrap();
        drop(first);
        assert_eq!(Arc::strong_count(&hold), 2);
        drop((second, leads.of(&key).unwrap()));
        assert_eq!(Arc::strong_count(&hold), 1);
        assert!(leads.of(&key).is_none() && leads.lock().is_empty());
    }

    #[test]
    fn one_that_ends_leaves_the_next_alone() {
        let key = PipelineFingerprint::from_bytes([1; 32]);
        let leads = CompileLeases::default();
        let first = leads.give(key, ());
        let second = leads.give(key, ());
        drop(first);
        assert!(leads.of(&key).is_some());
        drop(second);
        assert!(leads.lock().is_empty());
    }
}
