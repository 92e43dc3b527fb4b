//! Modules that people ship: 36 grammars of tree-sitter, written by emscripten, and esbuild, written
//! by Go. They come from npm, so this runs on request alone:
//!
//! ```sh
//! PIPELINE_CACHE_LONG_TESTS=1 cargo test --release --all-features --test keys wasm::real_modules -- --nocapture
//! ```

use super::support::{
    ast as wasm_ast, generate as wasm, shuffle as wasm_shuffle, tools as wasm_tools,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use pipeline_cache::key::wasm::WasmModule;
use pipeline_cache::{PipelineFingerprint, Program as _};
use wasm_ast::Ast;
use wasm_encoder::reencode::RoundtripReencoder;

const PACKAGES: [&str; 2] = ["tree-sitter-wasms@0.1.13", "esbuild-wasm@0.28.2"];

/// The modules of the packages, with their names; nothing if nobody has asked for them.
fn modules() -> Option<Vec<(String, Vec<u8>)>> {
    if std::env::var_os("PIPELINE_CACHE_LONG_TESTS").is_none() {
        println!("skipped: PIPELINE_CACHE_LONG_TESTS is not set");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm-modules");
    let packages = folder.join("node_modules");
    let esbuild = packages.join("esbuild-wasm/esbuild.wasm");
    let trees = packages.join("tree-sitter-wasms/out");
    if !(esbuild.exists() && trees.exists()) {
        std::fs::create_dir_all(&folder).unwrap();
        let status = Command::new("npm")
            .args(["install", "--ignore-scripts", "--no-save", "--prefix"])
            .arg(&folder)
            .args(PACKAGES)
            .status()
            .expect("npm is installed");
        assert!(status.success());
    }
    let trees = std::fs::read_dir(trees).unwrap();
    let mut paths: Vec<PathBuf> = trees.map(|entry| entry.unwrap().path()).collect();
    paths.push(esbuild);
    paths.sort();
    assert_eq!(paths.len(), 37);
    let module = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    };
    Some(paths.into_iter().map(module).collect())
}

fn canonical(bytes: &[u8]) -> Vec<u8> {
    let module = WasmModule::new(bytes.to_vec());
    module.canonicalize().unwrap().bytes().to_vec()
}

#[test]
fn real_modules_have_one_final_form() {
    for (name, module) in modules().into_iter().flatten() {
        let canonical = canonical(&module);
        assert_eq!(self::canonical(&canonical), canonical, "{name}");
        let again = Ast::read(&canonical).write(&mut RoundtripReencoder);
        assert!(again == canonical, "{name} is changed by another writer");
        let mut random = wasm::Random(7);
        let other = wasm_shuffle::shuffle(&module, &mut random);
        assert!(
            self::canonical(&other) == canonical,
            "{name}, in another order"
        );
    }
}

/// Of each tool: how many modules keep their key, and what is different in the others.
#[test]
fn real_modules_keep_their_key_through_other_tools() {
    let Some(modules) = modules() else { return };
    for tool in wasm_tools::TOOLS.iter().filter(|tool| tool.is_installed()) {
        let mut unified = 0;
        let mut causes = BTreeMap::<String, Vec<&str>>::new();
        for (name, module) in &modules {
            let cause = match tool.rewrite(module) {
                Ok(other) => {
                    let (one, two) = (canonical(module), canonical(&other));
                    Ast::read(&one).differences(&Ast::read(&two)).join(", ")
                }
                Err(error) => format!("not read: {error}"),
            };
            if cause.is_empty() {
                unified += 1;
            } else {
                causes.entry(cause).or_default().push(name);
            }
        }
        println!(
            "{:<44} {:>3} of {} unified",
            tool.name,
            unified,
            modules.len()
        );
        for (cause, modules) in &causes {
            println!("    {:>3} {cause}: {}", modules.len(), modules.join(" "));
        }
        // Nothing else is lost on the way than sections which the text does not have.
        if tool.name.starts_with("wabt") {
            for cause in causes.keys() {
                assert!(
                    cause.split(", ").all(|part| part.ends_with("lost")),
                    "{cause}"
                );
            }
        }
    }
}

/// The best of some runs of each. The speed of the parser's own validation stands beside it: to
/// validate is the larger part of the work, and how fast that is depends on the machine.
#[test]
fn real_modules_are_keyed_at_speed() {
    let best = |runs: usize, work: &dyn Fn()| {
        let times = (0..runs).map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        });
        times.fold(f64::INFINITY, f64::min)
    };
    println!(
        "{:<32} {:>8} {:>10} {:>10} {:>6}",
        "MB/s", "bytes", "key", "validate", "times"
    );
    let mut totals = [0.0; 3];
    for (name, module) in modules().into_iter().flatten() {
        let bytes = module.len();
        let runs = (40_000_000 / bytes).clamp(9, 400);
        let program = WasmModule::new(module);
        let key = best(runs, &|| {
            PipelineFingerprint::of(&program).unwrap();
        });
        let validation = best(runs, &|| {
            wasmparser::validate(program.bytes()).unwrap();
        });
        let speed = |time| bytes as f64 / 1e6 / time;
        println!(
            "{name:<32} {bytes:>8} {:>10.0} {:>10.0} {:>6.2}",
            speed(key),
            speed(validation),
            key / validation
        );
        for (total, part) in totals.iter_mut().zip([bytes as f64 / 1e6, key, validation]) {
            *total += part;
        }
    }
    let [megabytes, key, validation] = totals;
    println!(
        "all: {:.0} MB/s, validation {:.0}",
        megabytes / key,
        megabytes / validation
    );
}
