//! The signature of an artifact by its maker. It travels with the artifact through every tier.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "signatures")]
use super::Artifact;
#[cfg(feature = "signatures")]
use crate::key::PipelineFingerprint;

/// What a signature covers begins with this, so that no signature made for something else fits.
#[cfg(feature = "signatures")]
const CONTEXT: &[u8; 40] = b"pipeline-cache 2026-11 artifact sign. v1";

/// The length of a signature and its signer in a frame.
pub(super) const SIGNATURE_LEN: usize = 32 + 64;

/// Who signs: the public half of an Ed25519 key pair. It tells signers apart and is no secret.
///
/// ```
/// use pipeline_cache::signatures::PublicKey;
///
/// let text = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
/// let key: PublicKey = text.parse()?;
/// assert_eq!(key.to_string(), text);
/// # Ok::<(), pipeline_cache::signatures::PublicKeyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key of these bytes, as RFC 8032 encodes it. That they are a point of the curve is found out
    /// when a signature is verified: none verifies with a key that is not.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    /// 64 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A text that is not the 64 hex digits of a public key.
///
/// ```
/// use pipeline_cache::signatures::{PublicKey, PublicKeyError};
///
/// assert_eq!("not hex".parse::<PublicKey>(), Err(PublicKeyError));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key has 64 hex digits")]
pub struct PublicKeyError;

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        let bytes = blake3::Hash::from_hex(text).map_err(|_| PublicKeyError)?;
        Ok(Self(*bytes.as_bytes()))
    }
}

/// The signature of an artifact under a key, and who made it. It proves nothing until it is verified:
/// see [`TrustedSigners`](crate::signatures::TrustedSigners), in the feature `signatures`.
///
/// ```
/// # #[cfg(feature = "signatures")]
/// # {
/// use pipeline_cache::{Artifact, PipelineFingerprint};
/// use pipeline_cache::signatures::SigningKey;
///
/// let maker = SigningKey::from_seed([7; 32]);
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// let artifact = Artifact::new("code").signed(&key, &maker);
/// assert_eq!(artifact.signature().map(|made| made.signer()), Some(maker.public_key()));
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ArtifactSignature {
    signer: PublicKey,
    bytes: [u8; 64],
}

impl ArtifactSignature {
    #[cfg(feature = "signatures")]
    pub(super) const fn new(signer: PublicKey, bytes: [u8; 64]) -> Self {
        Self { signer, bytes }
    }

    /// Who says to have made it.
    #[must_use]
    pub const fn signer(&self) -> PublicKey {
        self.signer
    }

    /// The signature as RFC 8032 encodes it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.bytes
    }

    /// The stored form, in a frame: the signer, then the signature.
    pub(super) fn encode(&self) -> [u8; SIGNATURE_LEN] {
        let mut encoded = [0; SIGNATURE_LEN];
        let (signer, bytes) = encoded.split_at_mut(32);
        signer.copy_from_slice(&self.signer.0);
        bytes.copy_from_slice(&self.bytes);
        encoded
    }

    /// The signature at the start of these bytes, and the rest of them.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (signer, rest) = bytes.split_first_chunk::<32>()?;
        let (bytes, rest) = rest.split_first_chunk::<64>()?;
        let signer = PublicKey(*signer);
        Some((
            Self {
                signer,
                bytes: *bytes,
            },
            rest,
        ))
    }
}

impl fmt::Debug for ArtifactSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactSignature(by {})", self.signer)
    }
}

/// What a signature says: under this key belong these bytes, with this metadata. It does not depend on
/// how a tier stores them, so that an artifact keeps its signature wherever it goes.
#[cfg(feature = "signatures")]
#[derive(Debug)]
pub(super) struct Statement([u8; Self::LEN]);

#[cfg(feature = "signatures")]
impl Statement {
    const LEN: usize = CONTEXT.len() + 32 + 32 + 1 + 32;

    /// `metadata` is its stored form.
    pub(super) fn new(
        key: &PipelineFingerprint,
        digest: &[u8; 32],
        has_parts: bool,
        metadata: &[u8],
    ) -> Self {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(CONTEXT);
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(digest);
        bytes.push(u8::from(has_parts));
        bytes.extend_from_slice(blake3::hash(metadata).as_bytes());
        Self(bytes.try_into().expect("the fields add up to the length"))
    }

    pub(super) fn of(key: &PipelineFingerprint, artifact: &Artifact) -> Self {
        let metadata = artifact.metadata().encode();
        Self::new(key, artifact.digest(), artifact.has_parts(), &metadata)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}
