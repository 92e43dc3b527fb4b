//! What a tier is: its contract, how it fails, what it counts, and the compile lease.

pub(crate) mod answer;
pub(crate) mod compile_lease;
mod error;
pub(crate) mod many;
pub(crate) mod metrics;
pub(crate) mod runtime;
pub(crate) mod urgency;
mod write_intent;

pub use answer::answer_begins;
pub use compile_lease::{CompileLease, CompileLeases};
pub use error::{StoreError, StoreErrorKind, StoreOperation};
pub use metrics::{PipelineCacheMetricError, PipelineCacheMetrics};
pub use write_intent::{IntentClaim, IntentList, IntentsAdded, WriteIntents};

use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::artifact::{Artifact, FrameError};
use crate::key::PipelineFingerprint;

/// Where tiers that have folders keep source aliases: see [`PipelineCacheStore::alias_stores`].
pub(crate) const ALIAS_FOLDER: &str = "aliases";

/// The bound on the bytes of a store of aliases, beside artifacts with this bound: a sixteenth, and at
/// least 64 KiB.
pub(crate) fn alias_bytes(artifacts: u64) -> u64 {
    (artifacts / 16).max(64 << 10)
}

/// A tier: anything that keeps artifacts under fingerprints.
///
/// Every tier of this crate implements it, and so may yours. The contract:
///
/// - A key names one artifact for ever. Two puts of one key are interchangeable and either may
///   stay, so no reader ever locks out a writer.
/// - A get returns the whole artifact that was put under that key, or nothing. Never a part,
///   another key's, or an altered one.
/// - No method blocks its thread: no system call that can wait, and no hashing of more than
///   64 KiB, on a runtime worker.
/// - Dropping a future at any await leaves no partial entry and no stuck waiter.
/// - A failure is a [`StoreError`], never a panic and never passed off as a miss. The tier logs it
///   once, as a warning, where it begins. A [`LayeredPipelineCache`](crate::LayeredPipelineCache)
///   repeats it at debug level only.
/// - Every queue and buffer is bounded.
/// - A tier that needs a tokio runtime fails with [`StoreErrorKind::NoRuntime`] outside of one. It may
///   panic on one whose timer or I/O driver is not enabled.
///
/// `Display` names the tier in traces and reports, as `disk(/var/cache/x)` does.
///
/// ```
/// use async_trait::async_trait;
/// use pipeline_cache::{
///     Artifact, Fetched, InMemoryPipelineCache, PipelineCacheMetrics, PipelineCacheStore,
///     PipelineFingerprint, StoreError,
/// };
/// use std::fmt;
///
/// /// Keeps nothing: compiles are measured with it.
/// #[derive(Debug)]
/// struct NoCache;
///
/// impl fmt::Display for NoCache {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         f.write_str("none")
///     }
/// }
///
/// #[async_trait]
/// impl PipelineCacheStore for NoCache {
///     async fn fetch(&self, _: &PipelineFingerprint) -> Result<Fetched, StoreError> {
///         Ok(Fetched::Miss)
///     }
///     async fn put(&self, _: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
///         Ok(())
///     }
///     async fn contains(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
///         Ok(false)
///     }
///     async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
///         Ok(false)
///     }
///     fn metrics(&self) -> PipelineCacheMetrics {
///         PipelineCacheMetrics::default()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), StoreError> {
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// let stores: [Box<dyn PipelineCacheStore>; 2] =
///     [Box::new(NoCache), Box::new(InMemoryPipelineCache::new())];
/// for store in stores {
///     store.put(&key, Artifact::new("code")).await?;
///     println!("{store}: {:?}", store.get(&key).await?);
/// }
/// # Ok(())
/// # }
/// ```
///
/// A store that wraps another passes every method on, also those with a default: else it hides what the
/// other one can do. clippy finds what is forgotten.
///
/// ```
/// # use async_trait::async_trait;
/// # use pipeline_cache::store::WriteIntents;
/// # use pipeline_cache::{
/// #     Artifact, CompileLeases, Fetched, InMemoryPipelineCache, Locality, PipelineCacheMetrics,
/// #     PipelineCacheStore, PipelineFingerprint, StoreError,
/// # };
/// # use std::{fmt, sync::Arc, time::Duration};
/// /// Says each artifact that is stored.
/// #[derive(Debug)]
/// struct Announced<S>(S);
///
/// impl<S: PipelineCacheStore> fmt::Display for Announced<S> {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         fmt::Display::fmt(&self.0, f)
///     }
/// }
///
/// #[deny(clippy::missing_trait_methods)]
/// #[async_trait]
/// impl<S: PipelineCacheStore> PipelineCacheStore for Announced<S> {
///     async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
///         let len = artifact.len();
///         self.0.put(key, artifact).await?;
///         println!("{self}: {key} has {len} bytes");
///         Ok(())
///     }
///     fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
///         self.0.alias_stores()
///     }
///     fn is_trusted_source(&self) -> bool {
///         self.0.is_trusted_source()
///     }
///     fn accepts_maker(&self, artifact: &Artifact) -> bool {
///         self.0.accepts_maker(artifact)
///     }
///     fn forget_miss(&self, key: &PipelineFingerprint) {
///         self.0.forget_miss(key);
///     }
///     // And so on.
/// #     fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
/// #         self.0.peek(key)
/// #     }
/// #     async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
/// #         self.0.fetch(key).await
/// #     }
/// #     async fn fetch_many(&self, keys: &[PipelineFingerprint]) -> Vec<Result<Fetched, StoreError>> {
/// #         self.0.fetch_many(keys).await
/// #     }
/// #     async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
/// #         self.0.get(key).await
/// #     }
/// #     async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
/// #         self.0.contains(key).await
/// #     }
/// #     async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
/// #         self.0.remove(key).await
/// #     }
/// #     async fn flush(&self) -> Result<(), StoreError> {
/// #         self.0.flush().await
/// #     }
/// #     async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
/// #         self.0.close(deadline).await
/// #     }
/// #     fn compile_leases(&self) -> Option<&dyn CompileLeases> {
/// #         self.0.compile_leases()
/// #     }
/// #     fn write_intents(&self) -> Option<&dyn WriteIntents> {
/// #         self.0.write_intents()
/// #     }
/// #     fn metrics(&self) -> PipelineCacheMetrics {
/// #         self.0.metrics()
/// #     }
/// #     fn locality(&self) -> Locality {
/// #         self.0.locality()
/// #     }
/// #     fn is_writable(&self) -> bool {
/// #         self.0.is_writable()
/// #     }
/// #     fn max_artifact_bytes(&self) -> u64 {
/// #         self.0.max_artifact_bytes()
/// #     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), StoreError> {
/// # let store = Announced(InMemoryPipelineCache::new());
/// # let key = PipelineFingerprint::from_bytes([1; 32]);
/// # store.put(&key, Artifact::new("code")).await?;
/// # assert!(store.peek(&key).is_some());
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait PipelineCacheStore: fmt::Debug + fmt::Display + Send + Sync {
    /// Returns the artifact if that needs no wait, no allocation and no long lock. `None` says nothing
    /// about [`get`](Self::get).
    ///
    /// A hit counts as a lookup; `None` counts as nothing.
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        let _ = key;
        None
    }

    /// What the tier has under this key: the whole, verified artifact, or why there is none.
    ///
    /// # Errors
    ///
    /// When the tier cannot say whether it has the artifact.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing in the tier.
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError>;

    /// What the tier has under each of these keys, in their order: as many answers as keys. One key's
    /// failure is no other key's.
    ///
    /// The default makes a [`fetch`](Self::fetch) for each key, at most 16 at a time. A tier for which
    /// each lookup is a round trip may ask for many keys at once, as
    /// [`RemoteCache`](crate::RemoteCache#many-keys-in-one-request) does. A key that is given twice may
    /// be looked up, and counted, once. All answers are in memory together: the caller bounds the number
    /// of keys.
    ///
    /// # Errors
    ///
    /// Each answer as that of `fetch`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing in the tier. The answers so far are lost.
    ///
    /// ```
    /// use pipeline_cache::{
    ///     Artifact, Fetched, InMemoryPipelineCache, PipelineCacheStore, PipelineFingerprint,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), pipeline_cache::StoreError> {
    /// let store = InMemoryPipelineCache::new();
    /// let keys = [1, 2].map(|n| PipelineFingerprint::from_bytes([n; 32]));
    /// store.put(&keys[1], Artifact::new("code")).await?;
    ///
    /// let answers = store.fetch_many(&keys).await;
    /// assert!(matches!(answers[0], Ok(Fetched::Miss)));
    /// assert!(matches!(answers[1], Ok(Fetched::Hit(_))));
    /// # Ok(())
    /// # }
    /// ```
    async fn fetch_many(&self, keys: &[PipelineFingerprint]) -> Vec<Result<Fetched, StoreError>> {
        many::in_order(keys.iter().map(|key| self.fetch(key))).await
    }

    /// The artifact under this key, whole and verified, or `None`.
    ///
    /// The short form of [`fetch`](Self::fetch): a corrupt entry is `None` too, counted and traced.
    ///
    /// # Errors
    ///
    /// As `fetch`.
    ///
    /// # Cancel safety
    ///
    /// As `fetch`.
    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        self.fetch(key).await.map(Fetched::into_artifact)
    }

    /// Stores an artifact. On return a [`get`](Self::get) may find it; it is durable, in a
    /// durable tier, after the next [`flush`](Self::flush).
    ///
    /// A tier with a budget may evict the artifact at once.
    ///
    /// # Errors
    ///
    /// When nothing was stored: see [`StoreErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// A dropped put has stored the whole artifact or nothing.
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError>;

    /// Whether a [`get`](Self::get) would likely find the artifact. Cheaper than `get`, and
    /// therefore not verified.
    ///
    /// # Errors
    ///
    /// When the tier cannot say.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing in the tier.
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError>;

    /// Removes the artifact. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// When the artifact may still be there.
    ///
    /// # Cancel safety
    ///
    /// A dropped remove has removed the artifact or not.
    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError>;

    /// Waits until all writes accepted before the call are done, and durable where the tier is
    /// durable.
    ///
    /// # Errors
    ///
    /// The first write that could not be made durable. It stays pending, for the next flush.
    ///
    /// # Cancel safety
    ///
    /// A dropped flush may be called again; nothing is lost.
    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Flushes, stops background work and refuses further writes. At the deadline, whatever is
    /// left is given up and reported. Closing twice is not an error.
    ///
    /// The default flushes and refuses nothing: a tier that takes writes should do more.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush), or of kind [`StoreErrorKind::TimedOut`] when the deadline passed.
    ///
    /// # Cancel safety
    ///
    /// A dropped close may be called again.
    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        match tokio::time::timeout(deadline, self.flush()).await {
            Ok(flushed) => flushed,
            Err(_) => Err(StoreError::new(
                StoreErrorKind::TimedOut,
                self.to_string(),
                StoreOperation::Close,
            )),
        }
    }

    /// The compile leases of this tier, if it offers any. The default offers none.
    ///
    /// While one process holds the lease of a key, no other that shares the tier compiles it.
    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        None
    }

    /// The intents of writes that this tier keeps for others, if it keeps any. The default keeps none.
    ///
    /// What a network tier could not take during an outage is offered to it again also by later
    /// processes, if a local tier keeps intents.
    fn write_intents(&self) -> Option<&dyn WriteIntents> {
        None
    }

    /// Another process has stored an artifact under this key: a miss that the tier remembers does not
    /// hold any more. The default does nothing: the tier remembers none.
    fn forget_miss(&self, key: &PipelineFingerprint) {
        let _ = key;
    }

    /// Where this tier keeps [source aliases](crate::SourceAliases): stores beside its artifacts, in
    /// a folder or under a prefix of their own, the fastest first. What they hold and do is not
    /// counted in [`metrics`](Self::metrics). A close closes them, a flush does not flush them.
    ///
    /// The default offers none: aliases that are kept in such a tier stand among its artifacts, and
    /// are counted with them.
    fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
        Vec::new()
    }

    /// The tier's counters, as they stand now.
    fn metrics(&self) -> PipelineCacheMetrics;

    /// Whether asking this tier crosses a network.
    ///
    /// A network tier gives the local ones a head start in a layered lookup.
    fn locality(&self) -> Locality {
        Locality::Local
    }

    /// Whether the tier takes writes at all. Nothing is promoted to one that does not.
    fn is_writable(&self) -> bool {
        true
    }

    /// Whether hits from this tier may be promoted to other tiers.
    fn is_trusted_source(&self) -> bool {
        true
    }

    /// The largest payload the tier takes, in bytes, where the metadata is small. Nothing larger is
    /// promoted to it.
    fn max_artifact_bytes(&self) -> u64 {
        u64::MAX
    }

    /// Whether this tier serves artifacts of whoever [signed](Artifact::signature) this one, by its
    /// settings at the time of the call. Never waits, and verifies nothing.
    ///
    /// A layered store promotes no artifact to a tier that would refuse it. It asks once more before it
    /// serves what this tier gave it for an earlier lookup: the signer may have been revoked since. The
    /// default accepts everybody. A store that wraps another passes the question on.
    fn accepts_maker(&self, artifact: &Artifact) -> bool {
        let _ = artifact;
        true
    }
}

