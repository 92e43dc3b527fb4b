//! The contract of a tier, and how a tier fails.

use async_trait::async_trait;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Artifact, FrameError, Lead, PipelineCacheMetrics, PipelineFingerprint};

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
/// - A failure is a [`StoreError`], never a panic and never passed off as a miss.
/// - Every queue and buffer is bounded.
///
/// `Display` names the tier in traces and reports, as `disk(/var/cache/x)` does.
///
/// ```
/// use async_trait::async_trait;
/// use pipeline_cache::{
///     Artifact, InMemoryPipelineCache, PipelineCacheMetrics, PipelineCacheStore,
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
///     async fn get(&self, _: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
///         Ok(None)
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
#[async_trait]
pub trait PipelineCacheStore: fmt::Debug + fmt::Display + Send + Sync {
    /// The artifact, if the tier can tell at once: without waiting, locking for long, or
    /// allocating. `None` says nothing about [`get`](Self::get).
    ///
    /// A hit counts as a lookup; `None` counts as nothing.
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        let _ = key;
        None
    }

    /// The artifact under this key, whole and verified, or `None`.
    ///
    /// A corrupt entry is `None` too, counted and traced; [`fetch`](Self::fetch) tells it apart.
    ///
    /// # Errors
    ///
    /// When the tier cannot say whether it has the artifact.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing in the tier.
    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError>;

    /// Like [`get`](Self::get), and tells a corrupt entry from one that is not there.
    ///
    /// # Errors
    ///
    /// As `get`.
    ///
    /// # Cancel safety
    ///
    /// As `get`.
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.get(key).await.map(Fetched::from)
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

    /// Removes the artifact; whether there was one.
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

    /// Waits for the leave to make the artifact of this key, where the tier rules out that two who
    /// share it make the same at once: a folder, for the processes on it. `None` where it does not,
    /// which is the default.
    ///
    /// Asked when no tier has the artifact. It may have come while this waited, so the tiers are to
    /// be looked at once more; and the leave is to be held until it is stored. How long to wait is
    /// the caller's to bound: whoever has the leave may hold it for ever.
    ///
    /// # Errors
    ///
    /// When the tier cannot give the leave. The caller may do without.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place.
    async fn lead(&self, key: &PipelineFingerprint) -> Result<Option<Lead>, StoreError> {
        let _ = key;
        Ok(None)
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

    /// Whether what this tier serves may be promoted to others. Where it may not, it is served and
    /// no more.
    fn is_trusted_source(&self) -> bool {
        true
    }

    /// The largest payload the tier takes, in bytes, where the metadata is small. Nothing larger is
    /// promoted to it.
    fn max_artifact_bytes(&self) -> u64 {
        u64::MAX
    }
}

/// A shared tier is that tier.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: PipelineCacheStore + ?Sized> PipelineCacheStore for Arc<S> {
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        S::peek(self, key)
    }

    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        S::get(self, key).await
    }

    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        S::fetch(self, key).await
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

    async fn lead(&self, key: &PipelineFingerprint) -> Result<Option<Lead>, StoreError> {
        S::lead(self, key).await
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
}

/// Whether a tier is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Locality {
    /// On this machine: memory, a disk.
    Local,
    /// Across a network, where an answer may take milliseconds or never come.
    Network,
}

/// What a tier had under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fetched {
    /// The whole, verified artifact.
    Hit(Artifact),
    /// Nothing.
    Miss,
    /// Something that is not the artifact. It has been set aside; the next put replaces it.
    Corrupt(FrameError),
    /// A whole artifact that the tier was told not to serve, for what its metadata says.
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

/// What kind of failure it is, and so what helps against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The medium failed to read or write.
    Io,
    /// There is no space left on the medium.
    StorageFull,
    /// The tier may not be read or written with the rights or credentials there are.
    PermissionDenied,
    /// The tier cannot be reached.
    Unreachable,
    /// No answer came in time.
    TimedOut,
    /// The tier is overloaded or out of service, and says so.
    Unavailable,
    /// The tier was not asked, because most recent calls failed. It is asked again once it is found
    /// to be well.
    CircuitOpen,
    /// The tier takes no writes.
    ReadOnly,
    /// The artifact is larger than the tier takes.
    TooLarge,
    /// The artifact's metadata does not fit the stored form.
    InvalidArtifact,
    /// Under the key's name stands something that no cache made: a symbolic link, a folder, a
    /// device. It is left untouched.
    UnsafeEntry,
    /// The tier answered something that makes no sense in its protocol.
    Protocol,
    /// The tier was closed.
    Closed,
    /// The tier panicked, which is a bug in it.
    Panicked,
    /// Anything else.
    Other,
}

