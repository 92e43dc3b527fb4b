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

use std::fmt;

use super::PipelineFingerprint;
use super::parts::{KeyPart, PartRecorder};
use super::{Program, Unkeyable};

/// The first eight bytes of every program on the wire.
pub(crate) const MAGIC: [u8; 8] = *b"pcwire\r\n";

/// The version of the rules in this module. A change of any of them raises it.
pub(crate) const WIRE_VERSION: u16 = 1;

/// Bytes gathered before the hasher sees them: large enough that BLAKE3 works on many chunks at
/// a time.
const HASH_CHUNK: usize = 16 * 1024;

/// A canonical program that can be written on the wire.
///
/// Implement [`write_body`](Self::write_body), and nothing else but perhaps
/// [`check`](Self::check): write every part that can change what a
/// compiler makes, match every enum exhaustively, and leave out nothing but what
/// [`canonicalize`](Program::canonicalize) has already removed.
///
/// `testing::check_program` (feature `testing`) checks an implementation against sample programs
/// and keeps their keys in a file, so that no change of the wire goes unnoticed.
///
/// ```
/// use pipeline_cache::{PipelineFingerprint, Program, ToWire, Unkeyable, WireWriter};
///
/// /// Arithmetic on 32-bit integers that wraps around. There, the order of what is added does
/// /// not matter; for floats it does.
/// #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
/// enum Expr {
///     Literal(u32),
///     Input { index: u32 },
///     Sum(Vec<Expr>),
///     Shift { value: Box<Expr>, by: Box<Expr> },
/// }
///
/// impl Expr {
///     /// The one form of all spellings: sums inside of sums are one sum, in sorted order.
///     fn canonical(&self) -> Self {
///         match self {
///             Self::Literal(_) | Self::Input { .. } => self.clone(),
///             Self::Shift { value, by } => Self::Shift {
///                 value: Box::new(value.canonical()),
///                 by: Box::new(by.canonical()),
///             },
///             Self::Sum(terms) => {
///                 let mut flat = Vec::new();
///                 for term in terms {
///                     match term.canonical() {
///                         Self::Sum(inner) => flat.extend(inner),
///                         other => flat.push(other),
///                     }
///                 }
///                 flat.sort();
///                 Self::Sum(flat)
///             }
///         }
///     }
///
///     /// Without a wildcard: a new variant does not compile until it has a tag. A tag that was
///     /// used once is never used for anything else.
///     const fn tag(&self) -> u32 {
///         match self {
///             Self::Literal(_) => 0,
///             Self::Input { .. } => 1,
///             Self::Sum(_) => 2,
///             Self::Shift { .. } => 3,
///         }
///     }
///
///     /// The tag is written in one place for all variants, so that none can go without.
///     /// Without `..`: a new field does not compile until something is done about it.
///     fn write(&self, wire: &mut WireWriter) {
///         wire.tag(self.tag());
///         match self {
///             Self::Literal(value) => wire.u32(*value),
///             Self::Input { index } => wire.u32(*index),
///             Self::Sum(terms) => wire.seq(terms, |wire, term| term.write(wire)),
///             Self::Shift { value, by } => {
///                 value.write(wire);
///                 by.write(wire);
///             }
///         }
///     }
/// }
///
/// /// The canonical form is a type of its own: nothing else can be keyed or compiled.
/// struct Canonical(Expr);
///
/// impl Program for Expr {
///     const DOMAIN: &'static str = "example.com/expr";
///     const SCHEMA: u32 = 1;
///     type Canonical = Canonical;
///
///     fn canonicalize(&self) -> Result<Canonical, Unkeyable> {
///         Ok(Canonical(self.canonical()))
///     }
/// }
///
/// impl ToWire for Canonical {
///     type Program = Expr;
///
///     fn write_body(&self, wire: &mut WireWriter) {
///         self.0.write(wire);
///     }
/// }
///
/// let [x, one, two] = [Expr::Input { index: 0 }, Expr::Literal(1), Expr::Literal(2)];
/// let sum = |terms: &[&Expr]| Expr::Sum(terms.iter().copied().cloned().collect());
/// let shift = |value: &Expr, by: &Expr| Expr::Shift {
///     value: Box::new(value.clone()),
///     by: Box::new(by.clone()),
/// };
///
/// let key = PipelineFingerprint::of::<Expr>;
/// assert_eq!(key(&sum(&[&x, &one, &two]))?, key(&sum(&[&two, &sum(&[&one, &x])]))?);
/// assert_ne!(key(&shift(&one, &two))?, key(&shift(&two, &one))?);
/// assert_ne!(key(&one)?, key(&x)?);
/// # Ok::<(), Unkeyable>(())
/// ```
pub trait ToWire {
    /// The program this is the canonical form of; its domain and schema stand in the header.
    type Program: Program<Canonical = Self> + ?Sized;

