//! Why did this miss? The part that differs is named.

use pipeline_cache::explain::{KeyParts, explain};
use pipeline_cache::{
    Artifact, CompileScope, DiskCache, InMemoryPipelineCache, OpaqueProgram,
    PipelineCacheStore as _, PipelineFingerprint, Program, ToWire, Unkeyable, WireWriter,
};

fn why(first: &KeyParts, second: &KeyParts) -> Vec<String> {
    explain(first, second)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A program of named functions, of schema `S`.
#[derive(Clone)]
struct Functions<const S: u32>(Vec<(&'static str, &'static str)>);

impl<const S: u32> Program for Functions<S> {
    const DOMAIN: &'static str = "test/functions";
    const SCHEMA: u32 = S;
    type Canonical = Self;

    fn canonicalize(&self) -> Result<Self, Unkeyable> {
        Ok(self.clone())
    }
}

impl<const S: u32> ToWire for Functions<S> {
    type Program = Self;

    fn write_body(&self, wire: &mut WireWriter) {
        wire.seq(&self.0, |wire, (name, body)| {
            wire.part(format_args!("function {name}"), |wire| {
                wire.str(name);
                wire.str(body);
            });
        });
    }
}

fn parts<P: Program>(program: &P) -> KeyParts {
    let parts = KeyParts::of(program).unwrap();
    assert_eq!(parts.key(), PipelineFingerprint::of(program).unwrap());
    parts
}

#[test]
fn the_differing_function_is_named() {
    let base = parts(&Functions::<1>(vec![("f", "x"), ("g", "y")]));
    let same = parts(&Functions::<1>(vec![("f", "x"), ("g", "y")]));
    assert!(why(&base, &same).is_empty());
    let other = parts(&Functions::<1>(vec![("f", "x"), ("g", "z")]));
    assert_eq!(why(&base, &other), ["function g differs"]);
    let fewer = parts(&Functions::<1>(vec![("f", "x")]));
    let differences = why(&base, &fewer);
    assert!(differences.contains(&"function g is only in the first".to_owned()));
    assert!(why(&fewer, &base).contains(&"function g is only in the second".to_owned()));
    // Of two of one name, the second.
    let twice = parts(&Functions::<1>(vec![("f", "x"), ("f", "y")]));
    let twice_other = parts(&Functions::<1>(vec![("f", "x"), ("f", "z")]));
    assert_eq!(why(&twice, &twice_other), ["function f differs"]);
}

#[test]
fn the_schema_and_the_representation_are_parts() {
    let old = parts(&Functions::<1>(vec![("f", "x")]));
    let new = parts(&Functions::<2>(vec![("f", "x")]));
    assert_eq!(why(&old, &new), ["schema differs"]);
    let opaque = parts(&OpaqueProgram::new("f", "x"));
    assert_eq!(why(&old, &opaque)[0], "representation differs");
}

#[test]
fn every_field_of_the_scope_is_named() {
    let program = parts(&OpaqueProgram::new("ast", "a"));
    let scope = || {
        CompileScope::new("cc 1", "x86_64")
            .unwrap()
            .option("O", "2")
            .arguments(["-g"])
            .environment("LANG", None)
    };
    let of = |scope: &CompileScope| {
        let scoped = program.clone().scoped(scope);
        assert_eq!(scoped.key(), program.key().scoped(scope));
        scoped
    };
    let base = of(&scope());
    assert!(why(&base, &of(&scope())).is_empty());
    let fields = [
        (scope().option("O", "3"), "scope: option O differs"),
        (scope().arguments(["-x"]), "scope: arguments differs"),
        (
            scope().environment("LANG", Some("C".into())),
            "scope: environment LANG differs",
        ),
        (
            scope().option("new", "1"),
            "scope: option new is only in the second",
        ),
    ];
    for (other, expected) in fields {
        let differences = why(&base, &of(&other));
        assert!(
            differences.contains(&expected.to_owned()),
            "{differences:?}"
        );
    }
    let other = CompileScope::new("cc 2", "arm")
        .unwrap()
        .option("O", "2")
        .arguments(["-g"]);
    let differences = why(&base, &of(&other.environment("LANG", None)));
    assert_eq!(
        differences,
        ["scope: compiler differs", "scope: target differs"]
    );
    // A bare key against a scoped one.
    assert!(!why(&program, &base).is_empty());
}

/// Two lists of parts are explained away exactly when they are those of one key.
#[test]
fn differences_and_keys_agree() {
    let bodies = ["", "x", "y"];
    let mut all = Vec::new();
    for f in bodies {
        for g in bodies {
            all.push(parts(&Functions::<1>(vec![("f", f), ("g", g)])));
            all.push(parts(&Functions::<1>(vec![("f", f), ("f", g)])));
            all.push(parts(&Functions::<1>(vec![("g", g), ("f", f)])));
            all.push(
                parts(&Functions::<1>(vec![("f", f)]))
                    .scoped(&CompileScope::new(format!("cc {f}"), format!("target {g}")).unwrap()),
            );
        }
    }
    for first in &all {
        for second in &all {
            assert_eq!(first.key() == second.key(), why(first, second).is_empty());
        }
    }
}

#[test]
fn another_order_is_a_difference() {
    let one = parts(&Functions::<1>(vec![("f", "x"), ("g", "y")]));
    let two = parts(&Functions::<1>(vec![("g", "y"), ("f", "x")]));
    assert_eq!(why(&one, &two), ["the order of the parts differs"]);
}

#[tokio::test]
async fn a_stored_key_is_explained_from_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let scope = |level: &str| {
        CompileScope::new("cc 1", "x86_64")
            .unwrap()
            .option("O", level)
    };
    let program = OpaqueProgram::new("ast", "a");
    let stored = {
        let disk = DiskCache::new(folder.path()).await.unwrap();
        let parts = parts(&program).scoped(&scope("2"));
        disk.put(&parts.key(), Artifact::new("code")).await.unwrap();
        parts.keep(&disk).await.unwrap();
        parts.key()
    };
    let disk = DiskCache::new(folder.path()).await.unwrap();
    let now = parts(&program).scoped(&scope("3"));
    let kept = KeyParts::kept(&disk, &stored).await.unwrap().unwrap();
    assert_eq!(kept.key(), stored);
    assert_eq!(why(&kept, &now), ["scope: option O differs"]);
    assert_eq!(KeyParts::kept(&disk, &now.key()).await.unwrap(), None);
}

