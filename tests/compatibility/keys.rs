//! Keys: a release gives a program the key that the releases before gave it, or says that it does
//! not, by a higher schema or another version of the wire.

use bytes::Bytes;
use pipeline_cache::{
    CompileScope, OpaqueProgram, PipelineFingerprint, Program, ToWire as _, Unkeyable, WireWriter,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::versions;

/// A representation of one's own, with each kind of value that a wire can hold.
#[derive(Clone)]
pub(crate) struct Expression(pub(crate) Bytes);

impl Program for Expression {
    const DOMAIN: &'static str = "example.com/expression";
    const SCHEMA: u32 = 7;
    type Canonical = Self;

    fn canonicalize(&self) -> Result<Self, Unkeyable> {
        Ok(self.clone())
    }
}

impl pipeline_cache::ToWire for Expression {
    type Program = Self;

    fn write_body(&self, wire: &mut WireWriter) {
        wire.part("numbers", |wire| {
            wire.tag(3);
            wire.u8(0x12);
            wire.u16(0x1234);
            wire.u32(0x1234_5678);
            wire.u64(0x1234_5678_9abc_def0);
            wire.i16(-2);
            wire.i32(-3);
            wire.i64(-4);
            wire.bool(true);
            wire.f32(-0.0);
            wire.f64(f64::from_bits(0x7ff8_0000_0000_0001));
        });
        wire.str("a text");
        wire.bytes(&self.0);
        wire.option(Some("some"), WireWriter::str);
        wire.option(None, WireWriter::str);
        wire.seq(&["a", "bc", ""], |wire, item| wire.str(item));
    }
}

pub(crate) fn scope() -> CompileScope {
    CompileScope::new("compiler 1.2.3 (4f2a91c)", "x86_64-unknown-linux-gnu")
        .unwrap()
        .option("opt-level", "3")
        .option("debuginfo", "")
        .arguments(["-C", "link-arg=-s"])
        .environment("SOURCE_DATE_EPOCH", Some("1".to_owned()))
        .environment("HOME", None)
}

/// The key of a sample, and what it may change with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sample {
    wire: u16,
    schema: u32,
    domain: String,
    key: PipelineFingerprint,
}

/// The samples, by their names.
#[derive(Default)]
struct Samples(BTreeMap<String, Sample>);

impl Samples {
    /// The key of a program, bare and with a scope, if it has one.
    fn add<P: Program>(&mut self, name: &str, program: &P) {
        let Ok(canonical) = program.canonicalize() else {
            return;
        };
        let key = canonical.fingerprint();
        let wire = canonical.to_wire();
        assert_eq!(blake3::hash(&wire).as_bytes(), key.as_bytes(), "{name}");
        let sample = |key| Sample {
            wire: u16::from_le_bytes([wire[8], wire[9]]),
            schema: P::SCHEMA,
            domain: P::DOMAIN.to_owned(),
            key,
        };
        self.0.insert(name.to_owned(), sample(key));
        let scoped = sample(key.scoped(&scope()));
        self.0.insert(format!("{name}, scoped"), scoped);
    }

    fn of_this_release() -> Self {
        let mut samples = Self::default();
        samples.add("opaque", &OpaqueProgram::new("ptx", ".version 8.5\n"));
        samples.add("opaque, empty", &OpaqueProgram::new("", ""));
        samples.add("own", &Expression(Bytes::from_static(b"1 + 2")));
        #[cfg(feature = "naga")]
        for (name, bytes) in corpus("naga", "wgsl") {
            let text = String::from_utf8(bytes).unwrap();
            if let Ok(module) = naga::front::wgsl::parse_str(&text) {
                samples.add(&format!("naga {name}"), &module);
            }
        }
        #[cfg(feature = "wasm")]
        for (name, bytes) in corpus("wasm", "wasm") {
            use pipeline_cache::key::wasm::WasmModule;
            let module = WasmModule::new(bytes);
            if !name.starts_with("any-") {
                samples.add(&format!("wasm {name}"), &module);
                let without = module.ignoring_sections(["build_id", "later"]);
                samples.add(&format!("wasm {name}, less sections"), &without);
            }
        }
        samples
    }

    fn print(&self) -> String {
        let mut text = String::new();
        for (name, sample) in &self.0 {
            let Sample {
                wire,
                schema,
                domain,
                key,
            } = sample;
            let _ = writeln!(text, "{key}\t{wire}\t{schema}\t{domain}\t{name}");
        }
        text
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(|line| {
            let fields: Vec<_> = line.split('\t').collect();
            let [key, wire, schema, domain, name] = fields[..] else {
                panic!("{line}")
            };
            let sample = Sample {
                wire: wire.parse().unwrap(),
                schema: schema.parse().unwrap(),
                domain: domain.to_owned(),
                key: key.parse().unwrap(),
            };
            (name.to_owned(), sample)
        });
        Self(lines.collect())
    }
}

/// The programs that the tests of hostile input start from.
#[cfg(any(feature = "naga", feature = "wasm"))]
fn corpus(folder: &str, ending: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus/")
        .join(folder);
    let files = versions::tree(&folder).into_iter();
    let programs: BTreeMap<_, _> = files.filter(|(name, _)| name.ends_with(ending)).collect();
    assert!(programs.len() >= 10, "{}", folder.display());
    programs
}

#[cfg_attr(
    not(feature = "naga"),
    expect(dead_code, reason = "needs all features")
)]
pub(crate) fn write(folder: &Path) {
    fs::write(folder.join("keys.txt"), Samples::of_this_release().print()).unwrap();
}

/// Whoever has artifacts of an earlier release keeps them, or is told by a raised schema that they
/// are compiled anew.
#[test]
fn a_program_has_the_key_that_earlier_releases_gave_it() {
    let now = Samples::of_this_release().0;
    let domains: Vec<_> = now.values().map(|sample| sample.domain.clone()).collect();
    for version in versions::all() {
        let text = fs::read_to_string(version.join("keys.txt")).unwrap();
        let mut compared = 0;
        for (name, then) in Samples::parse(&text).0 {
            let place = format!("{}: {name}", version.display());
            // A feature that is off, or another major version of naga.
            if !domains.contains(&then.domain) {
                continue;
            }
            let now = now.get(&name).unwrap_or_else(|| panic!("{place} is gone"));
            assert!(now.schema >= then.schema, "{place}: the schema went down");
            assert!(
                now.wire >= then.wire,
                "{place}: the wire's version went down"
            );
            let is_told = (now.wire, now.schema) != (then.wire, then.schema);
            assert_eq!(
                now.key != then.key,
                is_told,
                "{place}: raise SCHEMA of {} where keys change, and only there",
                then.domain
            );
            compared += 1;
        }
        assert!(compared >= 6, "{}: {compared}", version.display());
    }
}
