//! Which artifacts a tier trusts: shared secrets and levels of trust.

use std::fmt;

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
pub struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// Derives the key from a secret of any length. Its strength is that of the secret: take at
    /// least 16 random bytes.
    #[must_use]
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        const CONTEXT: &str = "pipeline-cache 2026-11 frame authentication v1";
        Self(blake3::derive_key(CONTEXT, secret.as_ref()))
    }

    /// A hasher whose digests only those who have the secret can make.
    pub(super) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0)
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// The secrets of a tier: one signs what is written, several may have signed what is read.
///
/// To rotate a secret, first let all readers accept the new one, then let the writers sign with
/// it, and drop the old one once its entries are no longer wanted.
///
/// ```
/// use pipeline_cache::{SharedSecret, TrustedKeys};
///
/// let keys = TrustedKeys::new(SharedSecret::new("this year's 16 random bytes"))
///     .also_accepting(SharedSecret::new("last year's 16 random bytes"));
/// assert_eq!(format!("{keys:?}"), "TrustedKeys(1 signs, 2 accepted)");
/// ```
#[derive(Clone)]
pub struct TrustedKeys {
    /// The first one signs.
    accepted: Vec<SharedSecret>,
}

impl TrustedKeys {
    /// Signs with this secret, and accepts it.
    #[must_use]
    pub fn new(signing: SharedSecret) -> Self {
        Self {
            accepted: vec![signing],
        }
    }

    /// Accepts what was signed with this secret, too.
    #[must_use]
    pub fn also_accepting(mut self, secret: SharedSecret) -> Self {
        self.accepted.push(secret);
        self
    }

    pub(super) fn signing(&self) -> Option<&SharedSecret> {
        self.accepted.first()
    }

    pub(super) fn accepted(&self) -> &[SharedSecret] {
        &self.accepted
    }
}

impl From<SharedSecret> for TrustedKeys {
    fn from(secret: SharedSecret) -> Self {
        Self::new(secret)
    }
}

impl fmt::Debug for TrustedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKeys(1 signs, {} accepted)", self.accepted.len())
    }
}

#[cfg(feature = "remote-cache")]
/// Whom a network tier trusts to store the right artifact under a key.
///
/// ```
/// use pipeline_cache::{SharedSecret, Trust};
///
/// let team = Trust::Authenticated(SharedSecret::new("at least 16 random bytes").into());
/// let strangers = Trust::ServerUnpromoted;
/// # let _ = (team, strangers);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Trust {
    /// The server, and so everybody who can write to it.
    #[default]
    Server,
    /// As [`Server`](Self::Server), but artifacts of this tier are never promoted to another tier, so
    /// that nothing of them stays once the tier is gone.
    ServerUnpromoted,
    /// Only writers that have one of the secrets. An entry without a valid tag is corrupt, and counted
    /// as [`unauthenticated`](crate::PipelineCacheMetrics::unauthenticated).
    Authenticated(TrustedKeys),
}

#[cfg(feature = "remote-cache")]
impl Trust {
    /// The keys that entries must be signed with, if any, and whether hits may be promoted.
    pub(crate) fn into_keys(self) -> (Option<TrustedKeys>, bool) {
        match self {
            Self::Server => (None, true),
            Self::ServerUnpromoted => (None, false),
            Self::Authenticated(keys) => (Some(keys), true),
        }
    }
}
