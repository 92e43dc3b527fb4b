//! What `wasm_build` promises to whoever runs it, in a terminal or from a script.
#![cfg(feature = "wasmtime")]

mod build_passes;

use std::path::Path;

use serde_json::Value;

use build_passes::{Bench, PASSES, artifacts_name, counts, example, text};

const EXAMPLE: &str = "wasm_build";

/// The passes that follow those of every program.
const FUNCTIONS: [&str; 3] = [
    "functions kept",
    "one function changed",
    "changed, from disk",
];

/// Two functions that call each other and an imported one, each by its number.
const CALLS: &str = r#"
(module $calls
  (import "host" "log" (func $log (param i32)))
  (memory (export "memory") 1)
  (table (export "table") 2 funcref)
  (elem (i32.const 0) $even $odd)
  (func $even (export "even") (param $n i32) (result i32)
    (call $log (local.get $n))
    (if (result i32) (i32.eqz (local.get $n))
      (then (i32.const 1))
      (else (call $odd (i32.sub (local.get $n) (i32.const 1))))))
  (func $odd (export "odd") (param $n i32) (result i32)
    (if (result i32) (i32.eqz (local.get $n))
      (then (i32.const 0))
      (else (call $even (i32.sub (local.get $n) (i32.const 1))))))
  (data (i32.const 16) "data"))
"#;

const DOUBLE: &str = r#"
(module
  (func $double (export "double") (param f64) (result f64) local.get 0 local.get 0 f64.add))
"#;

/// The same as [`DOUBLE`], by another author.
const DOUBLE_RESPELLED: &str = r#"
(module $doubles
  (type $unused (func))
  (func $unused)
  (func $double (param $x f64) (result f64) (f64.add (local.get $x) (local.get $x)))
  (export "double" (func $double)))
"#;

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn bench(programs: &[(&str, &str)]) -> Bench {
    let programs: Vec<_> = programs
        .iter()
        .map(|(name, text)| (*name, wasm(text)))
        .collect();
    Bench::new(EXAMPLE, &programs)
}

#[test]
fn each_pass_is_served_by_the_tier_it_is_about() {
    let bench = bench(&[("calls.wasm", CALLS), ("deep/er/double.wasm", DOUBLE)]);
    bench.write("readme.md", "no program");
    let (output, json) = bench.json();

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(json["programs"], 2);
    let passes = json["passes"].as_array().unwrap();
    let names: Vec<_> = passes.iter().map(|pass| pass["name"].clone()).collect();
    assert_eq!(names, [&PASSES[..], &FUNCTIONS[..]].concat());
    assert_eq!(
        counts(&json)[..7],
        [
            [2, 2, 0, 0, 0],
            [2, 2, 0, 0, 0],
            [0, 0, 2, 0, 0],
            [2, 0, 2, 0, 0],
            [0, 0, 0, 2, 0],
            [2, 0, 0, 0, 2],
            [0, 0, 0, 0, 2]
        ]
    );
    for pass in passes {
        assert!(pass["median_us"].as_f64().unwrap() > 0.0);
        assert!(pass["speed_up"].as_f64().unwrap() > 0.0);
    }
    let promotion = &json["promotion"];
    assert_eq!(promotion["now_in_memory"], 2);
    assert_eq!(promotion["now_on_disk"], 2);
}

#[test]
fn two_spellings_of_one_module_share_an_artifact() {
    let bench = bench(&[("a.wasm", DOUBLE), ("b.wasm", DOUBLE_RESPELLED)]);
    let (output, json) = bench.json();

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(counts(&json)[1], [2, 1, 1, 0, 0]);
}

