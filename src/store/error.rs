//! How a tier fails.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::artifact::FrameError;

/// What kind of failure it is, and so what helps against it.
///
/// See [`StoreError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The medium failed to read or write.
    Io,
    /// There is no space left on the medium.
    StorageFull,
    /// The process lacks permission, or the server rejects the credentials.
    PermissionDenied,
    /// The tier cannot be reached.
    Unreachable,
    /// No response came in time.
    TimedOut,
    /// The tier is overloaded or out of service, and says so.
    Unavailable,
    /// The circuit breaker of the tier's reads, or of its writes, is open: most recent calls failed,
    /// or the server asked for a pause, so this call was not sent. The breaker is probed, and closes
    /// when the tier works again.
    BreakerOpen,
    /// The tier takes no writes.
    ReadOnly,
    /// The artifact is larger than the tier takes.
    TooLarge,
    /// The artifact's metadata does not fit the stored form.
    InvalidArtifact,
    /// The name of the entry belongs to a symbolic link, a folder or a device. It is not touched.
    UnsafeEntry,
    /// The key has an entry that this tier's settings refuse and that another reader may still use. It is
    /// not replaced.
    Foreign,
    /// The response of the tier is not valid in its protocol.
    Protocol,
    /// The tier was closed.
    Closed,
    /// Writes that were accepted are lost, because their runtime was shut down. Compile or put
    /// again.
    Lost,
    /// The call was made outside of a tokio runtime, which the tier needs.
    NoRuntime,
    /// The tier panicked, which is a bug in it.
    Panicked,
    /// Anything else.
    Other,
}

impl StoreErrorKind {
    /// Why an artifact that makes no frame is not stored.
    pub(crate) const fn of_a_rejected_put(reason: FrameError) -> Self {
        match reason {
            FrameError::TooLarge => Self::TooLarge,
            _ => Self::InvalidArtifact,
        }
    }

    /// Whether the same call may well succeed a little later.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::TimedOut | Self::Unavailable | Self::BreakerOpen
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
            Self::BreakerOpen => "circuit breaker open",
            Self::ReadOnly => "read-only",
            Self::TooLarge => "artifact too large",
            Self::InvalidArtifact => "artifact cannot be stored",
            Self::UnsafeEntry => "entry is not a regular file",
            Self::Foreign => "the entry of another reader is kept",
            Self::Protocol => "invalid response",
            Self::Closed => "closed",
            Self::Lost => "accepted writes were lost",
            Self::NoRuntime => "not called on a tokio runtime",
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
///
/// See [`StoreError`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreOperation {
    /// [`PipelineCacheStore::get`](super::PipelineCacheStore::get) or [`PipelineCacheStore::fetch`](super::PipelineCacheStore::fetch).
    Get,
    /// [`PipelineCacheStore::fetch_many`](super::PipelineCacheStore::fetch_many), where many keys are one
    /// call. The error of a key says `Get` where its lookup was a call of its own.
    GetMany,
    /// [`PipelineCacheStore::put`](super::PipelineCacheStore::put).
    Put,
    /// [`PipelineCacheStore::contains`](super::PipelineCacheStore::contains).
    Contains,
    /// [`PipelineCacheStore::remove`](super::PipelineCacheStore::remove).
    Remove,
    /// [`PipelineCacheStore::flush`](super::PipelineCacheStore::flush).
    Flush,
    /// [`PipelineCacheStore::close`](super::PipelineCacheStore::close).
    Close,
    /// [`CompileLeases::compile_lease`](super::CompileLeases::compile_lease).
    CompileLease,
    /// A call of [`WriteIntents`](super::WriteIntents).
    WriteIntent,
    /// [`DiskCache::trim`](crate::DiskCache::trim).
    Trim,
    /// [`DiskCache::entries`](crate::DiskCache::entries), or the keys of an `ObjectStoreCache`.
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
            Self::GetMany => "get many",
            Self::Put => "put",
            Self::Contains => "contains",
            Self::Remove => "remove",
            Self::Flush => "flush",
            Self::Close => "close",
            Self::CompileLease => "compile lease",
            Self::WriteIntent => "write intent",
            Self::Trim => "trim",
            Self::List => "list",
            Self::Verify => "verify",
            Self::Clear => "clear",
        })
    }
}

/// The failure of a tier: what was asked, of which tier, and why it failed.
///
/// Cheap to clone, so that every caller that waited for one lookup gets the same error.
///
/// `Display` leaves the cause to [`source`](Error::source), so that printers of whole chains do not
/// print it twice. To print one line with all causes, use `{:#}`.
///
/// ```
/// use pipeline_cache::{StoreError, StoreErrorKind, StoreOperation};
///
/// let error = StoreError::new(StoreErrorKind::TimedOut, "remote(cache.example.com)", StoreOperation::Get);
/// assert_eq!(error.to_string(), "remote(cache.example.com): get: timed out");
/// assert_eq!((error.kind(), error.operation()), (StoreErrorKind::TimedOut, StoreOperation::Get));
/// assert!(error.is_transient());
///
/// let error = error.with_source("no answer within 10 s");
/// assert_eq!(
///     format!("{error:#}"),
///     "remote(cache.example.com): get: timed out: no answer within 10 s"
/// );
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
    /// One line: tier, operation and kind. The alternate form, `{:#}`, adds the causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.tier, self.operation, self.kind)?;
        if f.alternate() {
            let mut cause = self.source();
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
