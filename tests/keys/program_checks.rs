//! `check_program` passes what is sound and catches each way of breaking a key.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

#[cfg(feature = "naga")]
use naga::front::wgsl::parse_str;
#[cfg(feature = "naga")]
use pipeline_cache::key::naga::CanonicalModule;
#[cfg(feature = "wasm")]
use pipeline_cache::key::wasm::{self, WasmModule};
use pipeline_cache::testing::{ProgramError, ProgramFault, ProgramSamples, check_program};
use pipeline_cache::{OpaqueProgram, PipelineFingerprint, Program, ToWire, Unkeyable, WireWriter};

/// How one implementation breaks the promise.
type Vice = u8;
const SOUND: Vice = 0;
const LEAVES_OUT_A_FIELD: Vice = 1;
const WRITES_IN_HASH_ORDER: Vice = 2;
const FORGETS_THE_COUNT: Vice = 3;
const CHANGED_ITS_WIRE: Vice = 4;
const SORTS_EACH_TIME_ANOTHER_WAY: Vice = 5;
const LEAVES_THE_ORDER: Vice = 6;
const LEAVES_BYTES_OUT_OF_THE_KEY: Vice = 7;
const KNOWS_ITS_THREAD: Vice = 8;
const PANICS: Vice = 9;
const HAS_NO_KEY: Vice = 10;
const FORGETS_TAGS: Vice = 11;

/// A scale and a set of names.
#[derive(Debug, Clone, Default)]
struct Names<const VICE: Vice, const SCHEMA: u32 = 1> {
    names: Vec<String>,
    scale: u32,
    note: Option<String>,
    /// Whether this is a canonical form.
    canonical: bool,
}

impl<const VICE: Vice, const SCHEMA: u32> Program for Names<VICE, SCHEMA> {
    const DOMAIN: &'static str = "test/names";
    const SCHEMA: u32 = SCHEMA;
    type Canonical = Self;

    fn canonicalize(&self) -> Result<Self, Unkeyable> {
        let mut names = self.names.clone();
        match VICE {
            WRITES_IN_HASH_ORDER => {
                names = names
                    .into_iter()
                    .collect::<HashSet<_>>()
                    .into_iter()
                    .collect();
            }
            LEAVES_THE_ORDER => {}
            PANICS => panic!("on purpose"),
            HAS_NO_KEY => return Err(Unkeyable::new("on purpose")),
            _ => names.sort(),
        }
        if VICE == SORTS_EACH_TIME_ANOTHER_WAY && self.canonical {
            names.reverse();
        }
        Ok(Self {
            names,
            canonical: true,
            ..self.clone()
        })
    }
}

impl<const VICE: Vice, const SCHEMA: u32> ToWire for Names<VICE, SCHEMA> {
    type Program = Self;

    fn write_body(&self, wire: &mut WireWriter) {
        thread_local!(static CALLS: Cell<u32> = const { Cell::new(0) });
        if VICE == CHANGED_ITS_WIRE {
            wire.u8(0);
        }
        if VICE != LEAVES_OUT_A_FIELD {
            wire.u32(self.scale);
        }
        match (VICE, &self.note) {
            (FORGETS_TAGS, Some(note)) => wire.str(note),
            (FORGETS_TAGS, None) => {}
            (_, note) => wire.option(note.as_ref(), |wire, note| wire.str(note)),
        }
        if VICE == FORGETS_THE_COUNT {
            self.names.iter().for_each(|name| wire.str(name));
        } else {
            wire.seq(&self.names, |wire, name| wire.str(name));
        }
        if VICE == KNOWS_ITS_THREAD {
            CALLS.set(CALLS.get() + 1);
            wire.u32(CALLS.get());
        }
    }

    fn fingerprint(&self) -> PipelineFingerprint {
        let mut wire = self.to_wire();
        if VICE == LEAVES_BYTES_OUT_OF_THE_KEY {
            wire.pop();
        }
        PipelineFingerprint::from_bytes(*blake3::hash(&wire).as_bytes())
    }
}

/// Samples that show every vice: they differ in one thing each.
fn samples<const VICE: Vice, const SCHEMA: u32>() -> ProgramSamples<Names<VICE, SCHEMA>> {
    type Made<const VICE: Vice, const SCHEMA: u32> = Names<VICE, SCHEMA>;
    let of = |names: &'static str, scale: u32, note: Option<&'static str>| {
        move || Made {
            names: names.split_whitespace().map(Into::into).collect(),
            scale,
            note: note.map(Into::into),
            canonical: false,
        }
    };
    ProgramSamples::new(Names::clone)
        .program("none", of("", 1, None))
        .program("a", of("a", 1, None))
        .program("a and b", of("a b", 1, None))
        .program("a and b", of("b a", 1, None))
        .program("a and b, twice as large", of("a b", 2, None))
        .program("b", of("b", 1, None))
        .program("b, with a note", of("b", 1, Some("note")))
}

