//! Compile leases: one process at a time compiles a key.

use async_trait::async_trait;
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::StoreError;
use crate::key::PipelineFingerprint;

/// A tier that grants compile leases: one process at a time compiles a key. A folder grants them to
/// the processes on it, a server to a fleet.
///
/// ```
/// use pipeline_cache::{DiskCache, PipelineCacheStore as _, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::builder().root(folder.path()).compile_locks().open().await?;
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// if let Some(leases) = cache.compile_leases() {
///     let lease = leases.compile_lease(&key).await?;
///     // Look the key up once more, compile, put; meanwhile no other process on the folder does.
///     drop(lease);
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait CompileLeases: Send + Sync {
    /// Acquires the compile lease for `key`. While it is held, no other process that shares the
    /// tier is given one for the same key. `None` where the tier grants no more, as after a close:
    /// the caller compiles without.
    ///
    /// Call this after all tiers missed. When it returns, look the key up again: the artifact may have
    /// been stored meanwhile. A tier that knows that it was returns [`CompileLease::stored`]. Hold the
    /// lease until the artifact is stored. Bound the wait: a holder may hang.
    ///
    /// # Errors
    ///
    /// When the tier cannot grant the lease. The caller may compile without.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError>;
}

/// The right to compile a key, as [`CompileLeases::compile_lease`] grants it. It ends when the last
/// clone is dropped.
///
/// ```
/// use pipeline_cache::CompileLease;
/// use std::sync::Arc;
///
/// let table = Arc::new(tokio::sync::Mutex::new(()));
/// let lease = CompileLease::new(table.clone().try_lock_owned().unwrap());
/// assert!(table.try_lock().is_err());
/// drop(lease);
/// assert!(table.try_lock().is_ok());
/// ```
#[derive(Clone)]
#[must_use = "the lease ends when it is dropped"]
pub struct CompileLease {
    /// `None`: nothing is held, because the artifact is there.
    hold: Option<Arc<dyn Any + Send + Sync>>,
}

impl CompileLease {
    /// A lease that lasts as long as `hold` is not dropped.
    pub fn new(hold: impl Any + Send + Sync) -> Self {
        Self {
            hold: Some(Arc::new(hold)),
        }
    }

    /// In place of a lease: another process stored the artifact, so there is nothing to compile.
    /// Holds nothing. All who waited look the key up at once, instead of one after the other.
    ///
    /// ```
    /// use pipeline_cache::CompileLease;
    ///
    /// assert!(CompileLease::stored().is_stored());
    /// assert!(!CompileLease::new(()).is_stored());
    /// ```
    pub const fn stored() -> Self {
        Self { hold: None }
    }

    /// Whether it is no lease: the artifact is there. Look the key up. If it is gone again, compile
    /// without a lease.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        self.hold.is_none()
    }
}

impl fmt::Debug for CompileLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompileLease")
    }
}

/// The leases of a tier that are held now.
///
/// A holder may stop waiting for the write that the lease is for: a deadline passed, or a tier above
/// has the artifact. So every write of the key holds its lease as well.
#[derive(Clone, Default)]
pub(crate) struct HeldLeases(Arc<Mutex<Held>>);

type Held = HashMap<PipelineFingerprint, Weak<dyn Any + Send + Sync>>;

impl HeldLeases {
    /// A lease for `key` that lasts as long as `hold` is not dropped.
    pub(crate) fn give(
        &self,
        key: PipelineFingerprint,
        hold: impl Any + Send + Sync,
    ) -> CompileLease {
        let lease = CompileLease::new(Granted {
            _entry: TableEntry {
                leases: self.clone(),
                key,
            },
            _hold: hold,
        });
        if let Some(hold) = &lease.hold {
            self.lock().insert(key, Arc::downgrade(hold));
        }
        lease
    }

    /// The lease of `key`, if it is held.
    pub(crate) fn of(&self, key: &PipelineFingerprint) -> Option<CompileLease> {
        let hold = self.lock().get(key)?.upgrade()?;
        Some(CompileLease { hold: Some(hold) })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for HeldLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldLeases")
            .field(&self.lock().len())
            .finish()
    }
}

struct Granted<T> {
    // Dropped first: the next holder of the key has an entry of its own.
    _entry: TableEntry,
    _hold: T,
}

struct TableEntry {
    leases: HeldLeases,
    key: PipelineFingerprint,
}

impl Drop for TableEntry {
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
    fn a_lease_is_found_as_long_as_it_is_held() {
        let key = PipelineFingerprint::from_bytes([1; 32]);
        let (leases, hold) = (HeldLeases::default(), Arc::new(()));
        let first = leases.give(key, Arc::clone(&hold));
        let second = leases.of(&key).unwrap();
        drop(first);
        assert_eq!(Arc::strong_count(&hold), 2);
        drop((second, leases.of(&key).unwrap()));
        assert_eq!(Arc::strong_count(&hold), 1);
        assert!(leases.of(&key).is_none() && leases.lock().is_empty());
    }

    #[test]
    fn a_lease_that_ends_does_not_end_the_next() {
        let key = PipelineFingerprint::from_bytes([1; 32]);
        let leases = HeldLeases::default();
        let first = leases.give(key, ());
        let second = leases.give(key, ());
        drop(first);
        assert!(leases.of(&key).is_some());
        drop(second);
        assert!(leases.lock().is_empty());
    }
}
