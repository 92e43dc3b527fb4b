//! Whom a tier believes.

use std::fmt;

use super::SharedSecret;

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

#[cfg(any(feature = "remote-cache", feature = "object-store"))]
/// Whom a tier across a network believes that an artifact is what its key names.
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
    /// The server, and so all who can write to it.
    #[default]
    Server,
    /// As [`Server`](Self::Server), for this one use: what it serves is never promoted to another
    /// tier, so that nothing of it stays once the tier is gone.
    ServerUnpromoted,
    /// Those who know one of the secrets, and nobody else. What they did not sign is corrupt, and
    /// counted as [`unauthenticated`](crate::PipelineCacheMetrics::unauthenticated).
    Authenticated(TrustedKeys),
}

#[cfg(any(feature = "remote-cache", feature = "object-store"))]
impl Trust {
    /// What may be promoted, and with which keys.
    pub(crate) fn into_keys(self) -> (Option<TrustedKeys>, bool) {
        match self {
            Self::Server => (None, true),
            Self::ServerUnpromoted => (None, false),
            Self::Authenticated(keys) => (Some(keys), true),
        }
    }
}
