//! WebAssembly modules that mean one thing share one key, and modules that do not never do.
//!
//! `PIPELINE_CACHE_WASM_ROUNDS` is the number of generated modules per test, 60 if it is not set.

use super::support::generate as support;
use pipeline_cache::key::wasm::{CanonicalModule, WasmModule};
use pipeline_cache::{PipelineFingerprint, Program as _, Unkeyable};
use support::{Random, any, rounds};
use wasmparser::{Validator, WasmFeatures};

fn binary(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn canonical(bytes: &[u8]) -> Result<CanonicalModule, Unkeyable> {
    WasmModule::new(bytes.to_vec()).canonicalize()
}

fn key(bytes: &[u8]) -> PipelineFingerprint {
    PipelineFingerprint::of(&WasmModule::new(bytes.to_vec())).unwrap()
}

/// The canonical module, held to all that it promises: valid, and its own canonical form.
fn sound(bytes: &[u8]) -> CanonicalModule {
    let canonical = canonical(bytes).unwrap();
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(canonical.bytes())
        .unwrap();
    assert_eq!(
        self::canonical(canonical.bytes()).unwrap(),
        canonical,
        "{bytes:?}"
    );
    canonical
}

fn with_custom(module: &str, sections: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = binary(module);
    for (name, data) in sections {
        bytes.push(0);
        bytes.push(u8::try_from(1 + name.len() + data.len()).unwrap());
        bytes.push(u8::try_from(name.len()).unwrap());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(data.as_bytes());
    }
    bytes
}

#[test]
fn spellings_of_one_module_share_a_key() {
    let pairs = [
        // Names, and declarations that nothing reaches.
        (
            "(module $a (func $f) (global $g i32 (i32.const 1)))",
            "(module)",
        ),
        (
            r#"(module (func (export "f") (param $x i32) (local $y i32)))"#,
            r#"(module (func (export "f") (param i32) (local i32)))"#,
        ),
        // A function that only an unreached one calls.
        (
            r#"(module (func) (func call 0) (func (export "f") nop))"#,
            r#"(module (func (export "f") nop))"#,
        ),
        // The order of functions.
        (
            r#"(module (func $a i32.const 1 drop) (func $b call $a) (export "b" (func $b)))"#,
            r#"(module (func $b call $a) (func $a i32.const 1 drop) (export "b" (func $b)))"#,
        ),
        // The order of globals, one of which depends on another.
        (
            r#"(module (global $a i32 (i32.const 1)) (global $b i32 (global.get $a))
                (func (export "f") (result i32) global.get $b))"#,
            r#"(module (global $x i64 (i64.const 9)) (global $a i32 (i32.const 1))
                (global $b i32 (global.get $a)) (func (export "f") (result i32) global.get $b))"#,
        ),
        (
            r#"(module (global $a i32 (i32.const 1)) (global $b i32 (i32.const 2))
                (func (export "f") (result i32) global.get $b global.get $a i32.sub))"#,
            r#"(module (global $b i32 (i32.const 2)) (global $a i32 (i32.const 1))
                (func (export "f") (result i32) global.get $b global.get $a i32.sub))"#,
        ),
        // Types: doubled, unused, in another order.
        (
            r#"(module (type (func (param i32))) (type $t (func)) (type $u (func))
                (func (export "f") (type $u)) (func (export "g") (type $t)))"#,
            r#"(module (type $t (func)) (func (export "f") (type $t)) (func (export "g") (type $t)))"#,
        ),
        (
            r#"(module (table 1 funcref) (type $t (func)) (type $u (func))
                (func (export "f") i32.const 0 call_indirect (type $u)))"#,
            r#"(module (table 1 funcref) (type $t (func))
                (func (export "f") i32.const 0 call_indirect (type $t)))"#,
        ),
        // Recursion groups as a whole.
        (
            r#"(module (rec (type $a (struct (field (ref null $b)))) (type $b (struct)))
                (rec (type $c (struct (field (ref null $d)))) (type $d (struct)))
                (func (export "f") (param (ref $c)) (result (ref $c)) local.get 0))"#,
            r#"(module (rec (type $a (struct (field (ref null $b)))) (type $b (struct)))
                (func (export "f") (param (ref $a)) (result (ref $a)) local.get 0))"#,
        ),
        // Block types.
        (
            r#"(module (type $t (func (result i32))) (type $e (func))
                (func (export "f") (result i32) block (type $e) end block (type $t) i32.const 1 end))"#,
            r#"(module (func (export "f") (result i32)
                block end block (result i32) i32.const 1 end))"#,
        ),
        // Runs of locals.
        (
            r#"(module (func (export "f") (local i32) (local i32 i32) (local f32)))"#,
            r#"(module (func (export "f") (local i32 i32 i32 f32)))"#,
        ),
        // Elements of table 0.
        (
            r#"(module (table 1 funcref) (func $f) (elem (table 0) (i32.const 0) func $f))"#,
            r#"(module (table 1 funcref) (func $f) (elem (i32.const 0) func $f))"#,
        ),
        // A function that an unreached global alone declares stays declared.
        (
            r#"(module (func $f) (global funcref (ref.func $f)) (func $u)
                (func (export "g") ref.func $f drop))"#,
            r#"(module (func $f) (global funcref (ref.func $f))
                (func (export "g") ref.func $f drop))"#,
        ),
        // Legacy exceptions keep their tags and labels.
        (
            r#"(module (tag $t) (func $unused) (func (export "f") nop))"#,
            r#"(module (tag $t) (func (export "f") nop))"#,
        ),
    ];
    for (one, two) in pairs {
        let (one, two) = (binary(one), binary(two));
        assert_eq!(sound(&one), sound(&two));
        assert_eq!(key(&one), key(&two));
    }
}

