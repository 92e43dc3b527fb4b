//! The secret half of a key pair: it signs artifacts.

use ed25519_dalek::{Signer as _, SigningKey as Ed25519Key};
use std::fmt;

use super::Artifact;
use super::signature::{ArtifactSignature, PublicKey, Statement};
use crate::key::PipelineFingerprint;

/// Signs artifacts with Ed25519 (RFC 8032). Whoever has it can make artifacts that its readers accept;
/// the readers have the [`PublicKey`] alone. It is never printed, and wiped when it is dropped.
/// Needs the feature `signatures`.
///
/// Give it to the builds whose artifacts others may use, and to no one else: a different one for each
/// [scope](crate::signatures::Signer), such as a branch.
///
/// ```
/// use pipeline_cache::signatures::SigningKey;
///
/// let key = SigningKey::from_seed([7; 32]); // 32 random bytes, of the secret store of a build
/// println!("ci-main main {}", key.public_key());
/// assert_eq!(format!("{key:?}"), format!("SigningKey(of {})", key.public_key()));
/// ```
#[derive(Clone)]
pub struct SigningKey(Ed25519Key);

impl SigningKey {
    /// The key of 32 random bytes, which are as secret as the key. Take them from a generator for
    /// secrets, such as `openssl rand 32`.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Ed25519Key::from_bytes(&seed))
    }

    /// The half that readers have.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public_key())
    }
}

impl Artifact {
    /// The same artifact with a signature for `key`. It replaces one that it has. The payload is not
    /// hashed again, so this takes 20 to 30 microseconds whatever its size.
    ///
    /// A layered cache signs by itself what it compiles and what is put to it: see
    /// [`signing_key`](crate::LayeredPipelineCacheBuilder::signing_key). Under another key the signature
    /// does not verify.
    #[must_use]
    pub fn signed(&self, key: &PipelineFingerprint, signing_key: &SigningKey) -> Self {
        let statement = Statement::of(key, self);
        let bytes = signing_key.0.sign(statement.as_bytes()).to_bytes();
        let signature = ArtifactSignature::new(signing_key.public_key(), bytes);
        Self::from_verified(
            self.payload().clone(),
            *self.digest(),
            self.metadata().clone(),
            self.has_parts(),
            Some(signature),
        )
    }
}
