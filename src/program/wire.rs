//! The wire: the one byte string that stands for a canonical program.
//!
//! Every value is either of fixed width or carries its length, and every choice carries a tag, so
//! that no two canonical programs can run together into the same bytes. There is no raw write.
//! The same writer fills a buffer or feeds a hasher; there is one code path for both.
//!
//! | value | on the wire |
//! |---|---|
//! | unsigned and signed integers | their width, little-endian |
//! | `bool` | one byte, 0 or 1 |
//! | floats | the bits of IEEE 754, little-endian: -0.0 is not 0.0, and every NaN is its own |
//! | tag | `u32` |
//! | option | one byte, 0 or 1, then the value if 1 |
//! | bytes, text | length as `u64`, then the bytes |
//! | sequence | count as `u64`, then the items |
//!
//! A program starts with a header: the eight bytes of [`MAGIC`], [`WIRE_VERSION`] as `u16`,
//! [`Program::DOMAIN`] as text and [`Program::SCHEMA`] as `u32`.

use super::Program;
use crate::PipelineFingerprint;

/// The first eight bytes of every program on the wire.
pub(crate) const MAGIC: [u8; 8] = *b"pcwire\r\n";

/// The version of the rules in this module. A change of any of them raises it.
pub(crate) const WIRE_VERSION: u16 = 1;

/// Bytes gathered before the hasher sees them: large enough that BLAKE3 works on many chunks at
/// a time.
const HASH_CHUNK: usize = 16 * 1024;

/// A canonical program that can be written on the wire.
///
/// Implement [`write_body`](Self::write_body) alone: write every part that can change what a
/// compiler makes, match every enum exhaustively, and leave out nothing but what
/// [`canonicalize`](Program::canonicalize) has already removed.
///
/// ```
/// use pipeline_cache::{PipelineFingerprint, Program, ToWire, Unkeyable, WireWriter};
///
/// /// `add` and `mul` take their operands in any order.
/// #[derive(Clone)]
/// enum Expr {
///     Literal(f32),
///     Add(Box<Expr>, Box<Expr>),
/// }
///
/// struct Canonical(Expr);
///
/// impl Program for Expr {
///     const DOMAIN: &'static str = "example.com/expr";
///     const SCHEMA: u32 = 1;
///     type Canonical = Canonical;
///
///     fn canonicalize(&self) -> Result<Canonical, Unkeyable> {
///         Ok(Canonical(self.clone()))
///     }
/// }
///
/// impl ToWire for Canonical {
///     type Program = Expr;
///
///     fn write_body(&self, wire: &mut WireWriter) {
///         match &self.0 {
///             Expr::Literal(value) => {
///                 wire.tag(0);
///                 wire.f32(*value);
///             }
///             Expr::Add(left, right) => {
///                 wire.tag(1);
///                 Canonical((**left).clone()).write_body(wire);
///                 Canonical((**right).clone()).write_body(wire);
///             }
///         }
///     }
/// }
///
/// let zero = Expr::Literal(0.0).canonicalize()?;
/// let minus_zero = Expr::Literal(-0.0).canonicalize()?;
/// assert_ne!(zero.to_wire(), minus_zero.to_wire());
/// # Ok::<(), Unkeyable>(())
/// ```
pub trait ToWire {
    /// The program this is the canonical form of; its domain and schema stand in the header.
    type Program: Program<Canonical = Self> + ?Sized;

    /// Writes the canonical program, without the header.
    fn write_body(&self, wire: &mut WireWriter);

    /// The header and the body as bytes: what the fingerprint is the hash of.
    fn to_wire(&self) -> Vec<u8> {
        let mut wire = WireWriter::collecting();
        write_program(self, &mut wire);
        wire.into_vec()
    }

    /// `blake3(self.to_wire())`, without holding the wire in memory.
    fn fingerprint(&self) -> PipelineFingerprint {
        let mut wire = WireWriter::hashing();
        write_program(self, &mut wire);
        wire.into_fingerprint()
    }
}

