//! What `key_report` says to whoever wonders why a program was compiled again.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn key_report(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let mut command = Command::new(profile.join("examples/key_report"));
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.code().unwrap(), text)
}

fn shader(name: &str, factor: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> data: array<u32>;
         fn {name}(x: u32) -> u32 {{ return x * {factor}; }}
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ data[id.x] = {name}(id.x); }}"
    )
}

#[test]
fn two_spellings_two_meanings_and_a_kept_key() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("a.wgsl"), shader("scaled", "3u")).unwrap();
    fs::write(at.join("b.wgsl"), shader("other", "0x3u")).unwrap();
    fs::write(at.join("c.wgsl"), shader("scaled", "4u")).unwrap();

    let (code, text) = key_report(at, &["a.wgsl"]);
    assert_eq!(code, 0, "{text}");
    for part in ["a.wgsl (WGSL)", "schema", "function 0", "entry point main"] {
        assert!(text.contains(part), "{text}");
    }
    let (code, text) = key_report(at, &["a.wgsl", "b.wgsl"]);
    assert_eq!((code, text.ends_with("one key\n")), (0, true), "{text}");
    let (code, text) = key_report(at, &["a.wgsl", "c.wgsl"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("  function 0 differs"), "{text}");

    // A key that was kept, against the same program in another scope.
    let scoped = |build| ["--compiler", build, "--target", "t", "--option", "O=1"];
    let (code, text) = key_report(at, &[&scoped("1")[..], &["--text", "a.wgsl"]].concat());
    assert_eq!(code, 0, "{text}");
    fs::write(at.join("kept.txt"), text).unwrap();
    let (code, text) = key_report(at, &[&scoped("1")[..], &["kept.txt", "b.wgsl"]].concat());
    assert_eq!(code, 0, "{text}");
    let (code, text) = key_report(at, &[&scoped("2")[..], &["kept.txt", "b.wgsl"]].concat());
    assert_eq!(code, 1, "{text}");
    assert!(
        text.ends_with("two keys:\n  scope: compiler differs\n"),
        "{text}"
    );
}

#[test]
fn every_format_has_a_key_or_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("module"), b"\0asm\x01\0\0\0").unwrap();
    fs::write(at.join("broken.wasm"), b"\0asm\x01\0\0\0x").unwrap();
    fs::write(at.join("broken.wgsl"), "fn main( {").unwrap();
    fs::write(at.join("broken.spv"), 0x0723_0203_u32.to_le_bytes()).unwrap();
    fs::write(at.join("code.ptx"), ".version 8.5").unwrap();

    let (code, text) = key_report(at, &["--json", "module", "code.ptx"]);
    assert_eq!(code, 1, "{text}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["files"][0]["format"], "WebAssembly");
    assert_eq!(report["files"][1]["format"], "opaque bytes");
    assert_eq!(report["differences"][0], "representation differs");

    for broken in ["broken.wasm", "broken.wgsl", "broken.spv", "missing"] {
        let (code, text) = key_report(at, &[broken]);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(broken), "{text}");
    }
}
