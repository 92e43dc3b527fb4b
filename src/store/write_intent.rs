//! Intents of writes: which artifacts a network tier has not taken yet, kept over restarts.

use async_trait::async_trait;
use std::any::Any;
use std::fmt;

use super::StoreError;
use crate::key::PipelineFingerprint;

/// A local tier that keeps intents: it remembers over restarts which of its artifacts another tier is
/// still to be given.
///
/// An intent holds a key and the name of a tier, and no artifact: that is read from this tier when the
/// other one is offered it. The number of the intents for each tier is bounded. Removing an artifact
/// from this tier forgets its intents.
///
/// A [`LayeredPipelineCache`](crate::LayeredPipelineCache) adds one for each write to a network tier
/// that has not succeeded within half a second, and removes it when that tier has the artifact. What
/// earlier processes left is offered in the background.
///
/// ```
/// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore as _, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::new(folder.path()).await?;
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// cache.put(&key, Artifact::new("code")).await?;
/// let server = "remote(https://cache.example.com)";
/// if let Some(intents) = cache.write_intents() {
///     intents.add(server, &[key]).await?;
///
///     // Later, or in another process, if no other one does it:
///     if let Some(_claim) = intents.claim(server).await? {
///         let due = intents.list(server).await?.keys;
///         assert_eq!(due, [key]);
///         // Offer each to the server, and forget what it took.
///         intents.remove(server, &due).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait WriteIntents: Send + Sync {
    /// Keeps that `tier` is to be given the artifacts of these keys. Those whose artifact this tier does
    /// not have are passed over, and named in the answer. An intent that is kept already keeps its age.
    ///
    /// `tier` is the name that a tier prints, which holds no secret and is the same in all processes.
    ///
    /// # Errors
    ///
    /// When not all could be kept. Some may have been. Adding them again is harmless.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has kept some of them or all.
    async fn add(
        &self,
        tier: &str,
        keys: &[PipelineFingerprint],
    ) -> Result<IntentsAdded, StoreError>;

    /// Forgets intents. Those that are not kept are passed over.
    ///
    /// # Errors
    ///
    /// When not all could be forgotten. They are offered again, which is harmless.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has forgotten some of them or all.
    async fn remove(&self, tier: &str, keys: &[PipelineFingerprint]) -> Result<(), StoreError>;

    /// The intents for `tier`, oldest first, and not more than the bound. Forgets those that are too old.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes no intent that is not too old.
    async fn list(&self, tier: &str) -> Result<IntentList, StoreError>;

    /// The right to offer the intents for `tier`, until it is dropped: one process at a time of those
    /// that share this tier. `None` where another has it. Two who offer at once are harmless, and
    /// wasteful.
    ///
    /// # Errors
    ///
    /// When the tier cannot say.
    ///
    /// # Cancel safety
    ///
    /// A dropped call holds nothing.
    async fn claim(&self, tier: &str) -> Result<Option<IntentClaim>, StoreError>;
}

/// What became of [`WriteIntents::add`].
///
/// See [`WriteIntents`] for an example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntentsAdded {
    /// The keys whose artifacts this tier does not have.
    pub missing: Vec<PipelineFingerprint>,
    /// How many of the oldest intents were dropped to keep the bound.
    pub dropped: u64,
}

/// What [`WriteIntents::list`] found.
///
/// See [`WriteIntents`] for an example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntentList {
    /// The keys, oldest intent first.
    pub keys: Vec<PipelineFingerprint>,
    /// How many were dropped because they were too old.
    pub dropped: u64,
}

/// The right to offer intents, as [`WriteIntents::claim`] gives it. It ends when it is dropped.
///
/// ```
/// use pipeline_cache::store::IntentClaim;
/// use std::sync::Arc;
///
/// let table = Arc::new(tokio::sync::Mutex::new(()));
/// let claim = IntentClaim::new(table.clone().try_lock_owned().unwrap());
/// assert!(table.try_lock().is_err());
/// drop(claim);
/// assert!(table.try_lock().is_ok());
/// ```
#[must_use = "the claim ends when it is dropped"]
pub struct IntentClaim {
    _hold: Box<dyn Any + Send + Sync>,
}

impl IntentClaim {
    /// A claim that lasts as long as `hold` is not dropped.
    pub fn new(hold: impl Any + Send + Sync) -> Self {
        Self {
            _hold: Box::new(hold),
        }
    }
}

impl fmt::Debug for IntentClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntentClaim")
    }
}