fn write_program<C: ToWire + ?Sized>(canonical: &C, wire: &mut WireWriter) {
    wire.raw(&MAGIC);
    wire.u16(WIRE_VERSION);
    wire.str(C::Program::DOMAIN);
    wire.u32(C::Program::SCHEMA);
    canonical.write_body(wire);
}

/// Writes the parts of a canonical program, each so that it cannot be mistaken for another.
///
/// A writer is handed to [`ToWire::write_body`]. It collects the bytes or hashes them as they
/// come; which of the two, the caller cannot tell.
#[derive(Debug)]
pub struct WireWriter {
    buffer: Vec<u8>,
    /// Set when the wire is hashed and not kept: the buffer is then drained into it.
    hasher: Option<Box<blake3::Hasher>>,
}

impl WireWriter {
    pub(crate) fn collecting() -> Self {
        Self {
            buffer: Vec::new(),
            hasher: None,
        }
    }

    pub(crate) fn hashing() -> Self {
        Self {
            buffer: Vec::with_capacity(HASH_CHUNK),
            hasher: Some(Box::default()),
        }
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        debug_assert!(self.hasher.is_none(), "a hashing writer keeps no bytes");
        self.buffer
    }

    fn into_fingerprint(self) -> PipelineFingerprint {
        let mut hasher = self.hasher.unwrap_or_default();
        hasher.update(&self.buffer);
        PipelineFingerprint::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Private: an unframed run of bytes is what the wire must never hold.
    fn raw(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            if self.buffer.len() + bytes.len() > HASH_CHUNK {
                hasher.update(&self.buffer);
                self.buffer.clear();
                if bytes.len() >= HASH_CHUNK {
                    hasher.update(bytes);
                    return;
                }
            }
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Writes which variant of an enum follows.
    pub fn tag(&mut self, tag: u32) {
        self.u32(tag);
    }

    /// Writes one byte.
    pub fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    /// Writes two bytes, little-endian.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Writes four bytes, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Writes eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Writes two bytes, little-endian two's complement.
    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_le_bytes());
    }

    /// Writes four bytes, little-endian two's complement.
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_le_bytes());
    }

    /// Writes eight bytes, little-endian two's complement.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    /// Writes one byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.raw(&[u8::from(value)]);
    }

    /// Writes the bits of a float: `-0.0` differs from `0.0`, and NaNs differ by payload.
    pub fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    /// Writes the bits of a float: `-0.0` differs from `0.0`, and NaNs differ by payload.
    pub fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    /// Writes a byte run with its length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Writes a text with its length in bytes.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Writes whether there is a value and then, if there is, the value.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// Writes the number of items and then each of them.
    pub fn seq<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for item in items {
            write(self, item);
        }
    }

    /// The same eight bytes whatever the width of `usize`.
    fn count(&mut self, count: usize) {
        self.u64(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes of every size around the drain, so that both sinks see each boundary.
    fn write_runs(wire: &mut WireWriter) {
        for length in [0, 1, HASH_CHUNK - 9, HASH_CHUNK, HASH_CHUNK + 1, 3, 100_000] {
            wire.bytes(&vec![0xa5; length]);
            wire.u8(7);
        }
    }

    #[test]
    fn the_hash_is_the_hash_of_the_bytes() {
        let mut memory = WireWriter::collecting();
        write_runs(&mut memory);
        let mut hash = WireWriter::hashing();
        write_runs(&mut hash);
        assert_eq!(
            hash.into_fingerprint().as_bytes(),
            blake3::hash(&memory.into_vec()).as_bytes()
        );
    }

    #[test]
    fn a_hashing_writer_stays_small() {
        let mut wire = WireWriter::hashing();
        for _ in 0..100_000 {
            wire.u64(1);
        }
        assert!(wire.buffer.capacity() <= HASH_CHUNK);
    }

    #[test]
    fn parts_do_not_run_together() {
        let join = |parts: &[&str]| {
            let mut wire = WireWriter::collecting();
            wire.seq(parts, |wire, part| wire.str(part));
            wire.into_vec()
        };
        assert_ne!(join(&["ab", "c"]), join(&["a", "bc"]));
        assert_ne!(join(&["abc"]), join(&["abc", ""]));
        assert_ne!(join(&[]), join(&[""]));
    }
}