fn check<const VICE: Vice>() -> Result<(), ProgramError> {
    check_program(&samples::<VICE, 1>())
}

#[track_caller]
fn caught<const VICE: Vice>(fault: ProgramFault, sample: &str) {
    let error = check::<VICE>().expect_err("a broken program passed");
    assert_eq!(error.fault, fault, "{error}");
    assert_eq!(error.sample, sample, "{error}");
    assert_eq!(error.domain, "test/names");
    let text = error.to_string();
    for part in ["test/names", sample, &error.detail, &fault.advice()] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_sound_program_passes() {
    check::<SOUND>().unwrap();
}

#[test]
fn a_field_left_out_is_caught() {
    caught::<LEAVES_OUT_A_FIELD>(ProgramFault::SamplesCollide, "a and b, twice as large");
}

#[test]
fn the_order_of_a_hash_table_is_caught() {
    caught::<WRITES_IN_HASH_ORDER>(ProgramFault::NotDeterministic, "a and b");
}

#[test]
fn what_depends_on_the_thread_is_caught() {
    caught::<KNOWS_ITS_THREAD>(ProgramFault::NotDeterministic, "none");
}

#[test]
fn a_sequence_without_its_count_is_caught() {
    caught::<FORGETS_THE_COUNT>(ProgramFault::NotFramed, "a");
}

#[test]
fn a_choice_without_a_tag_is_caught() {
    let note = |text: Option<&'static str>, names: &'static [&'static str]| {
        move || Names::<FORGETS_TAGS> {
            names: names.iter().map(|&name| name.into()).collect(),
            note: text.map(Into::into),
            ..Names::default()
        }
    };
    // A note of no bytes looks like no names.
    let samples = ProgramSamples::new(Names::clone)
        .program("nothing", note(None, &[]))
        .program("an empty note", note(Some(""), &[]));
    let error = check_program(&samples).unwrap_err();
    assert_eq!(error.fault, ProgramFault::NotFramed, "{error}");
}

#[test]
fn spellings_with_two_keys_are_caught() {
    caught::<LEAVES_THE_ORDER>(ProgramFault::SpellingsDiffer, "a and b (spelling 2)");
}

#[test]
fn a_canonical_form_that_is_not_the_last_word_is_caught() {
    caught::<SORTS_EACH_TIME_ANOTHER_WAY>(ProgramFault::NotIdempotent, "a and b");
}

#[test]
fn a_key_that_leaves_out_bytes_of_the_wire_is_caught() {
    caught::<LEAVES_BYTES_OUT_OF_THE_KEY>(ProgramFault::KeyIsNotTheHashOfTheWire, "none");
}

#[test]
fn panics_and_samples_without_a_key_are_errors() {
    caught::<PANICS>(ProgramFault::Panicked, "none");
    caught::<HAS_NO_KEY>(ProgramFault::Unkeyable, "none");
    let nothing = ProgramSamples::<Names<SOUND>>::new(Names::clone);
    let error = check_program(&nothing).unwrap_err();
    assert_eq!(error.fault, ProgramFault::NoSamples);
}

#[test]
fn a_change_of_any_byte_of_a_wire_changes_the_key() {
    let program = Names::<SOUND> {
        names: vec!["a".to_owned(), "b".to_owned()],
        note: Some("note".to_owned()),
        ..Names::default()
    };
    let mut wire = program.to_wire();
    for at in 0..wire.len() {
        wire[at] ^= 1;
        let mutated = PipelineFingerprint::from_bytes(*blake3::hash(&wire).as_bytes());
        assert_ne!(mutated, program.fingerprint(), "byte {at}");
        wire[at] ^= 1;
    }
}

/// A golden file that a sound program of schema 2 wrote.
fn golden() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/names.keys");
    check_program(&samples::<SOUND, 2>().write_golden(&path)).unwrap();
    (folder, path)
}

#[test]
fn a_golden_file_is_written_on_purpose_only_and_holds_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.keys");
    let error = check_program(&samples::<SOUND, 2>().golden(&path)).unwrap_err();
    assert_eq!(error.fault, ProgramFault::GoldenFileIsOld);
    assert!(
        error.to_string().contains("PIPELINE_CACHE_WRITE_KEYS=1"),
        "{error}"
    );
    assert!(!path.exists());

    check_program(&samples::<SOUND, 2>().write_golden(&path)).unwrap();
    let written = fs::read_to_string(&path).unwrap();
    check_program(&samples::<SOUND, 2>().golden(&path)).unwrap();
    check_program(&samples::<SOUND, 2>().write_golden(&path)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), written);
}

