//! What must hold for every input whatever, here and under a fuzzer: no panic, and the promises of
//! keys and frames.
#![allow(dead_code, reason = "each fuzz target uses one of them")]

use bytes::Bytes;
use pipeline_cache::testing::{decode_frame, encode_frame};
use pipeline_cache::{
    Artifact, KeyParts, PipelineFingerprint, Program, SharedSecret, ToWire, TrustedKeys, Unkeyable,
    WireWriter,
};

/// The largest payload that [`frame`] lets a frame unpack to.
pub(crate) const MAX_PAYLOAD: u64 = 1 << 16;

/// A value of every kind that a wire can hold.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    I16(i16),
    I32(i32),
    I64(i64),
    Bool(bool),
    /// By their bits, since a NaN is not equal to itself.
    F32(u32),
    F64(u64),
    Bytes(Vec<u8>),
    Str(String),
    Option(Option<u8>),
    Seq(Vec<Self>),
    Part(Box<Self>),
}

/// Takes values out of any bytes.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.0.len().min(N);
        array[..taken].copy_from_slice(&self.0[..taken]);
        self.0 = &self.0[taken..];
        array
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    fn values(&mut self, depth: u32) -> Vec<Value> {
        let count = usize::from(self.byte() % 8);
        (0..count).map(|_| self.value(depth)).collect()
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.byte() % 15 {
            0 => Value::U8(self.byte()),
            1 => Value::U16(u16::from_le_bytes(self.array())),
            2 => Value::U32(u32::from_le_bytes(self.array())),
            3 => Value::U64(u64::from_le_bytes(self.array())),
            4 => Value::I16(i16::from_le_bytes(self.array())),
            5 => Value::I32(i32::from_le_bytes(self.array())),
            6 => Value::I64(i64::from_le_bytes(self.array())),
            7 => Value::Bool(self.byte() % 2 == 1),
            8 => Value::F32(u32::from_le_bytes(self.array())),
            9 => Value::F64(u64::from_le_bytes(self.array())),
            10 => Value::Bytes(self.run()),
            11 => Value::Str(String::from_utf8_lossy(&self.run()).into_owned()),
            12 => Value::Option(Some(self.byte()).filter(|byte| byte % 3 != 0)),
            13 if depth < 8 => Value::Seq(self.values(depth + 1)),
            14 if depth < 8 => Value::Part(Box::new(self.value(depth + 1))),
            _ => Value::Seq(Vec::new()),
        }
    }

    fn run(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (run, rest) = self.0.split_at(length);
        self.0 = rest;
        // Now and then long enough to be more than the writer gathers.
        run.repeat(if length == 255 { 100 } else { 1 })
    }
}

fn write(wire: &mut WireWriter, value: &Value) {
    wire.tag(kind(value));
    match value {
        Value::U8(value) => wire.u8(*value),
        Value::U16(value) => wire.u16(*value),
        Value::U32(value) => wire.u32(*value),
        Value::U64(value) => wire.u64(*value),
        Value::I16(value) => wire.i16(*value),
        Value::I32(value) => wire.i32(*value),
        Value::I64(value) => wire.i64(*value),
        Value::Bool(value) => wire.bool(*value),
        Value::F32(bits) => wire.f32(f32::from_bits(*bits)),
        Value::F64(bits) => wire.f64(f64::from_bits(*bits)),
        Value::Bytes(bytes) => wire.bytes(bytes),
        Value::Str(text) => wire.str(text),
        Value::Option(value) => wire.option(*value, WireWriter::u8),
        Value::Seq(values) => wire.seq(values, write),
        Value::Part(value) => wire.part(format_args!("{value:?}"), |wire| write(wire, value)),
    }
}

const fn kind(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::U16(_) => 1,
        Value::U32(_) => 2,
        Value::U64(_) => 3,
        Value::I16(_) => 4,
        Value::I32(_) => 5,
        Value::I64(_) => 6,
        Value::Bool(_) => 7,
        Value::F32(_) => 8,
        Value::F64(_) => 9,
        Value::Bytes(_) => 10,
        Value::Str(_) => 11,
        Value::Option(_) => 12,
        Value::Seq(_) => 13,
        Value::Part(_) => 14,
    }
}

/// Reads back what [`write`] wrote.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (array, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        *array
    }

    fn count(&mut self) -> usize {
        usize::try_from(u64::from_le_bytes(self.array())).unwrap()
    }

    fn run(&mut self) -> &'a [u8] {
        let length = self.count();
        let (run, rest) = self.0.split_at(length);
        self.0 = rest;
        run
    }

    fn bool(&mut self) -> bool {
        match self.array() {
            [0] => false,
            [1] => true,
            [other] => panic!("a bool of {other}"),
        }
    }

    fn value(&mut self) -> Value {
        match u32::from_le_bytes(self.array()) {
            0 => Value::U8(u8::from_le_bytes(self.array())),
            1 => Value::U16(u16::from_le_bytes(self.array())),
            2 => Value::U32(u32::from_le_bytes(self.array())),
            3 => Value::U64(u64::from_le_bytes(self.array())),
            4 => Value::I16(i16::from_le_bytes(self.array())),
            5 => Value::I32(i32::from_le_bytes(self.array())),
            6 => Value::I64(i64::from_le_bytes(self.array())),
            7 => Value::Bool(self.bool()),
            8 => Value::F32(u32::from_le_bytes(self.array())),
            9 => Value::F64(u64::from_le_bytes(self.array())),
            10 => Value::Bytes(self.run().to_vec()),
            11 => Value::Str(String::from_utf8(self.run().to_vec()).unwrap()),
            12 => Value::Option(self.bool().then(|| u8::from_le_bytes(self.array()))),
            13 => Value::Seq((0..self.count()).map(|_| self.value()).collect()),
            14 => Value::Part(Box::new(self.value())),
            other => panic!("a tag of {other}"),
        }
    }
}