#[test]
fn what_a_host_or_an_instruction_can_tell_apart_has_two_keys() {
    let body = |code: &str| {
        format!(
            r#"(module (memory 1) (global $g (mut i32) (i32.const 0)) (table 2 funcref)
                (func $h (param i32 i32) (result i32) local.get 0)
                (func $k (param i32 i32) (result i32) local.get 1)
                (elem declare func $h $k)
                (func (export "f") (param i32 i32 f32 f32) {code}))"#
        )
    };
    let bodies = [
        ("i32.const 1 drop", "i32.const 2 drop"),
        ("f32.const 0 drop", "f32.const -0 drop"),
        ("f32.const nan drop", "f32.const nan:0x200000 drop"),
        ("f32.const nan:0x200001 drop", "f32.const nan:0x200000 drop"),
        ("f64.const 0 drop", "f64.const -0 drop"),
        ("i32.const 0 drop", "i64.const 0 drop"),
        ("i32.const -1 drop", "i32.const 127 drop"),
        ("nop", ""),
        ("block end", ""),
        ("block end", "loop end"),
        ("unreachable nop", "unreachable"),
        ("local.get 0 drop", ""),
        ("local.get 0 drop", "local.get 1 drop"),
        // Commuting and reordering.
        (
            "local.get 0 local.get 1 i32.add drop",
            "local.get 1 local.get 0 i32.add drop",
        ),
        (
            "local.get 2 local.get 3 f32.add drop",
            "local.get 3 local.get 2 f32.add drop",
        ),
        ("local.get 2 f32.const 0 f32.add drop", "local.get 2 drop"),
        (
            "local.get 0 local.get 1 i32.div_s drop",
            "local.get 0 local.get 1 i32.div_u drop",
        ),
        // Trapping operations whose value nobody uses.
        ("local.get 0 i32.load drop", ""),
        ("local.get 0 local.get 1 i32.div_u drop", ""),
        (
            "local.get 0 i32.load offset=4 drop",
            "local.get 0 i32.load offset=8 drop",
        ),
        (
            "local.get 0 i32.load align=1 drop",
            "local.get 0 i32.load align=4 drop",
        ),
        (
            "local.get 0 i32.load8_s drop",
            "local.get 0 i32.load8_u drop",
        ),
        (
            "local.get 0 local.get 1 i32.store local.get 0 i32.load drop",
            "local.get 0 i32.load drop local.get 0 local.get 1 i32.store",
        ),
        // Functions and globals behind numbers that have moved.
        (
            "local.get 0 local.get 1 call $h drop",
            "local.get 0 local.get 1 call $k drop",
        ),
        ("ref.func $h drop", "ref.func $k drop"),
        ("local.get 0 global.set $g", "local.get 0 drop"),
        ("i32.const 1 memory.grow drop", "memory.size drop"),
        (
            "local.get 0 local.get 1 local.get 0 select drop",
            "local.get 0 local.get 1 local.get 0 select (result i32) drop",
        ),
        (
            "i32.const 0 i32.const 0 i32.const 1 select drop",
            "i32.const 0 drop",
        ),
        // What the sign and the quiet bit of a NaN are.
        ("f32.const nan drop", "f32.const -nan drop"),
        ("f64.const nan:0x4000000000000 drop", "f64.const nan drop"),
        // Identities that do not hold for floats.
        ("local.get 2 f32.const 0 f32.mul drop", "f32.const 0 drop"),
        (
            "local.get 2 local.get 3 f32.min drop",
            "local.get 3 local.get 2 f32.min drop",
        ),
        (
            "local.get 2 local.get 3 f32.lt i32.eqz drop",
            "local.get 2 local.get 3 f32.ge drop",
        ),
        (
            "local.get 2 local.get 3 f32.lt drop",
            "local.get 3 local.get 2 f32.gt drop",
        ),
        (
            "local.get 0 local.get 1 i32.eq drop",
            "local.get 1 local.get 0 i32.eq drop",
        ),
        (
            "i32.const 0 i32.const 1 i32.atomic.rmw.add i32.const 0 i32.atomic.load i32.and drop",
            "i32.const 0 i32.atomic.load i32.const 0 i32.const 1 i32.atomic.rmw.add i32.and drop",
        ),
        ("atomic.fence", ""),
        // Further operations that may trap or cost, and whose value nobody uses.
        ("local.get 2 i32.trunc_f32_s drop", ""),
        ("local.get 0 table.get 0 drop", ""),
        ("i32.const 0 memory.grow drop", ""),
        ("memory.size drop", ""),
        ("global.get $g drop", ""),
        ("local.get 0 local.get 1 call $h drop", ""),
        ("loop end", ""),
        ("unreachable", "unreachable unreachable"),
        ("local.get 0 local.set 0", ""),
        ("i32.const 1 i32.const 1 i32.add drop", "i32.const 2 drop"),
        ("return", ""),
        ("block br 0 end", "block end"),
        // Vectors by their shape and their bits.
        (
            "i32.const 0 i32x4.splat drop",
            "i32.const 0 i16x8.splat drop",
        ),
        (
            "v128.const i32x4 0 0 0 0 drop",
            "v128.const i32x4 0 0 0 -2147483648 drop",
        ),
        // Block types: results, and parameters.
        (
            "block (result i32) i32.const 0 end drop",
            "i32.const 0 block (param i32) (result i32) end drop",
        ),
        (
            "block (result i32) unreachable end drop",
            "block (result i64) unreachable end drop",
        ),
        ("block block br 0 end end", "block block br 1 end end"),
        (
            "block block local.get 0 br_table 0 1 end end",
            "block block local.get 0 br_table 1 0 end end",
        ),
    ];
    for (one, two) in bodies {
        let (one, two) = (binary(&body(one)), binary(&body(two)));
        sound(&one);
        assert_ne!(key(&one), key(&two), "{one:?} {two:?}");
    }
    let modules = [
        // Imports and exports: there, their names, and their order.
        (r#"(module (import "a" "b" (func)))"#, "(module)"),
        (
            r#"(module (import "a" "b" (func)))"#,
            r#"(module (import "ab" "" (func)))"#,
        ),
        (
            r#"(module (import "a" "b" (func)) (import "a" "c" (func)))"#,
            r#"(module (import "a" "c" (func)) (import "a" "b" (func)))"#,
        ),
        (
            r#"(module (func $f) (export "a" (func $f)) (export "b" (func $f)))"#,
            r#"(module (func $f) (export "b" (func $f)) (export "a" (func $f)))"#,
        ),
        // Equal functions, whose references may be compared with what a host holds.
        (
            r#"(module (func $f) (export "a" (func $f)) (export "b" (func $f)))"#,
            r#"(module (func $f) (func $g) (export "a" (func $f)) (export "b" (func $g)))"#,
        ),
        // The start function, and a start function that does nothing.
        (r#"(module (func $f) (start $f))"#, "(module)"),
        // Segments: there, their order, their place, passive or active.
        (
            r#"(module (memory 1) (data (i32.const 0) "a") (data (i32.const 0) "b"))"#,
            r#"(module (memory 1) (data (i32.const 0) "b") (data (i32.const 0) "a"))"#,
        ),
        (
            r#"(module (memory 1) (data (i32.const 70000) ""))"#,
            r#"(module (memory 1))"#,
        ),
        (
            r#"(module (memory 1) (data (i32.const 0) "a"))"#,
            r#"(module (memory 1) (data "a"))"#,
        ),
        (
            r#"(module (table 2 funcref) (func $f) (func $g) (elem (i32.const 0) $f $g)
                (export "f" (func $f)) (export "g" (func $g)))"#,
            r#"(module (table 2 funcref) (func $f) (func $g) (elem (i32.const 0) $g $f)
                (export "f" (func $f)) (export "g" (func $g)))"#,
        ),
        (
            r#"(module (func $f nop) (func $g) (start $f))"#,
            r#"(module (func $f nop) (func $g) (start $g))"#,
        ),
        (
            r#"(module (memory 1) (data "a"))"#,
            r#"(module (memory 1) (data "b"))"#,
        ),
        (
            r#"(module (memory 1) (data "a") (data "b"))"#,
            r#"(module (memory 1) (data "ab"))"#,
        ),
        (
            r#"(module (memory 1) (memory 1) (data (memory 1) (i32.const 0) "a"))"#,
            r#"(module (memory 1) (memory 1) (data (memory 0) (i32.const 0) "a"))"#,
        ),
        // Functions that a segment alone reaches, whatever kind of segment.
        (
            r#"(module (func $f nop) (elem func $f))"#,
            r#"(module (func $f) (elem func $f))"#,
        ),
        (
            r#"(module (func $f) (elem func $f))"#,
            r#"(module (func $f) (elem declare func $f))"#,
        ),
        (
            r#"(module (func $f) (elem func $f))"#,
            r#"(module (func $f) (elem funcref (ref.func $f)))"#,
        ),
        // Runs of locals: how many of which type, in which order.
        (
            r#"(module (func (export "f") (local i32 i32 f32)))"#,
            r#"(module (func (export "f") (local i32 f32 f32)))"#,
        ),
        (
            r#"(module (func (export "f") (local i32 f32 i32)))"#,
            r#"(module (func (export "f") (local i32 i32 f32)))"#,
        ),
        (
            r#"(module (func (export "f") (local i32)))"#,
            r#"(module (func (export "f")))"#,
        ),
        // Parameters are not results, and their order counts.
        (
            r#"(module (func (export "f") (param i32 i64) unreachable))"#,
            r#"(module (func (export "f") (param i64 i32) unreachable))"#,
        ),
        (
            r#"(module (func (export "f") (param i32) unreachable))"#,
            r#"(module (func (export "f") (result i32) unreachable))"#,
        ),
        // Tags, and their types.
        ("(module (tag))", "(module)"),
        ("(module (tag))", "(module (tag (param i32)))"),
        // Names that would run together without their lengths.
        (
            r#"(module (func $f) (export "ab" (func $f)) (export "c" (func $f)))"#,
            r#"(module (func $f) (export "a" (func $f)) (export "bc" (func $f)))"#,
        ),
        // Imports that nothing uses.
        (
            r#"(module (import "a" "b" (global i32)))"#,
            r#"(module (import "a" "b" (global i64)))"#,
        ),
        // Memories, tables and globals as they are declared.
        ("(module (memory 1 (pagesize 1)))", "(module (memory 1))"),
        ("(module (memory 1 1))", "(module (memory 1 1 shared))"),
        ("(module (table 1 funcref))", "(module (table 1 2 funcref))"),
        (
            "(module (table 1 funcref))",
            "(module (table i64 1 funcref))",
        ),
        ("(module (table 1 funcref))", "(module)"),
        ("(module (memory 1))", "(module (memory 2))"),
        ("(module (memory 1))", "(module (memory 1 1))"),
        ("(module (memory 1))", "(module (memory i64 1))"),
        ("(module (memory 1))", "(module)"),
        ("(module (table 1 funcref))", "(module (table 1 externref))"),
        (
            r#"(module (global (export "g") i32 (i32.const 0)))"#,
            r#"(module (global (export "g") (mut i32) (i32.const 0)))"#,
        ),
        // A global whose initializer allocates is kept, although nothing reads it.
        (
            "(module (type $a (array i8)) (global (ref $a) (array.new_default $a (i32.const -1))))",
            "(module)",
        ),
        // Types that differ by finality, by group or by mutability.
        (
            r#"(module (type $t (sub (func))) (func (export "f") (type $t)))"#,
            r#"(module (type $t (func)) (func (export "f") (type $t)))"#,
        ),
        (
            r#"(module (rec (type $t (func)) (type (struct))) (func (export "f") (type $t)))"#,
            r#"(module (type $t (func)) (func (export "f") (type $t)))"#,
        ),
        (
            r#"(module (rec (type (struct)) (type $t (func))) (func (export "f") (type $t)))"#,
            r#"(module (rec (type $t (func)) (type (struct))) (func (export "f") (type $t)))"#,
        ),
        (
            r#"(module (type $s (struct (field i32))) (func (export "f") (param (ref $s))))"#,
            r#"(module (type $s (struct (field (mut i32)))) (func (export "f") (param (ref $s))))"#,
        ),
        // A call by type, through types that differ.
        (
            r#"(module (table 1 funcref) (type $t (func)) (type $u (sub (func)))
                (func (export "f") i32.const 0 call_indirect (type $u)))"#,
            r#"(module (table 1 funcref) (type $t (func)) (type $u (sub (func)))
                (func (export "f") i32.const 0 call_indirect (type $t)))"#,
        ),
    ];
    for (one, two) in modules {
        let (one, two) = (binary(one), binary(two));
        sound(&one);
        sound(&two);
        assert_ne!(key(&one), key(&two), "{one:?} {two:?}");
    }
}