#[test]
fn a_wire_that_changed_under_one_schema_fails_and_is_not_written_over() {
    let (_folder, path) = golden();
    let before = fs::read_to_string(&path).unwrap();
    for samples in [
        samples::<CHANGED_ITS_WIRE, 2>().golden(&path),
        samples::<CHANGED_ITS_WIRE, 2>().write_golden(&path),
    ] {
        let error = check_program(&samples).unwrap_err();
        assert_eq!(
            error.fault,
            ProgramFault::WireChangedWithoutSchema,
            "{error}"
        );
        assert_eq!(error.sample, "a", "{error}");
        assert!(
            error.to_string().contains("raise `Program::SCHEMA`"),
            "{error}"
        );
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
}

#[test]
fn a_new_schema_is_written_and_an_old_one_never() {
    let (_folder, path) = golden();
    let error = check_program(&samples::<CHANGED_ITS_WIRE, 3>().golden(&path)).unwrap_err();
    assert_eq!(error.fault, ProgramFault::GoldenFileIsOld, "{error}");
    check_program(&samples::<CHANGED_ITS_WIRE, 3>().write_golden(&path)).unwrap();
    check_program(&samples::<CHANGED_ITS_WIRE, 3>().golden(&path)).unwrap();
    for old in [
        samples::<SOUND, 2>().golden(&path),
        samples::<SOUND, 2>().write_golden(&path),
    ] {
        let error = check_program(&old).unwrap_err();
        assert_eq!(error.fault, ProgramFault::SchemaWentDown, "{error}");
    }
}

#[test]
fn samples_that_came_or_went_are_told() {
    let (_folder, path) = golden();
    let more = samples::<SOUND, 2>().program("new\nline", || Names {
        scale: 9,
        ..Names::default()
    });
    let error = check_program(&more.golden(&path)).unwrap_err();
    assert_eq!(error.fault, ProgramFault::GoldenFileIsOld);
    assert!(error.detail.contains("new\\nline"), "{error}");

    let fewer = ProgramSamples::new(Names::<SOUND, 2>::clone).program("none", || Names {
        scale: 1,
        ..Names::default()
    });
    let error = check_program(&fewer.golden(&path)).unwrap_err();
    assert_eq!(error.fault, ProgramFault::GoldenFileIsOld);
    assert!(error.detail.contains("any more"), "{error}");
}

#[test]
fn a_golden_file_that_is_none_is_an_error_and_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.keys");
    fs::write(&path, "somebody's notes").unwrap();
    let error = check_program(&samples::<SOUND, 2>().write_golden(&path)).unwrap_err();
    assert_eq!(error.fault, ProgramFault::GoldenFile, "{error}");
    assert!(error.to_string().contains("names.keys"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's notes");
}

#[test]
fn the_programs_of_the_crate_pass() {
    let opaque = |bytes: &'static str| move || OpaqueProgram::new("text", bytes);
    let samples = ProgramSamples::new(OpaqueProgram::clone)
        .program("empty", opaque(""))
        .program("a", opaque("a"))
        .program("ab", opaque("ab"));
    check_program(&samples).unwrap();

    #[cfg(feature = "naga")]
    check_program(&corpus("naga", "wgsl").into_iter().fold(
        ProgramSamples::new(|canonical: &CanonicalModule| canonical.module().clone()),
        |samples, (name, bytes)| {
            let text = String::from_utf8(bytes).unwrap();
            match parse_str(&text) {
                Ok(module) if PipelineFingerprint::of(&module).is_ok() => {
                    samples.program(name, move || parse_str(&text).unwrap())
                }
                // Not all of the corpus is valid.
                _ => samples,
            }
        },
    ))
    .unwrap();

    #[cfg(feature = "wasm")]
    check_program(&corpus("wasm", "wasm").into_iter().fold(
        ProgramSamples::new(|canonical: &wasm::CanonicalModule| {
            WasmModule::new(canonical.bytes().clone())
        }),
        |samples, (name, bytes)| match PipelineFingerprint::of(&WasmModule::new(bytes.clone())) {
            Ok(_) => samples.program(name, move || WasmModule::new(bytes.clone())),
            Err(_unkeyable) => samples,
        },
    ))
    .unwrap();
}

/// Real programs, by file name.
#[cfg(any(feature = "naga", feature = "wasm"))]
fn corpus(folder: &str, extension: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|is| is == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}
