//! Keys are stable across releases, and tell apart what must not be shared.

use pipeline_cache::{CompileScope, OpaqueProgram, PipelineFingerprint, ToWire};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every stored artifact hangs on these bytes. If this test fails, raise `SCHEMA`.
#[test]
fn golden_wire_and_fingerprints() {
    let program = OpaqueProgram::new("wgsl", "fn main() {}");
    assert_eq!(
        hex(&program.to_wire()),
        concat!(
            "7063776972650d0a", // magic
            "0100",             // wire version
            "1500000000000000",
            "706970656c696e652d63616368652f6f7061717565", // domain
            "01000000",                                   // schema
            "0400000000000000",
            "7767736c", // format
            "0c00000000000000",
            "666e206d61696e2829207b7d", // program
        )
    );

    let bare = PipelineFingerprint::of(&program).unwrap();
    assert_eq!(
        bare.to_hex(),
        "9a2779abb65939a7b213c5dee6e482e9c02a00ea1e3a2704190d4c467c73dbfe"
    );
    let scope = CompileScope::new("compiler 1", "target")
        .option("opt-level", "3")
        .arguments(["-g"])
        .environment("LANG", None);
    assert_eq!(
        bare.scoped(&scope).to_hex(),
        "ad2b7e2c3d69e08937e36b155ce3ac98246ac4a553e9aa59e6e6919c3360d50e"
    );
}

#[test]
fn a_fingerprint_is_the_hash_of_the_wire() {
    for length in [0, 1, 16 * 1024 - 100, 16 * 1024, 1_000_000] {
        let program = OpaqueProgram::new("x", vec![7; length]);
        assert_eq!(
            PipelineFingerprint::of(&program).unwrap().as_bytes(),
            blake3::hash(&program.to_wire()).as_bytes()
        );
    }
}

/// A scope is every one of its parts: what differs in one differs in the key.
#[test]
fn every_part_of_a_scope_counts() {
    let base = || CompileScope::new("cc 1", "x86_64");
    let scopes = [
        base(),
        CompileScope::new("cc 2", "x86_64"),
        CompileScope::new("cc 1", "aarch64"),
        CompileScope::new("cc 1x86_64", ""),
        base().option("O", "3"),
        base().option("O", "2"),
        base().option("O3", ""),
        base().option("O", "3").option("g", "1"),
        base().arguments(["O", "3"]),
        base().arguments(["3", "O"]),
        base().arguments(["O3"]),
        base().environment("O", Some("3".into())),
        base().environment("O", Some(String::new())),
        base().environment("O", None),
    ];
    let program = PipelineFingerprint::from_bytes([1; 32]);
    let mut keys: Vec<_> = scopes.iter().map(|scope| program.scoped(scope)).collect();
    keys.push(program);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), scopes.len() + 1);
}

#[test]
fn the_order_of_named_options_does_not_count() {
    let program = PipelineFingerprint::from_bytes([1; 32]);
    let one = CompileScope::new("cc", "t")
        .option("a", "1")
        .option("b", "2");
    let two = CompileScope::new("cc", "t")
        .option("b", "2")
        .option("a", "1");
    assert_eq!(program.scoped(&one), program.scoped(&two));
}

#[test]
fn only_the_one_spelling_of_a_fingerprint_is_read() {
    let fingerprint = PipelineFingerprint::from_bytes([0xab; 32]);
    let hex = fingerprint.to_string();
    assert_eq!(hex.parse(), Ok(fingerprint));
    let wrong = [
        String::new(),
        hex.to_uppercase(),
        hex[..63].to_owned(),
        format!("{hex}0"),
        format!(" {hex}"),
        "zz".repeat(32),
        "é".repeat(32),
    ];
    for text in wrong {
        assert!(text.parse::<PipelineFingerprint>().is_err(), "{text:?}");
    }
}
