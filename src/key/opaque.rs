//! Programs that are a run of bytes, for representations this crate has no rules for.

use bytes::Bytes;
use std::borrow::Cow;

use super::{Program, ToWire, Unkeyable, WireWriter};
use crate::sync::blocking;

/// A program as bytes that are already in the form to be hashed.
///
/// Every byte counts: two spellings of one computation have two keys. Canonicalize first, or
/// implement [`Program`] for the real representation, where that matters.
///
/// ```
/// use pipeline_cache::{OpaqueProgram, PipelineFingerprint, Program as _, ToWire as _};
///
/// let program = OpaqueProgram::new("ptx", ".version 8.5\n.target sm_90\n");
/// assert_eq!(
///     PipelineFingerprint::of(&program)?.to_hex(),
///     "2062ace59d4cd84727bc65313de9625ed2a6baed14ec2d28b97e5c4b28e83b2b"
/// );
///
/// // What is hashed has its format, its length and its bytes.
/// let canonical = program.canonicalize()?;
/// let wire = canonical.to_wire();
/// assert!(wire.ends_with(program.bytes()));
/// assert_eq!(canonical.fingerprint().as_bytes(), blake3::hash(&wire).as_bytes());
/// println!("{} in {} bytes", program.format(), wire.len());
/// # Ok::<(), pipeline_cache::Unkeyable>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpaqueProgram {
    format: Cow<'static, str>,
    bytes: Bytes,
}

impl OpaqueProgram {
    /// A program in `format`, any name that tells its representation from others.
    #[must_use]
    pub fn new(format: impl Into<Cow<'static, str>>, bytes: impl Into<Bytes>) -> Self {
        Self {
            format: format.into(),
            bytes: bytes.into(),
        }
    }

    /// The name of the representation.
    #[must_use]
    pub fn format(&self) -> &str {
        &self.format
    }

    /// The program's bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Program for OpaqueProgram {
    const DOMAIN: &'static str = "pipeline-cache/opaque";
    const SCHEMA: u32 = 1;
    type Canonical = Self;

    /// Never fails: the bytes are their own canonical form.
    fn canonicalize(&self) -> Result<Self, Unkeyable> {
        Ok(self.clone())
    }

    fn is_small(&self) -> bool {
        self.bytes.len() <= blocking::INLINE_BYTES
    }
}

impl ToWire for OpaqueProgram {
    type Program = Self;

    fn write_body(&self, wire: &mut WireWriter) {
        wire.str(&self.format);
        wire.bytes(&self.bytes);
    }
}