impl StoreErrorKind {
    /// Whether the same call may well succeed a little later.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::TimedOut | Self::Unavailable | Self::CircuitOpen
        )
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "I/O error",
            Self::StorageFull => "no space left",
            Self::PermissionDenied => "permission denied",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed out",
            Self::Unavailable => "unavailable",
            Self::CircuitOpen => "left alone",
            Self::ReadOnly => "read-only",
            Self::TooLarge => "artifact too large",
            Self::InvalidArtifact => "artifact cannot be stored",
            Self::UnsafeEntry => "entry is no regular file",
            Self::Protocol => "unexpected answer",
            Self::Closed => "closed",
            Self::Panicked => "panicked",
            Self::Other => "failed",
        })
    }
}

impl From<&std::io::Error> for StoreErrorKind {
    fn from(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::StorageFull,
            ErrorKind::PermissionDenied => Self::PermissionDenied,
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io,
        }
    }
}

/// What was asked of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreOperation {
    /// [`PipelineCacheStore::get`] or [`PipelineCacheStore::fetch`].
    Get,
    /// [`PipelineCacheStore::put`].
    Put,
    /// [`PipelineCacheStore::contains`].
    Contains,
    /// [`PipelineCacheStore::remove`].
    Remove,
    /// [`PipelineCacheStore::flush`].
    Flush,
    /// [`PipelineCacheStore::close`].
    Close,
    /// [`PipelineCacheStore::lead`].
    Lead,
    /// [`DiskCache::trim`](crate::DiskCache::trim).
    Trim,
    /// [`DiskCache::entries`](crate::DiskCache::entries).
    List,
    /// [`DiskCache::verify`](crate::DiskCache::verify).
    Verify,
    /// [`DiskCache::clear`](crate::DiskCache::clear).
    Clear,
}

impl fmt::Display for StoreOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Contains => "contains",
            Self::Remove => "remove",
            Self::Flush => "flush",
            Self::Close => "close",
            Self::Lead => "lead",
            Self::Trim => "trim",
            Self::List => "list",
            Self::Verify => "verify",
            Self::Clear => "clear",
        })
    }
}

/// The failure of a tier: what was asked, of which tier, and why it failed.
///
/// Cheap to clone, so that all who waited on one lookup are told the same.
///
/// ```
/// use pipeline_cache::{StoreError, StoreErrorKind, StoreOperation};
///
/// let error = StoreError::new(StoreErrorKind::TimedOut, "remote(cache.example.com)", StoreOperation::Get);
/// assert_eq!(error.to_string(), "remote(cache.example.com): get: timed out");
/// assert!(error.is_transient());
/// ```
#[derive(Debug, Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    tier: Cow<'static, str>,
    operation: StoreOperation,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// A failure of `tier`, as the tier's `Display` names it.
    #[must_use]
    pub fn new(
        kind: StoreErrorKind,
        tier: impl Into<Cow<'static, str>>,
        operation: StoreOperation,
    ) -> Self {
        Self {
            kind,
            tier: tier.into(),
            operation,
            source: None,
        }
    }

    /// Adds what caused it. Make sure that its text holds no secret.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// A failed system call.
    #[must_use]
    pub fn io(
        tier: impl Into<Cow<'static, str>>,
        operation: StoreOperation,
        error: std::io::Error,
    ) -> Self {
        Self::new(StoreErrorKind::from(&error), tier, operation).with_source(error)
    }

    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may well succeed a little later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        self.kind.is_transient()
    }

    /// The tier that failed.
    #[must_use]
    pub fn tier(&self) -> &str {
        &self.tier
    }

    /// What was asked of it.
    #[must_use]
    pub const fn operation(&self) -> StoreOperation {
        self.operation
    }
}

impl fmt::Display for StoreError {
    /// One line: tier, operation, kind, and the cause where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.tier, self.operation, self.kind)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
