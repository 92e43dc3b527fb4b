//! The named parts of a program on the wire, each with a digest of its own.

use std::fmt;

/// A part of what a key is made of, without its content.
///
/// The program's [`ToWire`](crate::ToWire) gives the names. They are for display and need not be
/// unique; characters that would break a line are written as escapes.
///
/// See [`KeyParts`](crate::explain::KeyParts) for an example.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPart {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) digest: [u8; 32],
}

impl KeyPart {
    /// The display name of the part, as in `function 3` or `scope: option opt-level`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes it takes on the wire, without the parts inside of it.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// BLAKE3 of those bytes.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Hashes what is written, as a whole and by the part that it stands in.
#[derive(Debug, Default)]
pub(crate) struct PartRecorder {
    whole: blake3::Hasher,
    parts: Vec<Recorded>,
    /// Those that have begun and not ended, the innermost last.
    open: Vec<usize>,
}

#[derive(Debug)]
struct Recorded {
    name: String,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl PartRecorder {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.whole.update(bytes);
        if let Some(part) = self.open.last().and_then(|&open| self.parts.get_mut(open)) {
            part.hasher.update(bytes);
            part.bytes += bytes.len() as u64;
        }
    }

    pub(super) fn begin(&mut self, name: &impl fmt::Display) {
        self.open.push(self.parts.len());
        self.parts.push(Recorded {
            name: name.to_string().escape_debug().to_string(),
            bytes: 0,
            hasher: blake3::Hasher::new(),
        });
    }

    pub(super) fn end(&mut self) {
        self.open.pop();
    }

    pub(super) fn digest(&self) -> blake3::Hash {
        self.whole.finalize()
    }

    pub(super) fn take_parts(&mut self) -> Vec<KeyPart> {
        let parts = std::mem::take(&mut self.parts).into_iter();
        parts
            .map(|part| KeyPart {
                name: part.name,
                bytes: part.bytes,
                digest: *part.hasher.finalize().as_bytes(),
            })
            .collect()
    }
}