#[test]
fn custom_sections_are_dropped_from_a_list_and_kept_otherwise() {
    let module = r#"(module (func) (func nop) (export "b" (func 1)))"#;
    let plain = key(&binary(module));
    for name in ["name", "producers", ".debug_info", ".debug_line"] {
        assert_eq!(key(&with_custom(module, &[(name, "\0")])), plain, "{name}");
    }
    for name in ["sourceMappingURL", "external_debug_info"] {
        assert_eq!(key(&with_custom(module, &[(name, "\0")])), plain, "{name}");
    }
    let kept = [
        "dylink.0",
        "target_features",
        "component-type:x",
        "linking",
        "reloc.CODE",
        "metadata.code.branch_hint",
        "name2",
        ".debug",
        "",
        "unknown",
    ];
    let mut keys: Vec<_> = kept
        .iter()
        .map(|name| {
            let one = with_custom(module, &[(name, "x")]);
            sound(&one);
            assert_ne!(key(&one), key(&with_custom(module, &[(name, "y")])));
            key(&one)
        })
        .collect();
    keys.push(plain);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), kept.len() + 1);
    // Order among those that are kept.
    let (a, b) = (("target_features", "x"), ("component-type", "y"));
    assert_ne!(
        key(&with_custom(module, &[a, b])),
        key(&with_custom(module, &[b, a]))
    );
    // What may hold indices or offsets pins what they point to, but for what is dropped.
    let (hint, name) = (("metadata.code.branch_hint", "x"), (".debug_line", "z"));
    let pinned = with_custom(module, &[hint]);
    assert_eq!(canonical(&pinned).unwrap().bytes()[..], pinned[..]);
    let named = with_custom(module, &[name, hint, name]);
    assert_eq!(canonical(&named).unwrap().bytes()[..], pinned[..]);
    // Relocations count sections, and what is not known may count bytes: all of them stay.
    for kept in ["reloc.CODE", "unknown"] {
        let file = with_custom(module, &[name, (kept, "x")]);
        assert_eq!(canonical(&file).unwrap().bytes()[..], file[..]);
    }
}

