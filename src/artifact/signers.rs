//! Whose signatures a reader accepts.

use ed25519_dalek::{Signature, VerifyingKey};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::signature::{ArtifactSignature, PublicKey, PublicKeyError, Statement};
use super::verified::{Verified, VerifiedSet};
use super::{Artifact, FrameError};

/// Somebody whose signatures may be accepted: a name, a scope and a public key. Needs the feature
/// `signatures`.
///
/// A scope says whom the signer's artifacts are for: `main`, `release`, `branch/faster-parser`. A
/// reader names the scopes that it reads, see [`TrustedSigners::reading`]. So one list of signers
/// serves all readers of an organization, and what a branch signed is not served on another.
///
/// See [`TrustedSigners`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    name: String,
    scope: String,
    key: PublicKey,
}

impl Signer {
    /// A signer. Names are for people; two signers may share one.
    #[must_use]
    pub fn new(name: impl Into<String>, scope: impl Into<String>, key: PublicKey) -> Self {
        Self {
            name: name.into(),
            scope: scope.into(),
            key,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whom its artifacts are for.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The key that its signatures are verified with.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key
    }

    /// Reads a list: a line for each signer, with its name, its scope and its public key in hex, with
    /// spaces between them. Empty lines, and what follows a `#`, are passed over.
    ///
    /// # Errors
    ///
    /// [`SignersError`], which names the first line that is none of these.
    ///
    /// ```
    /// use pipeline_cache::signatures::Signer;
    ///
    /// let signers = Signer::parse_list(
    ///     "# who builds for whom\n\
    ///      ci-main main d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n",
    /// )?;
    /// assert_eq!((signers[0].name(), signers[0].scope()), ("ci-main", "main"));
    /// # Ok::<(), pipeline_cache::signatures::SignersError>(())
    /// ```
    pub fn parse_list(text: &str) -> Result<Vec<Self>, SignersError> {
        let lines = text.lines().enumerate();
        let meaningful = lines.filter_map(|(index, line)| {
            let line = line.split('#').next().unwrap_or_default().trim();
            (!line.is_empty()).then_some((index + 1, line))
        });
        meaningful
            .map(|(line, text)| Self::parse(text).ok_or(SignersError { line }))
            .collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (name, scope, key) = (words.next()?, words.next()?, words.next()?);
        let key: Result<_, PublicKeyError> = key.parse();
        words.next().is_none().then_some(())?;
        Some(Self::new(name, scope, key.ok()?))
    }
}

/// A list of signers that cannot be read.
///
/// ```
/// use pipeline_cache::signatures::Signer;
///
/// let error = Signer::parse_list("ci main not-a-key").unwrap_err();
/// assert!(error.to_string().contains("line 1"), "{error}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the signers is not `name scope public-key`")]
pub struct SignersError {
    line: usize,
}

/// The signers whose artifacts a reader accepts. A clone is another handle to the same set. Needs the
/// feature `signatures`.
///
/// The set may change while tiers use it: [`replace`](Self::replace) and [`revoke`](Self::revoke) hold
/// for the next lookup in every tier that has a handle. To rotate a key, first add the new signer at
/// all readers, then sign with the new key, and revoke the old one once its entries are not wanted any
/// more.
///
/// A signature is verified once for each entry and process. That takes some 50 microseconds, whatever
/// the size of the artifact. Then the frame of the entry is remembered by its tag, which is checked in
/// any case, and the artifact by a hash, in case another tier stores it in another way: at most 65,536
/// of both together.
///
/// ```
/// use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};
/// use pipeline_cache::{Artifact, PipelineFingerprint};
///
/// let (main, branch) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]));
/// let all = [
///     Signer::new("ci", "main", main.public_key()),
///     Signer::new("ci", "branch/faster", branch.public_key()),
/// ];
/// let on_main = TrustedSigners::reading(["main"], all.clone());
/// let on_branch = TrustedSigners::reading(["main", "branch/faster"], all);
///
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// let of_branch = Artifact::new("code").signed(&key, &branch);
/// assert!(on_branch.verify(&key, &of_branch).is_ok());
/// assert!(on_main.verify(&key, &of_branch).is_err());
///
/// // The key of the branch has leaked.
/// on_branch.revoke(&branch.public_key());
/// assert!(!on_branch.accepts(&branch.public_key()));
/// assert!(on_branch.verify(&key, &of_branch).is_err());
/// ```
#[derive(Clone)]
pub struct TrustedSigners {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None`: every scope is read.
    scopes: Option<HashSet<String>>,
    accepted: RwLock<HashMap<PublicKey, Accepted>>,
    /// Whether a signer may have lost its trust.
    changed: AtomicBool,
    /// Whether the signer is accepted is looked up each time.
    verified: VerifiedSet,
}

struct Accepted {
    signer: Signer,
    /// `None` where the bytes are not a key: nothing verifies with them.
    key: Option<VerifyingKey>,
}

impl TrustedSigners {
    /// Accepts these signers, whatever their scope.
    #[must_use]
    pub fn new(signers: impl IntoIterator<Item = Signer>) -> Self {
        Self::over(None, signers)
    }

    /// Accepts those of the signers that have one of these scopes.
    #[must_use]
    pub fn reading<S: Into<String>>(
        scopes: impl IntoIterator<Item = S>,
        signers: impl IntoIterator<Item = Signer>,
    ) -> Self {
        let scopes = scopes.into_iter().map(Into::into).collect();
        Self::over(Some(scopes), signers)
    }

    fn over(scopes: Option<HashSet<String>>, signers: impl IntoIterator<Item = Signer>) -> Self {
        let shared = Shared {
            accepted: RwLock::new(HashMap::new()),
            scopes,
            changed: AtomicBool::new(false),
            verified: VerifiedSet::new(),
        };
        *shared.write() = shared.in_scope(signers);
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Accepts these signers from now on, within the same scopes, and no others. One that was revoked
    /// and is in this list is accepted again.
    pub fn replace(&self, signers: impl IntoIterator<Item = Signer>) {
        let accepted = self.shared.in_scope(signers);
        *self.shared.write() = accepted;
        self.shared.changed.store(true, Ordering::Release);
    }

    /// Accepts nothing more that was signed with this key, until a [`replace`](Self::replace) names it
    /// again. Whether it was accepted before.
    ///
    /// No lookup that begins after the return is served by a tier that has a handle to this set, or by a
    /// layered cache on behalf of such a tier: not from a promotion under way, nor by joining an earlier
    /// lookup or compile request. A tier without a handle serves the copies that it has.
    pub fn revoke(&self, key: &PublicKey) -> bool {
        let revoked = self.shared.write().remove(key).is_some();
        self.shared.changed.store(true, Ordering::Release);
        revoked
    }

    /// Whether signatures with this key are accepted.
    #[must_use]
    pub fn accepts(&self, key: &PublicKey) -> bool {
        self.shared.read().contains_key(key)
    }

    /// Whether a signer may have lost its trust since the set was made.
    pub(crate) fn have_changed(&self) -> bool {
        self.shared.changed.load(Ordering::Acquire)
    }

    /// Checks that an accepted signer signed this artifact for `key`.
    ///
    /// # Errors
    ///
    /// [`FrameError::Unsigned`], [`FrameError::OtherSigner`] or [`FrameError::BadSignature`].
    pub fn verify(
        &self,
        key: &crate::key::PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<(), FrameError> {
        let signature = self.of_accepted(artifact.signature())?;
        self.check(signature, &Statement::of(key, artifact))
    }

    /// The same of a frame whose `tag` is that of its bytes.
    pub(super) fn check_frame(
        &self,
        signature: Option<&ArtifactSignature>,
        tag: &[u8; 32],
        statement: impl FnOnce() -> Statement,
    ) -> Result<(), FrameError> {
        let signature = self.of_accepted(signature)?;
        let frame = Verified::Frame(*tag);
        if self.shared.verified.contains(&frame) {
            return Ok(());
        }
        self.check(signature, &statement())?;
        self.shared.verified.insert(frame);
        Ok(())
    }

    /// The signature, if its signer is accepted.
    fn of_accepted<'a>(
        &self,
        signature: Option<&'a ArtifactSignature>,
    ) -> Result<&'a ArtifactSignature, FrameError> {
        let signature = signature.ok_or(FrameError::Unsigned)?;
        match self.accepts(&signature.signer()) {
            true => Ok(signature),
            false => Err(FrameError::OtherSigner),
        }
    }

    fn check(
        &self,
        signature: &ArtifactSignature,
        statement: &Statement,
    ) -> Result<(), FrameError> {
        let artifact = Verified::Artifact(hash_of(signature, statement));
        if self.shared.verified.contains(&artifact) {
            return Ok(());
        }
        let key = self
            .shared
            .read()
            .get(&signature.signer())
            .map(|accepted| accepted.key);
        let key = key.ok_or(FrameError::OtherSigner)?;
        let is_valid = key.is_some_and(|key| verifies(&key, signature, statement));
        if !is_valid {
            return Err(FrameError::BadSignature);
        }
        self.shared.verified.insert(artifact);
        Ok(())
    }
}

impl Shared {
    fn in_scope(&self, signers: impl IntoIterator<Item = Signer>) -> HashMap<PublicKey, Accepted> {
        let is_read = |signer: &Signer| match &self.scopes {
            Some(scopes) => scopes.contains(&signer.scope),
            None => true,
        };
        let signers = signers.into_iter().filter(is_read);
        let accepted = signers.map(|signer| {
            let key = VerifyingKey::from_bytes(signer.key.as_bytes()).ok();
            (signer.key, Accepted { signer, key })
        });
        accepted.collect()
    }

    /// No code panics while it holds the lock.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<PublicKey, Accepted>> {
        self.accepted.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<PublicKey, Accepted>> {
        let accepted = self.accepted.write();
        accepted.unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash_of(signature: &ArtifactSignature, statement: &Statement) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&signature.encode());
    hasher.update(statement.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Strict: a key of small order would verify signatures that nobody made.
fn verifies(key: &VerifyingKey, signature: &ArtifactSignature, statement: &Statement) -> bool {
    let signature = Signature::from_bytes(signature.as_bytes());
    key.verify_strict(statement.as_bytes(), &signature).is_ok()
}

impl fmt::Debug for TrustedSigners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted = self.shared.read();
        let accepted = accepted.values();
        let mut names: Vec<_> = accepted.map(|accepted| accepted.signer.name()).collect();
        names.sort_unstable();
        f.debug_tuple("TrustedSigners").field(&names).finish()
    }
}