struct Values(Value);

impl Program for Values {
    const DOMAIN: &'static str = "fuzz";
    const SCHEMA: u32 = 7;
    type Canonical = Self;

    fn canonicalize(&self) -> Result<Self, Unkeyable> {
        Ok(Self(self.0.clone()))
    }
}

impl ToWire for Values {
    type Program = Self;

    fn write_body(&self, wire: &mut WireWriter) {
        write(wire, &self.0);
    }
}

/// Whatever is written is read back, and so no two programs have one wire; and the wire, its hash
/// and its parts are of one mind.
pub(crate) fn wire(data: &[u8]) {
    let values = Values(Value::Seq(Source(data).values(0)));
    let wire = values.to_wire();
    let header = b"pcwire\r\n".len() + 2 + 8 + "fuzz".len() + 4;
    let mut reader = Reader(&wire[header..]);
    assert_eq!(reader.value(), values.0);
    assert!(reader.0.is_empty());

    let fingerprint = values.fingerprint();
    assert_eq!(fingerprint.as_bytes(), blake3::hash(&wire).as_bytes());
    let parts = KeyParts::of(&values).unwrap();
    assert_eq!(parts.key(), fingerprint);
    let bytes: u64 = parts.parts().iter().map(|part| part.bytes()).sum();
    assert_eq!(bytes, wire.len() as u64);
    assert_eq!(parts.to_string().parse(), Ok(parts));
}

/// Any bytes are a frame or are not, within bounds; any payload comes back from its frame, and
/// from no other.
pub(crate) fn frame(data: &[u8]) {
    let keys = || Some(TrustedKeys::new(SharedSecret::new("secret")));
    let key = PipelineFingerprint::from_bytes([1; 32]);
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(artifact) = decode_frame(&key, &bytes, None, MAX_PAYLOAD) {
        assert!(artifact.len() as u64 <= MAX_PAYLOAD);
        assert!(decode_frame(&key, &bytes, keys(), MAX_PAYLOAD).is_err());
    }

    let artifact = Artifact::new(bytes);
    for keys in [None, keys()] {
        let frame = encode_frame(&key, &artifact, keys.clone()).unwrap();
        let decoded = decode_frame(&key, &frame, keys.clone(), u64::MAX);
        assert_eq!(decoded.unwrap(), artifact);
        let other = PipelineFingerprint::from_bytes([2; 32]);
        assert!(decode_frame(&other, &frame, keys.clone(), u64::MAX).is_err());
        // One bit of it, chosen by the input.
        let mut changed = frame.to_vec();
        let chosen = data.iter().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
        });
        let at = chosen % changed.len();
        changed[at] ^= 1 << (data.len() % 8);
        assert!(decode_frame(&key, &changed.into(), keys.clone(), u64::MAX).is_err());
        let cut = frame.slice(..at);
        assert!(decode_frame(&key, &cut, keys, u64::MAX).is_err());
    }
}

/// Any bytes are a module with one form, or have no key; the form is its own, and not much larger.
#[cfg(feature = "wasm")]
pub(crate) fn wasm(data: &[u8]) {
    use pipeline_cache::key::wasm::WasmModule;

    let module = WasmModule::new(data.to_vec());
    let Ok(canonical) = module.canonicalize() else {
        return;
    };
    let bytes = canonical.bytes();
    assert!(
        bytes.len() <= 8 * data.len(),
        "{} of {}",
        bytes.len(),
        data.len()
    );
    let again = WasmModule::new(bytes.clone()).canonicalize().unwrap();
    assert_eq!(again, canonical);
    let parts = KeyParts::of(&module).unwrap();
    assert_eq!(parts.key(), canonical.fingerprint());
}

/// Any text that is a shader has one valid form, or no key. (SPIR-V is not tried: its front end
/// panics on some of what is no module.)
#[cfg(feature = "naga")]
pub(crate) fn naga(data: &[u8]) {
    let text = std::str::from_utf8(data).ok();
    let module = text.and_then(|text| naga::front::wgsl::parse_str(text).ok());
    let Some(module) = module else { return };
    let Ok(canonical) = module.canonicalize() else {
        return;
    };
    canonical.info().unwrap();
    let again = canonical.module().canonicalize().unwrap();
    assert_eq!(again.to_wire(), canonical.to_wire());
    let parts = KeyParts::of(&module).unwrap();
    assert_eq!(parts.key(), canonical.fingerprint());
}