/// The numbers a linker leaves padded, in every place of a small module.
#[test]
fn padding_of_numbers_does_not_count() {
    let padded = [
        &b"\0asm\x01\0\0\0"[..],
        // One type, (i32) -> (i32), and a data count that nothing needs.
        b"\x01\x86\x80\x00\x01\x60\x01\x7f\x01\x7f",
        b"\x03\x86\x80\x80\x00\x81\x00\x80\x80\x80\x00",
        b"\x05\x04\x01\x00\x81\x00",
        b"\x07\x06\x01\x01f\x00\x80\x00",
        b"\x0c\x01\x00",
        // local.get 0, i32.const 1 and -1, i32.load, drop: all with padding.
        b"\x0a\x9b\x80\x00\x01\x97\x80\x00\x80\x00",
        b"\x20\x80\x00\x41\x81\x00\x6a\x41\xff\x7f\x6a",
        b"\x28\x82\x00\x84\x80\x00\x1a\x20\x00\x0b",
    ];
    let plain = binary(
        r#"(module (memory 1) (func (export "f") (param i32) (result i32)
            local.get 0 i32.const 1 i32.add i32.const -1 i32.add
            i32.load offset=4 drop local.get 0))"#,
    );
    let padded = padded.concat();
    wasmparser::validate(&padded).unwrap();
    assert_eq!(sound(&padded), sound(&plain));
    assert_eq!(canonical(&plain).unwrap().bytes()[..], plain[..]);
}