    /// Writes the canonical program, without the header.
    fn write_body(&self, wire: &mut WireWriter);

    /// Checks the canonical form before it is compiled, which a hit never is.
    ///
    /// Implement it where [`canonicalize`](Program::canonicalize) puts off a check that takes long.
    /// The cache calls it once, on a miss, before it calls the compile function. It does nothing
    /// by default.
    ///
    /// # Errors
    ///
    /// [`Unkeyable`] when the canonical form is not fit to be compiled. The
    /// program is then compiled as it is, and the artifact is not cached.
    ///
    /// ```
    /// use pipeline_cache::{Program, ToWire, Unkeyable, WireWriter};
    ///
    /// /// A text that is its own canonical form, and is validated only where it is compiled.
    /// #[derive(Clone)]
    /// struct Kernel(String);
    ///
    /// impl Program for Kernel {
    ///     const DOMAIN: &'static str = "example.com/kernel";
    ///     const SCHEMA: u32 = 1;
    ///     type Canonical = Self;
    ///
    ///     fn canonicalize(&self) -> Result<Self, Unkeyable> {
    ///         Ok(self.clone())
    ///     }
    ///
    ///     // Most have a few hundred bytes, for which a thread would not pay.
    ///     fn is_small(&self) -> bool {
    ///         self.0.len() < 4096
    ///     }
    /// }
    ///
    /// impl ToWire for Kernel {
    ///     type Program = Self;
    ///
    ///     fn write_body(&self, wire: &mut WireWriter) {
    ///         wire.str(&self.0);
    ///     }
    ///
    ///     // What is found in the cache was checked before it was compiled.
    ///     fn check(&self) -> Result<(), Unkeyable> {
    ///         match self.0.matches('{').count() == self.0.matches('}').count() {
    ///             true => Ok(()),
    ///             false => Err(Unkeyable::new("a brace is not closed")),
    ///         }
    ///     }
    /// }
    /// # assert!(Kernel("{".into()).canonicalize()?.check().is_err());
    /// # Ok::<(), Unkeyable>(())
    /// ```
    fn check(&self) -> Result<(), Unkeyable> {
        Ok(())
    }

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

pub(crate) fn write_program<C: ToWire + ?Sized>(canonical: &C, wire: &mut WireWriter) {
    wire.part("representation", |wire| {
        wire.raw(&MAGIC);
        wire.u16(WIRE_VERSION);
        wire.str(C::Program::DOMAIN);
    });
    wire.part("schema", |wire| wire.u32(C::Program::SCHEMA));
    wire.part("program", |wire| canonical.write_body(wire));
}

/// Writes the values of a canonical program, each framed so that no two sequences of values give the
/// same bytes.
///
/// [`ToWire::write_body`] gets a writer. It collects the bytes or hashes them; both see the same
/// bytes.
///
/// See [`ToWire`] for a whole program. A value of each type:
///
/// ```
/// use pipeline_cache::WireWriter;
///
/// struct Instruction {
///     opcode: u8,
///     destination: u16,
///     saturates: bool,
///     offset: i16,
///     jump: i32,
///     address: i64,
///     lanes: u64,
///     scale: f32,
///     bound: f64,
/// }
///
/// /// No field needs a tag: each has its place and its width.
/// fn write_instruction(wire: &mut WireWriter, instruction: &Instruction) {
///     wire.u8(instruction.opcode);
///     wire.u16(instruction.destination);
///     wire.bool(instruction.saturates);
///     wire.i16(instruction.offset);
///     wire.i32(instruction.jump);
///     wire.i64(instruction.address);
///     wire.u64(instruction.lanes);
///     wire.f32(instruction.scale);
///     wire.f64(instruction.bound);
/// }
/// ```
#[derive(Debug)]
pub struct WireWriter {
    buffer: Vec<u8>,
    /// How many bytes the buffer may hold before it is drained.
    limit: usize,
    sink: Sink,
}

/// Where the bytes go.
#[derive(Debug)]
enum Sink {
    /// They stay in the buffer.
    Buffer,
    /// The buffer is drained into a hasher.
    Hasher(Box<blake3::Hasher>),
    /// The buffer is drained into the hashers of the parts that are open.
    Parts(Box<PartRecorder>),
}

impl Sink {
    /// Hands bytes on; whether there is anyone to hand them to but the buffer.
    fn take(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::Buffer => return false,
            Self::Hasher(hasher) => drop(hasher.update(bytes)),
            Self::Parts(recorder) => recorder.update(bytes),
        }
        true
    }
}

