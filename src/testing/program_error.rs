//! What the checks of a program find.

use std::fmt;

/// The environment variable that lets [`check_program`](super::check_program) write its golden
/// file: any value but an empty one or `0`.
pub const WRITE_KEYS_VARIABLE: &str = "PIPELINE_CACHE_WRITE_KEYS";

/// A promise of [`Program`](crate::Program) or [`ToWire`](crate::ToWire) that an implementation
/// does not keep.
///
/// `Display` says which program, what was seen, and what to do, and so does `Debug`, for an `unwrap` in a
/// test.
///
/// See [`check_program`](super::check_program) for an example.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{domain}, sample \"{sample}\": {fault}: {detail}; {}", fault.advice())]
pub struct ProgramError {
    /// The representation: [`Program::DOMAIN`](crate::Program::DOMAIN).
    pub domain: &'static str,
    /// The sample that shows the fault, or the file where the fault is of the file.
    pub sample: String,
    /// What is wrong.
    pub fault: ProgramFault,
    /// What was seen.
    pub detail: String,
}

impl fmt::Debug for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is wrong with an implementation of [`Program`](crate::Program), or with its samples.
///
/// ```
/// use pipeline_cache::OpaqueProgram;
/// use pipeline_cache::testing::{ProgramFault, ProgramSamples, check_program};
///
/// let spellings = ProgramSamples::new(OpaqueProgram::clone)
///     .program("a", || OpaqueProgram::new("text", "a"))
///     .program("a", || OpaqueProgram::new("text", " a"));
/// let error = check_program(&spellings).unwrap_err();
/// assert_eq!(error.fault, ProgramFault::SpellingsDiffer);
/// println!("{}: {}", error.fault, error.fault.advice());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProgramFault {
    /// There is nothing to check.
    NoSamples,
    /// A sample has no key.
    Unkeyable,
    /// The code of the program, or of a sample, panicked.
    Panicked,
    /// The same sample has another wire when it is made again.
    NotDeterministic,
    /// The key is not BLAKE3 of header and body.
    KeyIsNotTheHashOfTheWire,
    /// The canonical form of a canonical form is another one.
    NotIdempotent,
    /// Two spellings of one sample have two keys.
    SpellingsDiffer,
    /// Two samples that must differ share a key.
    SamplesCollide,
    /// The wire of one sample begins with the whole wire of another.
    NotFramed,
    /// A key is not the one in the golden file, and the schema is.
    WireChangedWithoutSchema,
    /// The golden file is of a later schema.
    SchemaWentDown,
    /// The golden file is not there, or is not of these samples, this schema or this version of
    /// the library's wire.
    GoldenFileIsOld,
    /// The golden file cannot be read, written or understood.
    GoldenFile,
}

impl ProgramFault {
    /// What to do about it.
    #[must_use]
    pub fn advice(self) -> String {
        let advice = match self {
            Self::NoSamples => "add samples with `ProgramSamples::program`",
            Self::Unkeyable => {
                "give samples that have a key, or teach `canonicalize` about this one"
            }
            Self::Panicked => "return `Unkeyable` from `canonicalize` for what it cannot handle",
            Self::NotDeterministic => {
                "write nothing that depends on addresses, time, thread or the order of a hash table: \
                 sort it in `canonicalize`"
            }
            Self::KeyIsNotTheHashOfTheWire => {
                "implement `write_body` alone, and leave `to_wire` and `fingerprint` as they are"
            }
            Self::NotIdempotent => "let `canonicalize` apply its rules until none applies any more",
            Self::SpellingsDiffer => {
                "let `canonicalize` remove the difference, or give the two samples two names"
            }
            Self::SamplesCollide => {
                "write every field that can change the artifact, each enum with a tag and each \
                 sequence with `WireWriter::seq`, or give the two samples one name"
            }
            Self::NotFramed => {
                "write sequences with `WireWriter::seq`, optional values with `WireWriter::option` \
                 and enums with a tag first"
            }
            Self::WireChangedWithoutSchema => {
                "undo the change of the wire, or raise `Program::SCHEMA` and write the file anew"
            }
            Self::SchemaWentDown => {
                "never lower `Program::SCHEMA`: keys of old artifacts would return"
            }
            Self::GoldenFileIsOld => {
                return format!("set {WRITE_KEYS_VARIABLE}=1 to write it, and commit the file");
            }
            Self::GoldenFile => "check the path, or delete the file and write it anew",
        };
        advice.to_owned()
    }
}

impl fmt::Display for ProgramFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSamples => "no samples",
            Self::Unkeyable => "a sample has no key",
            Self::Panicked => "it panicked",
            Self::NotDeterministic => "the wire is not deterministic",
            Self::KeyIsNotTheHashOfTheWire => "the key is not the hash of the whole wire",
            Self::NotIdempotent => "the canonical form is not canonical",
            Self::SpellingsDiffer => "two spellings of one program have two keys",
            Self::SamplesCollide => "two programs share a key",
            Self::NotFramed => "the wire is not framed",
            Self::WireChangedWithoutSchema => "the wire changed and the schema did not",
            Self::SchemaWentDown => "the schema went down",
            Self::GoldenFileIsOld => "the golden file is not of these samples",
            Self::GoldenFile => "the golden file cannot be used",
        })
    }
}