/// Segments in their long forms, and with padding in every number.
#[test]
fn padding_of_segments_does_not_count() {
    let padded = [
        &b"\0asm\x01\0\0\0\x05\x03\x01\x00\x01"[..],
        b"\x0b\x97\x00\x83\x00",
        b"\x00\x41\x88\x00\x0b\x01a",
        b"\x02\x00\x41\xf8\x7f\x0b\x01b",
        b"\x01\x82\x80\x00cd",
    ];
    let plain = binary(
        r#"(module (memory 1) (data (i32.const 8) "a") (data (i32.const -8) "b") (data "cd"))"#,
    );
    let padded = padded.concat();
    wasmparser::validate(&padded).unwrap();
    assert_eq!(sound(&padded), sound(&plain));
    assert_eq!(canonical(&plain).unwrap().bytes()[..], plain[..]);
}

/// A module so large that its bodies are shared out, of `0x41 0x01 0x1a` over and over.
fn large_module(wrong_bodies: &[usize]) -> Vec<u8> {
    use wasm_encoder::{CodeSection, ExportKind, ExportSection, FunctionSection, TypeSection};
    let (mut types, mut functions) = (TypeSection::new(), FunctionSection::new());
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    types.ty().function([], []);
    for number in 0..60_usize {
        functions.function(0);
        exports.export(&number.to_string(), ExportKind::Func, number as u32);
        let mut body = vec![0];
        body.extend([0x41, 0x01, 0x1a].repeat(10_000 + number));
        if wrong_bodies.contains(&number) {
            // A `drop` of nothing.
            body.push(0x1a);
        }
        body.push(0x0b);
        code.raw(&body);
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&types).section(&functions);
    module.section(&exports).section(&code);
    module.finish()
}