impl WireWriter {
    pub(crate) const fn collecting() -> Self {
        Self {
            buffer: Vec::new(),
            limit: usize::MAX,
            sink: Sink::Buffer,
        }
    }

    pub(crate) fn hashing() -> Self {
        Self::hashing_with(blake3::Hasher::new())
    }

    pub(crate) fn hashing_with(hasher: blake3::Hasher) -> Self {
        Self {
            buffer: Vec::with_capacity(HASH_CHUNK),
            limit: HASH_CHUNK,
            sink: Sink::Hasher(Box::new(hasher)),
        }
    }

    pub(crate) fn recording_parts() -> Self {
        Self {
            buffer: Vec::with_capacity(HASH_CHUNK),
            limit: HASH_CHUNK,
            sink: Sink::Parts(Box::default()),
        }
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        debug_assert!(
            matches!(self.sink, Sink::Buffer),
            "no other writer keeps its bytes"
        );
        self.buffer
    }

    /// BLAKE3 of what was written.
    pub(crate) fn into_digest(mut self) -> [u8; 32] {
        self.drain();
        let hash = match self.sink {
            Sink::Buffer => blake3::hash(&self.buffer),
            Sink::Hasher(hasher) => hasher.finalize(),
            Sink::Parts(recorder) => recorder.digest(),
        };
        *hash.as_bytes()
    }

    fn into_fingerprint(self) -> PipelineFingerprint {
        PipelineFingerprint::from_bytes(self.into_digest())
    }

    /// The digest of the whole, and of each part in the order in which they began. No parts
    /// where they were not recorded.
    pub(crate) fn into_parts(mut self) -> ([u8; 32], Vec<KeyPart>) {
        self.drain();
        let parts = match &mut self.sink {
            Sink::Buffer | Sink::Hasher(_) => Vec::new(),
            Sink::Parts(recorder) => recorder.take_parts(),
        };
        (self.into_digest(), parts)
    }

    /// Hands the buffer on to a sink that is not the buffer itself.
    fn drain(&mut self) {
        if self.sink.take(&self.buffer) {
            self.buffer.clear();
        }
    }