/// A shared tier is that tier.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: PipelineCacheStore + ?Sized> PipelineCacheStore for Arc<S> {
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        S::peek(self, key)
    }

    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        S::fetch(self, key).await
    }

    async fn fetch_many(&self, keys: &[PipelineFingerprint]) -> Vec<Result<Fetched, StoreError>> {
        S::fetch_many(self, keys).await
    }

    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        S::get(self, key).await
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        S::put(self, key, artifact).await
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        S::contains(self, key).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        S::remove(self, key).await
    }

    async fn flush(&self) -> Result<(), StoreError> {
        S::flush(self).await
    }

    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        S::close(self, deadline).await
    }

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        S::compile_leases(self)
    }

    fn write_intents(&self) -> Option<&dyn WriteIntents> {
        S::write_intents(self)
    }

    fn forget_miss(&self, key: &PipelineFingerprint) {
        S::forget_miss(self, key);
    }

    fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
        S::alias_stores(self)
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        S::metrics(self)
    }

    fn locality(&self) -> Locality {
        S::locality(self)
    }

    fn is_writable(&self) -> bool {
        S::is_writable(self)
    }

    fn is_trusted_source(&self) -> bool {
        S::is_trusted_source(self)
    }

    fn max_artifact_bytes(&self) -> u64 {
        S::max_artifact_bytes(self)
    }

    fn accepts_maker(&self, artifact: &Artifact) -> bool {
        S::accepts_maker(self, artifact)
    }
}

