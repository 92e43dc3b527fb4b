//! The key of an artifact: 32 bytes of BLAKE3 over a canonical program.
//!
//! A fingerprint is either *bare* ([`PipelineFingerprint::of`]: the program alone) or *scoped*
//! ([`PipelineFingerprint::scoped`]: the program, and everything else that shapes what a compiler
//! makes of it). Artifacts are stored under scoped fingerprints.

use std::fmt;
use std::str::FromStr;

use super::{CompileScope, Program, ToWire as _, Unkeyable};

/// The context of the key derivation in [`PipelineFingerprint::scoped`]; part of the key format.
const SCOPE_CONTEXT: &str = "pipeline-cache 2026-11 scoped fingerprint v1";

/// The content address of an artifact.
///
/// Two programs have the same fingerprint if and only if their canonical forms are the same bytes on
/// the wire. The 64 hex digits of [`Display`](fmt::Display) are also the file name of the artifact on
/// disk and its last path segment on a server.
///
/// ```
/// use pipeline_cache::{CompileScope, OpaqueProgram, PipelineFingerprint};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let program = OpaqueProgram::new("spirv", vec![0x03, 0x02, 0x23, 0x07]);
/// let bare = PipelineFingerprint::of(&program)?;
///
/// // The stored key also names the compiler, the target and the options.
/// let scope = CompileScope::new("shaderc 2026.1+g1a2b3c", "sm_90")?.option("opt-level", "3");
/// let key = bare.scoped(&scope);
///
/// assert_ne!(bare, key);
/// assert_eq!(key, key.to_hex().parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipelineFingerprint([u8; Self::LEN]);

impl PipelineFingerprint {
    /// The length of a fingerprint in bytes.
    pub const LEN: usize = 32;

    /// The bare fingerprint of a program: BLAKE3 of its canonical form on the wire.
    ///
    /// The wire is hashed as it is written; it is never held in memory as a whole.
    /// This is synchronous work in proportion to the program: call it from
    /// `tokio::task::spawn_blocking` for programs of more than a few hundred kilobytes.
    ///
    /// # Errors
    ///
    /// [`Unkeyable`] when the program has no canonical form. Compile it and do not cache it.
    ///
    /// ```
    /// use pipeline_cache::{OpaqueProgram, PipelineFingerprint};
    ///
    /// let a = PipelineFingerprint::of(&OpaqueProgram::new("wgsl", "fn main() {}"))?;
    /// let b = PipelineFingerprint::of(&OpaqueProgram::new("glsl", "fn main() {}"))?;
    /// assert_ne!(a, b, "the same bytes in two languages are two programs");
    /// # Ok::<(), pipeline_cache::Unkeyable>(())
    /// ```
    pub fn of<P: Program + ?Sized>(program: &P) -> Result<Self, Unkeyable> {
        Ok(program.canonicalize()?.fingerprint())
    }

    /// The fingerprint under which an artifact of this program is stored when it is compiled in
    /// `scope`: another compiler build, target, option or environment gives another key.
    ///
    /// Scopes nest: scoping a scoped fingerprint narrows it further.
    ///
    /// ```
    /// # use pipeline_cache::{CompileScope, PipelineFingerprint};
    /// let bare = PipelineFingerprint::from_bytes([7; 32]);
    /// let old = bare.scoped(&CompileScope::new("naga 29.0.0", "spirv-1.3")?);
    /// let new = bare.scoped(&CompileScope::new("naga 30.0.1", "spirv-1.3")?);
    /// assert_ne!(old, new, "an upgraded compiler never serves the old one's output");
    /// # Ok::<(), pipeline_cache::key::CompileScopeError>(())
    /// ```
    #[must_use]
    pub fn scoped(&self, scope: &CompileScope) -> Self {
        let mut material = [0; 2 * Self::LEN];
        material[..Self::LEN].copy_from_slice(&self.0);
        material[Self::LEN..].copy_from_slice(scope.digest());
        Self(blake3::derive_key(SCOPE_CONTEXT, &material))
    }

    /// A fingerprint from its 32 bytes, for callers that key their programs themselves.
    ///
    /// ```
    /// # use pipeline_cache::PipelineFingerprint;
    /// let fingerprint = PipelineFingerprint::from_bytes([0xab; 32]);
    /// assert_eq!(fingerprint.as_bytes(), &[0xab; 32]);
    /// ```
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The fingerprint as 64 lowercase hex digits.
    ///
    /// ```
    /// # use pipeline_cache::PipelineFingerprint;
    /// assert_eq!(PipelineFingerprint::from_bytes([0x0f; 32]).to_hex(), "0f".repeat(32));
    /// ```
    #[must_use]
    pub fn to_hex(&self) -> String {
        str::to_owned(&self.hex())
    }

    /// The hex digits on the stack, for paths and messages that need no allocation.
    pub(crate) fn hex(&self) -> impl std::ops::Deref<Target = str> {
        blake3::Hash::from_bytes(self.0).to_hex()
    }
}

impl From<[u8; Self::LEN]> for PipelineFingerprint {
    fn from(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for PipelineFingerprint {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for PipelineFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.hex())
    }
}

impl fmt::Debug for PipelineFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipelineFingerprint({self})")
    }
}

/// A text is not the 64 lowercase hex digits of a fingerprint.
///
/// ```
/// # use pipeline_cache::PipelineFingerprint;
/// let error = "../../etc/passwd".parse::<PipelineFingerprint>().unwrap_err();
/// assert_eq!(error.to_string(), "a fingerprint is 64 lowercase hex digits");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 lowercase hex digits")]
pub struct ParseFingerprintError(());

impl FromStr for PipelineFingerprint {
    type Err = ParseFingerprintError;

    /// Reads the 64 lowercase hex digits back. Upper case is rejected: a case-insensitive file system
    /// would take both spellings for one file name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lowercase = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !lowercase {
            return Err(ParseFingerprintError(()));
        }
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| ParseFingerprintError(()))
    }
}

#[cfg(feature = "serde")]
mod serde_impl {
    use super::PipelineFingerprint;
    use serde::de::{Deserialize, Deserializer, Error, Visitor};
    use serde::ser::{Serialize, Serializer};

    impl Serialize for PipelineFingerprint {
        /// Hex in formats that people read, 32 bytes in the others.
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if serializer.is_human_readable() {
                serializer.collect_str(self)
            } else {
                serializer.serialize_bytes(self.as_bytes())
            }
        }
    }

    impl<'de> Deserialize<'de> for PipelineFingerprint {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if deserializer.is_human_readable() {
                deserializer.deserialize_str(FingerprintVisitor)
            } else {
                deserializer.deserialize_bytes(FingerprintVisitor)
            }
        }
    }

    struct FingerprintVisitor;

    impl Visitor<'_> for FingerprintVisitor {
        type Value = PipelineFingerprint;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a pipeline fingerprint: 64 lowercase hex digits, or 32 bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            let bytes = bytes
                .try_into()
                .map_err(|_| E::invalid_length(bytes.len(), &self))?;
            Ok(PipelineFingerprint::from_bytes(bytes))
        }
    }
}