    /// Private: an unframed run of bytes is what the wire must never hold.
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > self.limit {
            self.overflow(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    #[cold]
    fn overflow(&mut self, bytes: &[u8]) {
        self.drain();
        if bytes.len() < HASH_CHUNK || !self.sink.take(bytes) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Writes a named part, such as a function or a section.
    ///
    /// The name is not on the wire, and marking a part changes no key: it only lets
    /// [`explain`](crate::explain) say which part of two programs differs. A part inside of another
    /// has a digest of its own. The name is formatted only while parts are recorded.
    ///
    /// ```
    /// # use pipeline_cache::WireWriter;
    /// fn write_function(wire: &mut WireWriter, name: &str, code: &[u8]) {
    ///     wire.part(format_args!("function {name}"), |wire| {
    ///         wire.str(name);
    ///         wire.bytes(code);
    ///     });
    /// }
    /// ```
    pub fn part(&mut self, name: impl fmt::Display, write: impl FnOnce(&mut Self)) {
        self.drain_parts(|recorder| recorder.begin(&name));
        write(self);
        self.drain_parts(PartRecorder::end);
    }

    /// Where parts are recorded: what was written so far belongs to the part that is open.
    fn drain_parts(&mut self, then: impl FnOnce(&mut PartRecorder)) {
        if let Sink::Parts(recorder) = &mut self.sink {
            recorder.update(&self.buffer);
            self.buffer.clear();
            then(recorder);
        }
    }

    /// Writes a byte run with its length, in the parts that `divide` finds in it. They are in
    /// order, and asked for only when they are wanted.
    #[cfg(feature = "wasm")]
    pub(crate) fn bytes_in_parts(
        &mut self,
        bytes: &[u8],
        divide: impl FnOnce(&[u8]) -> Vec<(String, std::ops::Range<usize>)>,
    ) {
        self.count(bytes.len());
        self.run_in_parts(bytes, divide);
    }

    /// Writes what is a sequence of framed runs already, in the parts that `divide` finds in it.
    #[cfg(any(feature = "naga", feature = "wasm"))]
    pub(crate) fn run_in_parts(
        &mut self,
        bytes: &[u8],
        divide: impl FnOnce(&[u8]) -> Vec<(String, std::ops::Range<usize>)>,
    ) {
        let mut written = 0;
        if matches!(self.sink, Sink::Parts(_)) {
            for (name, range) in divide(bytes) {
                self.raw(&bytes[written..range.start]);
                written = range.end;
                self.part(name, |wire| wire.raw(&bytes[range]));
            }
        }
        self.raw(&bytes[written..]);
    }

    /// Writes which variant of an enum follows.
    #[inline]
    pub fn tag(&mut self, tag: u32) {
        self.u32(tag);
    }

    /// Writes one byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    /// Writes two bytes, little-endian.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Writes four bytes, little-endian.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Writes eight bytes, little-endian.
    #[inline]
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
    #[inline]
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
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Writes a text with its length in bytes.
    #[inline]
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Writes whether there is a value and then, if there is, the value.
    #[inline]
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// Writes the number of items and then each of them.
    #[inline]
    pub fn seq<T>(&mut self, items: &[T], write: impl FnMut(&mut Self, &T)) {
        self.items(items.iter(), write);
    }

    /// Writes the number of items and then each of them.
    #[inline]
    pub(crate) fn items<I: ExactSizeIterator>(
        &mut self,
        items: I,
        mut write: impl FnMut(&mut Self, I::Item),
    ) {
        self.count(items.len());
        for item in items {
            write(self, item);
        }
    }

    /// The same eight bytes whatever the width of `usize`.
    #[inline]
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
            wire.part(length, |wire| {
                wire.bytes(&vec![0xa5; length]);
                wire.part("inner", |wire| wire.u8(7));
            });
            wire.u8(9);
        }
    }

    #[test]
    fn the_hash_is_the_hash_of_the_bytes() {
        let mut memory = WireWriter::collecting();
        write_runs(&mut memory);
        let expected = *blake3::hash(&memory.into_vec()).as_bytes();
        for mut wire in [
            WireWriter::collecting(),
            WireWriter::hashing(),
            WireWriter::recording_parts(),
        ] {
            write_runs(&mut wire);
            assert_eq!(wire.into_digest(), expected);
        }
    }

    #[test]
    fn every_byte_is_of_one_part() {
        let mut memory = WireWriter::collecting();
        write_runs(&mut memory);
        let mut recording = WireWriter::recording_parts();
        recording.part("rest", write_runs);
        let (_, parts) = recording.into_parts();
        let bytes: u64 = parts.iter().map(KeyPart::bytes).sum();
        assert_eq!(bytes, memory.into_vec().len() as u64);
        let names: Vec<_> = parts.iter().map(KeyPart::name).collect();
        assert_eq!(names[..4], ["rest", "0", "inner", "1"]);
        assert_eq!(parts[2].digest(), blake3::hash(&[7]).as_bytes());
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