#[tokio::test]
async fn kept_parts_of_another_key_are_not_believed() {
    let store = InMemoryPipelineCache::new();
    let one = parts(&OpaqueProgram::new("ast", "a"));
    one.keep(&store).await.unwrap();
    let two = parts(&OpaqueProgram::new("ast", "b"));
    two.keep(&store).await.unwrap();
    assert_eq!(KeyParts::kept(&store, &one.key()).await.unwrap(), Some(one));
    assert_eq!(KeyParts::kept(&store, &two.key()).await.unwrap(), Some(two));
}

#[test]
fn parts_as_text_are_read_back_whatever_their_names() {
    let name = "a\nb\u{7}\u{202e} \\ \"é";
    let scope = CompileScope::new("cc", "t")
        .unwrap()
        .option(name, "1")
        .option("", "");
    let parts = parts(&OpaqueProgram::new("ast", "a")).scoped(&scope);
    let text = parts.to_string();
    assert_eq!(text.parse(), Ok(parts.clone()));
    assert_eq!(text.lines().count(), 2 + parts.parts().len());
    let wrong = [
        String::new(),
        text.replacen("parts 1", "parts 2", 1),
        text.replacen('\n', "\nx", 1),
        format!("{text}x"),
        text.replacen("schema", "sch\u{1b}ema", 1),
        format!("{text}\n"),
        text.to_uppercase(),
    ];
    for text in wrong {
        assert!(text.parse::<KeyParts>().is_err(), "{text:?}");
    }
}

#[cfg(feature = "naga")]
#[test]
fn the_differing_part_of_a_shader_is_named() {
    let shader = |scale: &str, main: &str, binding: u32| {
        let source = format!(
            "override gain: f32 = 1.0;
             @group(0) @binding({binding}) var<storage, read_write> data: array<f32>;
             fn scaled(x: f32) -> f32 {{ return x * {scale} * gain; }}
             @compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                 data[id.x] = scaled(data[id.x]){main};
             }}"
        );
        parts(&naga::front::wgsl::parse_str(&source).unwrap())
    };
    let base = shader("2.0", "", 0);
    assert_eq!(why(&base, &shader("2.0", "/* x */", 0)), [""; 0]);
    let differences = why(&base, &shader("3.0", "", 0));
    assert!(
        differences.contains(&"function 0 differs".to_owned()),
        "{differences:?}"
    );
    assert!(
        !differences.iter().any(|part| part.contains("main")),
        "{differences:?}"
    );
    let differences = why(&base, &shader("2.0", " + 1.0", 0));
    assert_eq!(differences, ["entry point main (Compute) differs"]);
    let differences = why(&base, &shader("2.0", "", 7));
    assert_eq!(
        differences,
        [
            "resource @group(0) @binding(0) is only in the first",
            "resource @group(0) @binding(7) is only in the second"
        ]
    );
    assert!(
        base.parts()
            .iter()
            .any(|part| part.name() == "override gain")
    );
}

#[cfg(feature = "wasm")]
#[test]
fn the_differing_part_of_a_wasm_module_is_named() {
    use pipeline_cache::key::wasm::WasmModule;

    let module = |body: &str, text: &str| {
        let source = format!(
            "(module
               (import \"env\" \"log\" (func $log (param i32)))
               (memory 1) (export \"memory\" (memory 0))
               (func $helper (result i32) i32.const {body})
               (func (export \"run\") call $helper call $log)
               (data (i32.const 0) \"{text}\"))"
        );
        parts(&WasmModule::new(wat::parse_str(source).unwrap()))
    };
    let base = module("1", "abc");
    assert_eq!(why(&base, &module("1", "abc")), [""; 0]);
    assert_eq!(why(&base, &module("2", "abc")), ["function 2 differs"]);
    assert_eq!(why(&base, &module("1", "abd")), ["data segment 0 differs"]);
    let names: Vec<_> = base.parts().iter().map(|part| part.name()).collect();
    assert!(names.contains(&"function 1, exported as run"), "{names:?}");
    assert!(names.contains(&"imports"), "{names:?}");
}
