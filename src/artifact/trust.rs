//! Which artifacts a tier trusts: shared secrets and levels of trust.

use std::fmt;

#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
use super::frame::FrameFormat;

/// A secret that readers and writers of a tier share, so that others cannot add entries to it.
///
/// The frame's tag is keyed with it. The secret is never printed.
///
/// ```
/// use pipeline_cache::SharedSecret;
///
/// let secret = SharedSecret::new("correct horse battery staple");
/// assert_eq!(format!("{secret:?}"), "SharedSecret(..)");
/// ```
#[derive(Clone)]
pub struct SharedSecret {
    key: [u8; 32],
    /// Tells the frames of one secret from those of another. It reveals no more of the secret than
    /// a tag does.
    id: [u8; 8],
}

impl SharedSecret {
    /// Derives a key from a secret of any length. Use at least 16 random bytes.
    #[must_use]
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        const CONTEXT: &str = "pipeline-cache 2026-11 frame authentication v1";
        const ID_CONTEXT: &str = "pipeline-cache 2026-11 frame secret id v1";
        let key = blake3::derive_key(CONTEXT, secret.as_ref());
        let [a, b, c, d, e, f, g, h, ..] = blake3::derive_key(ID_CONTEXT, &key);
        Self {
            key,
            id: [a, b, c, d, e, f, g, h],
        }
    }

    pub(super) const fn id(&self) -> [u8; 8] {
        self.id
    }

    /// A hasher whose digests only those who have the secret can make.
    pub(super) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.key)
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// The secrets of a tier: entries are written with one, and read with any.
///
/// To rotate a secret, first let all readers accept the new one, then let the writers use
/// it, and drop the old one once its entries are no longer wanted.
///
/// ```
/// use pipeline_cache::{SharedSecret, TrustedKeys};
///
/// let keys = TrustedKeys::new(SharedSecret::new("this year's 16 random bytes"))
///     .also_accepting(SharedSecret::new("last year's 16 random bytes"));
/// assert_eq!(format!("{keys:?}"), "TrustedKeys(1 writes, 2 accepted)");
/// ```
#[derive(Clone)]
pub struct TrustedKeys {
    /// Entries are written with the first.
    accepted: Vec<SharedSecret>,
}

impl TrustedKeys {
    /// Writes with this secret, and accepts it.
    #[must_use]
    pub fn new(writing: SharedSecret) -> Self {
        Self {
            accepted: vec![writing],
        }
    }

    /// Accepts what was written with this secret, too.
    #[must_use]
    pub fn also_accepting(mut self, secret: SharedSecret) -> Self {
        self.accepted.push(secret);
        self
    }

    pub(super) fn writing(&self) -> Option<&SharedSecret> {
        self.accepted.first()
    }

    /// The accepted secrets of this id.
    pub(super) fn of(&self, id: &[u8; 8]) -> impl Iterator<Item = &SharedSecret> {
        self.accepted.iter().filter(move |secret| secret.id == *id)
    }
}

impl From<SharedSecret> for TrustedKeys {
    fn from(secret: SharedSecret) -> Self {
        Self::new(secret)
    }
}

impl fmt::Debug for TrustedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKeys(1 writes, {} accepted)", self.accepted.len())
    }
}

#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
/// Which entries a network tier accepts. Needs the feature `remote-cache`, `object-store` or `redis`.
///
/// ```
/// use pipeline_cache::{SharedSecret, Trust};
///
/// let team = Trust::Authenticated(SharedSecret::new("at least 16 random bytes").into());
/// let unpromoted = Trust::ServerUnpromoted;
/// # let _ = (team, unpromoted);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Trust {
    /// The server, and so every writer of the server.
    #[default]
    Server,
    /// As [`Server`](Self::Server), but hits are not promoted, so that no copy outlives the tier.
    ServerUnpromoted,
    /// Only writers that have one of the secrets. An entry without a valid tag is not served, and
    /// counted as [`unauthenticated`](crate::PipelineCacheMetrics::unauthenticated).
    Authenticated(TrustedKeys),
    /// Only artifacts that one of these signers has signed. An entry of anybody else is not served, and
    /// counted as [`unauthenticated`](crate::PipelineCacheMetrics::unauthenticated). The tier takes only
    /// artifacts that are signed so: see
    /// [`signing_key`](crate::LayeredPipelineCacheBuilder::signing_key).
    #[cfg(feature = "signatures")]
    Signed(super::TrustedSigners),
}

#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
impl Trust {
    /// How frames are written and which are accepted.
    pub(crate) fn into_format(self, max_payload: u64) -> FrameFormat {
        match self {
            Self::Server | Self::ServerUnpromoted => FrameFormat::new(None, max_payload),
            Self::Authenticated(keys) => FrameFormat::new(Some(keys), max_payload),
            #[cfg(feature = "signatures")]
            Self::Signed(signers) => FrameFormat {
                signers: Some(signers),
                ..FrameFormat::new(None, max_payload)
            },
        }
    }

    pub(crate) const fn allows_promotion(&self) -> bool {
        !matches!(self, Self::ServerUnpromoted)
    }
}