#[test]
fn the_table_and_the_artifacts_name_the_compiler_that_was_built_and_its_target() {
    let bench = bench(&[("double.wasm", DOUBLE)]);
    let output = bench.run(&["--keep"], &[&bench.programs()]);
    let lock = include_str!("../../Cargo.lock");
    let wasmtime = lock.split("name = \"wasmtime\"\nversion = \"").nth(1);
    let version = wasmtime.unwrap().split('"').next().unwrap();
    let compiler = format!("wasmtime {version}");

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stdout = text(&output.stdout);
    let arch = std::env::consts::ARCH;
    let title = stdout.lines().next().unwrap();
    let start = format!("1 program: WebAssembly to {arch}");
    assert!(title.starts_with(&start), "{title}");
    assert!(title.ends_with(&format!("by {compiler}")), "{title}");
    for pass in [&PASSES[..], &FUNCTIONS[..]].concat() {
        // One of counts and totals, one of where the time went.
        let row = format!("{pass}  ");
        let rows = stdout.lines().filter(|line| line.starts_with(&row));
        assert_eq!(rows.count(), 2, "{pass}: {stdout}");
    }
    assert!(artifacts_name(&bench, &compiler));
    assert!(artifacts_name(&bench, arch));
}

#[test]
fn of_a_module_with_one_function_changed_few_functions_are_compiled() {
    // Even constants: the one that changes becomes odd, and so is no other function's.
    let function = |number: u32| {
        let constant = 2 * number;
        format!(
            r#"(func (export "f{number}") (param i32) (result i32)
                 local.get 0 i32.const {constant} i32.mul)"#
        )
    };
    let functions: String = (0..50).map(function).collect();
    let bench = bench(&[("many.wasm", &format!("(module {functions})"))]);
    let (output, json) = bench.json();

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for pass in &counts(&json)[7..] {
        assert_eq!(*pass, [1, 1, 0, 0, 0]);
    }
    let output = bench.run(&[], &[&bench.programs()]);
    let stdout = text(&output.stdout);
    let note = "With one function of each module changed, ";
    let note = stdout.lines().find_map(|line| line.strip_prefix(note));
    let mut numbers = note.unwrap().split(' ');
    let hits: u64 = numbers.next().unwrap().parse().unwrap();
    let lookups: u64 = numbers.nth(1).unwrap().parse().unwrap();
    // wasmtime gives a function now and then another key than the last time.
    assert!(lookups > 50, "{stdout}");
    assert!((1..=3).contains(&(lookups - hits)), "{stdout}");
}

#[test]
fn invalid_modules_are_named_and_the_others_are_done() {
    let bench = bench(&[("double.wasm", DOUBLE), ("component.wasm", "(component)")]);
    bench.write("text.wasm", DOUBLE);
    // The type of the function says that it returns a number.
    let wrong = "(module (func (result i32) nop))";
    bench.write("wrong.wasm", wasm(wrong));
    bench.write("cut.wasm", &wasm(CALLS)[..40]);
    let (output, json) = bench.json();

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = text(&output.stderr);
    for (module, complaint) in [
        ("component.wasm", "not a WebAssembly module"),
        ("cut.wasm", "unexpected end"),
        ("text.wasm", "not a WebAssembly module"),
        ("wrong.wasm", "type mismatch"),
    ] {
        let line = stderr.lines().find(|line| line.contains(module)).unwrap();
        assert!(line.starts_with("error: "), "{stderr}");
        assert!(stderr.contains(complaint), "{complaint}: {stderr}");
    }
    assert!(stderr.contains("4 of 5 programs"), "{stderr}");
    assert_eq!(json["programs"], 1);
    assert_eq!(counts(&json)[1], [1, 1, 0, 0, 0]);
}

#[test]
fn a_module_is_found_by_the_name_of_its_package() {
    let bench = bench(&[
        ("node_modules/grammars/out/calls.wasm", CALLS),
        ("node_modules/sql.js/dist/sql-wasm.wasm", DOUBLE),
        ("node_modules/sql.js/dist/sql-wasm-debug.wasm", CALLS),
    ]);
    let names = ["grammars", "sql.js/dist/sql-wasm.wasm"].map(Path::new);
    let output = bench.run(&["--json"], &names);

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["programs"], 2);

    let output = bench.run(&[], &[Path::new("no-such-package")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("cannot read no-such-package"), "{stderr}");
    assert!(stderr.contains("node_modules"), "{stderr}");
}

#[test]
fn without_arguments_it_says_where_modules_are_and_is_exit_code_2() {
    let output = example(EXAMPLE).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("npm install"), "{output:?}");

    let help = example(EXAMPLE).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0), "{help:?}");
    let help = text(&help.stdout);
    for word in ["npm install", "--json", "Exit codes", "another machine"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(!help.contains("worker"), "{help}");
}