/// Bodies are validated by several threads: all of them, and with one outcome.
#[test]
fn large_modules_are_validated_whole_and_in_order() {
    let valid = large_module(&[]);
    assert_eq!(sound(&valid).bytes()[..], valid[..]);
    for wrong in [0, 1, 29, 58, 59] {
        let expected = canonical(&large_module(&[wrong])).unwrap_err();
        let offset = wasmparser::validate(&large_module(&[wrong]));
        let offset = offset.err().unwrap();
        assert!(
            expected.reason().contains(&offset.to_string()),
            "{expected}"
        );
        for later in [wrong, 40, 59] {
            let both = large_module(&[wrong, later.max(wrong)]);
            assert_eq!(canonical(&both).unwrap_err(), expected);
        }
    }
}

#[test]
fn what_has_no_key_says_why() {
    let reasons = [
        (binary("(component)"), "component"),
        (b"".to_vec(), "invalid"),
        (b"(module)".to_vec(), "invalid"),
        (binary("(module)")[..7].to_vec(), "invalid"),
        (binary("(module (func i32.add))"), "invalid"),
        (
            binary("(module (type $f (func)) (type (cont $f)))"),
            "stack switching",
        ),
    ];
    for (module, reason) in reasons {
        let error = canonical(&module).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// A change of these numbers is a change of `SCHEMA`, and a note in the change log.
#[test]
fn keys_do_not_change_by_accident() {
    let module = binary(
        r#"(module
            (import "host" "log" (func $log (param i32)))
            (memory (export "memory") 1)
            (global $count (mut i32) (i32.const 0))
            (table 1 funcref)
            (elem (i32.const 0) $step)
            (func $unused)
            (func $step (param i32) (result i32) (local i32) (local i32)
                local.get 0 call $log
                global.get $count i32.const 1 i32.add global.set $count
                block (result i32) local.get 0 i32.load offset=4 end)
            (func (export "run") (result i32)
                i32.const 0 i32.const 0 call_indirect (param i32) (result i32))
            (data (i32.const 8) "data"))"#,
    );
    assert_eq!(
        key(&module).to_hex(),
        "40769fc6137f958f36f90961de3228a4a502a6fdffd95c54a95c4bcf1f61bc5c"
    );
}

#[test]
fn canonical_forms_of_all_proposals_are_valid_and_final() {
    let mut keyed = 0;
    for seed in 0..rounds() * 5 {
        let module = any(&mut Random(seed));
        sound(&module);
        keyed += 1;
    }
    println!("{keyed} modules of all proposals");
}

/// No bytes make the rules panic, and what is keyed from them is sound.
#[test]
fn broken_modules_have_no_key_and_cause_no_panic() {
    let (mut tried, mut keyed) = (0, 0);
    for seed in 0..rounds() {
        let mut random = Random(seed);
        let module = any(&mut random);
        for _ in 0..20 {
            let mut broken = module.clone();
            if random.below(4) == 0 {
                broken.truncate(random.below(broken.len()));
            } else {
                for _ in 0..=random.below(3) {
                    let at = random.below(broken.len());
                    broken[at] = random.next() as u8;
                }
            }
            tried += 1;
            if canonical(&broken).is_ok() {
                sound(&broken);
                keyed += 1;
            }
        }
    }
    println!("{tried} broken modules, {keyed} of them valid all the same");
}

/// Chains as long as a module may be are walked without recursion.
#[test]
fn long_chains_do_not_exhaust_the_stack() {
    let mut text = String::from("(module (global $g0 i32 (i32.const 7))");
    for link in 1..20_000 {
        text += &format!("(global $g{link} i32 (global.get $g{}))", link - 1);
    }
    text += r#"(export "g" (global $g19999)))"#;
    sound(&binary(&text));
    let mut text = String::from("(module (type $t0 (func))");
    for link in 1..20_000 {
        text += &format!("(type $t{link} (func (param (ref $t{}))))", link - 1);
    }
    text += r#"(func (export "f") (type $t19999)))"#;
    sound(&binary(&text));
}

/// A build tool's own sections pin a module, unless whoever keys it says that they are nothing.
#[test]
fn custom_sections_that_the_caller_names_do_not_count() {
    let module = |id: &str, unused: &str| {
        let text = format!(
            r#"(module (@custom "__wasm_bindgen_unstable" "{id}") (@custom "build_id" "{id}")
                (func $named (export "f")) {unused})"#
        );
        WasmModule::new(wat::parse_str(text).unwrap())
    };
    let key = |module: &WasmModule| PipelineFingerprint::of(module).unwrap();
    let names = ["build_id", "__wasm_bindgen_unstable"];
    let ignoring = |module: WasmModule| module.ignoring_sections(names);
    let [one, two] = [module("a", ""), module("b", "(func $unused)")].map(ignoring);
    assert_eq!(key(&one), key(&two));
    let plain = WasmModule::new(wat::parse_str(r#"(module (func (export "f")))"#).unwrap());
    let canonical = one.canonicalize().unwrap();
    assert_eq!(canonical.bytes(), plain.canonicalize().unwrap().bytes());

    // Not to name one of them keeps all, and an unknown one pins the names of functions too.
    assert_ne!(key(&module("a", "")), key(&module("b", "")));
    assert_ne!(key(&module("a", "")), key(&module("a", "(func $unused)")));
    let one_name = |module: WasmModule| module.ignoring_sections(["build_id"]);
    let [one, two] = [module("a", ""), module("a", "(func $unused)")].map(one_name);
    assert_ne!(key(&one), key(&two));

    // What is ignored is part of the key, and its order and repetition are not.
    let settings: [&[&str]; 5] = [&[], &["a"], &["b"], &["a", "b"], &["ab"]];
    let keys: std::collections::BTreeSet<_> = settings
        .iter()
        .map(|names| key(&plain.clone().ignoring_sections(names.iter().copied())))
        .collect();
    assert_eq!(keys.len(), settings.len());
    let [one, two] = [&["a", "b"][..], &["b", "a", "b"]]
        .map(|names| key(&plain.clone().ignoring_sections(names.iter().copied())));
    assert_eq!(one, two);
}

/// A host provides every import, and meters count every local.
#[test]
fn unused_imports_and_locals_count() {
    let key = |fields: &str| {
        let text = format!(r#"(module {fields} (func (export "f") (local i32) i32.const 1 drop))"#);
        PipelineFingerprint::of(&WasmModule::new(wat::parse_str(text).unwrap())).unwrap()
    };
    assert_ne!(key(""), key(r#"(import "a" "b" (func))"#));
    let text = r#"(module (func (export "f") i32.const 1 drop))"#;
    let without = PipelineFingerprint::of(&WasmModule::new(wat::parse_str(text).unwrap()));
    assert_ne!(key(""), without.unwrap());
}