/// Whether a tier is on this machine.
///
/// ```
/// use pipeline_cache::{InMemoryPipelineCache, Locality, PipelineCacheStore as _};
///
/// assert_eq!(InMemoryPipelineCache::new().locality(), Locality::Local);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Locality {
    /// On this machine: memory, a disk.
    Local,
    /// Across a network, where an answer may take milliseconds or never come.
    Network,
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Network => "network",
        })
    }
}

/// What a tier had under a key.
///
/// See [`PipelineCacheStore`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fetched {
    /// The whole, verified artifact.
    Hit(Artifact),
    /// Nothing.
    Miss,
    /// An entry that is damaged. A tier that takes writes has set it aside, and the next put replaces it.
    Corrupt(FrameError),
    /// An entry that the settings of the tier refuse. It may be another reader's good entry: it is too
    /// large, signed with another secret, of another version, or its metadata is not as required. It is
    /// left where it is.
    Refused,
}

impl Fetched {
    /// The artifact, if it is a hit.
    #[must_use]
    pub fn into_artifact(self) -> Option<Artifact> {
        match self {
            Self::Hit(artifact) => Some(artifact),
            Self::Miss | Self::Corrupt(_) | Self::Refused => None,
        }
    }
}

impl From<Option<Artifact>> for Fetched {
    fn from(artifact: Option<Artifact>) -> Self {
        artifact.map_or(Self::Miss, Self::Hit)
    }
}
