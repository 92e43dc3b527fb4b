//! No input makes a key panic, take time out of proportion, or fill the memory.
//!
//! In a process of its own: memory is measured by an allocator that serves the whole process.
#![cfg(all(feature = "naga", feature = "testing", feature = "wasm"))]

mod fuzzed;

use std::path::Path;
use std::time::Duration;

use pipeline_cache::key::wasm::WasmModule;
use pipeline_cache::{
    Artifact, FrameError, PipelineFingerprint, Program, SharedSecret, TrustedKeys, Unkeyable,
};

/// Every file of a folder of inputs, and after each what a fuzzer would try first: cuts, and
/// single bytes that were changed.
fn for_each_input(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let input = std::fs::read(entry.unwrap().path()).unwrap();
        check(&input);
        let mut random = fastrand::Rng::with_seed(files);
        for _ in 0..20 {
            let at = random.usize(..=input.len());
            check(&input[..at]);
            let mut changed = input.clone();
            if let Some(byte) = changed.get_mut(at) {
                *byte = random.u8(..);
                check(&changed);
            }
        }
        files += 1;
    }
    assert!(files >= 10, "{}: {files} inputs", folder.display());
}

#[test]
fn wires() {
    for_each_input("wire", fuzzed::wire::check);
}

#[test]
fn frames() {
    for_each_input("frame", fuzzed::frame::check);
}

/// Seeds of another format than today's would exercise no more than the magic.
#[test]
fn the_seeds_of_frames_are_frames() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/frame");
    let key = PipelineFingerprint::from_bytes([1; 32]);
    let secret = TrustedKeys::new(SharedSecret::new("secret"));
    let mut with_parts = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let seed = std::fs::read(&path).unwrap().into();
        let decode = |keys| Artifact::from_frame(&key, &seed, keys, 1 << 20);
        match decode(None).or_else(|_| decode(Some(&secret))) {
            Ok(artifact) => with_parts += u32::from(artifact.has_parts()),
            Err(FrameError::UnknownCompression) if !cfg!(feature = "zstd") => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    assert!(with_parts >= 4, "{with_parts} seeds have parts");
}

#[test]
fn wasm_modules() {
    for_each_input("wasm", fuzzed::wasm::check);
}

#[test]
fn shaders() {
    for_each_input("naga", fuzzed::naga::check);
}

/// The time this thread has run, least of some tries: what else runs does not count.
fn time(mut work: impl FnMut()) -> Duration {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let tries = (0..3).map(|_| {
        let start = now();
        work();
        now() - start
    });
    tries.min().unwrap_or_default()
}

/// Holds programs of a kind to growing in proportion: eight times as much of a shape may take
/// little more than eight times the time and memory, where a square would be sixty-four.
fn grows_in_proportion<P: Program>(
    name: &str,
    size: u32,
    make: impl Fn(u32) -> P,
) -> Result<PipelineFingerprint, Unkeyable> {
    let measure = |size| {
        let program = make(size);
        let mut key = None;
        let time = time(|| key = Some(PipelineFingerprint::of(&program)));
        let memory = allocation_counter::measure(|| {
            let _ = PipelineFingerprint::of(&program);
        });
        (time, memory.bytes_max, key.unwrap())
    };
    let (small_time, small_memory, small_key) = measure(size);
    let (time, memory, key) = measure(size * 8);
    println!("{name:<30} {small_time:>10.1?} {time:>10.1?} {small_memory:>9} {memory:>9} bytes");
    assert_eq!(small_key.is_ok(), key.is_ok(), "{name}");
    let floor = Duration::from_micros(200);
    assert!(
        time < small_time.max(floor) * 24,
        "{name}: {small_time:?}, {time:?}"
    );
    assert!(
        memory < small_memory.max(20_000) * 16,
        "{name}: {small_memory}, {memory}"
    );
    key
}

/// Text for each number, joined.
fn each(size: u32, text: impl Fn(u32) -> String) -> String {
    (0..size).map(text).collect()
}

/// A name, a size to begin with, and the text of a module of any size.
type Shape = (&'static str, u32, fn(u32) -> String);

#[test]
fn a_wasm_module_takes_time_and_memory_in_proportion() {
    let shapes: [Shape; 14] = [
        ("a chain of calls", 500, |size| {
            let calls = each(size, |n| format!("(func call {})", n + 1));
            format!("(export \"f\" (func 0)) {calls} (func)")
        }),
        ("calls of all by one", 500, |size| {
            let calls = each(size, |n| format!("call {n} "));
            format!(
                "{} (func (export \"f\") {calls})",
                "(func)".repeat(size as usize)
            )
        }),
        ("a chain of globals", 500, |size| {
            let globals = each(size, |n| format!("(global i32 (global.get {n}))"));
            format!("(global i32 (i32.const 1)) {globals} (export \"g\" (global {size}))")
        }),
        ("types", 300, |size| {
            each(size, |n| {
                let bits = each(10, |bit| (["i32 ", "i64 "][(n >> bit & 1) as usize]).into());
                format!("(import \"\" \"{n}\" (func (param {bits})))")
            })
        }),
        ("a group of types", 500, |size| {
            let members = each(size, |n| {
                format!(
                    "(type $t{n} (struct (field (ref null $t{}))))",
                    (n + 1) % size
                )
            });
            format!("(rec {members}) (func (export \"f\") (param (ref null $t0)))")
        }),
        ("groups of types", 300, |size| {
            let groups = each(size, |n| {
                format!(
                    "(rec (type $a{n} (struct (field (ref null $b{n})))) (type $b{n} (array (ref null $a{n}))))"
                )
            });
            let last = size - 1;
            format!("{groups} (func (export \"f\") (param (ref null $a{last})))")
        }),
        ("nested blocks", 100, |size| {
            format!(
                "(func (export \"f\") {} {})",
                "block ".repeat(size as usize),
                "end ".repeat(size as usize)
            )
        }),
        ("runs of locals", 500, |size| {
            format!(
                "(func (export \"f\") {})",
                "(local i32) (local i64)".repeat(size as usize)
            )
        }),
        ("exports of one function", 1000, |size| {
            format!(
                "(func $f) {}",
                each(size, |n| format!("(export \"{n}\" (func $f))"))
            )
        }),
        ("custom sections", 1000, |size| {
            each(size, |n| {
                format!("(@custom \"dylink.{n}\" (after code) \"x\")")
            })
        }),
        ("segments", 1000, |size| {
            format!(
                "(memory 1) (table 1 funcref) (func $f) {}",
                each(size, |_| {
                    "(data (i32.const 0) \"x\") (elem (i32.const 0) $f)".into()
                })
            )
        }),
        ("a branch table", 1000, |size| {
            format!(
                "(func (export \"f\") (br_table {} (i32.const 0)))",
                "0 ".repeat(size as usize)
            )
        }),
        ("instructions", 2000, |size| {
            format!(
                "(func (export \"f\") {})",
                "i32.const 100 drop ".repeat(size as usize)
            )
        }),
        ("unreached functions", 1000, |size| {
            "(func)".repeat(size as usize)
        }),
    ];
    for (name, size, shape) in shapes {
        let module =
            |size| WasmModule::new(wat::parse_str(format!("(module {})", shape(size))).unwrap());
        grows_in_proportion(name, size, module).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

fn leb128(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Imports that share the name of their module are written out one by one in the canonical form.
/// A long name that many share would be many times the module.
#[test]
fn a_shared_name_does_not_multiply_a_module() {
    let mut imports = vec![1];
    leb128(90_000, &mut imports);
    imports.extend([b'm'; 90_000]);
    // An empty field and the kind 0x7e: of one type, which is given once.
    imports.extend([0, 0x7e, 0, 0]);
    leb128(20_000, &mut imports);
    for number in 0..20_000_u32 {
        imports.push(5);
        imports.extend(format!("{number:05}").into_bytes());
    }
    let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02".to_vec();
    leb128(imports.len(), &mut module);
    module.extend(imports);
    let length = module.len();

    let module = WasmModule::new(module);
    let mut key = None;
    let memory = allocation_counter::measure(|| key = Some(PipelineFingerprint::of(&module)));
    println!(
        "{} bytes for a module of {length}: {key:?}",
        memory.bytes_max
    );
    assert!(memory.bytes_max < 100 * length as u64);
}

#[test]
fn a_shader_takes_time_and_memory_in_proportion() {
    let main = |body: &str| format!("@compute @workgroup_size(1) fn main() {{ {body} }}");
    let data = "@group(0) @binding(0) var<storage, read_write> data: array<u32>;";
    type ShaderShape<'a> = (&'a str, u32, Box<dyn Fn(u32) -> String + 'a>);
    let shapes: Vec<ShaderShape<'_>> = vec![
        (
            "a chain of calls",
            40,
            Box::new(|size| {
                let calls = each(size, |n| {
                    format!("fn f{}() -> u32 {{ return f{n}(); }}", n + 1)
                });
                format!(
                    "{data} fn f0() -> u32 {{ return data[0]; }} {calls} {}",
                    main(&format!("data[0] = f{size}();"))
                )
            }),
        ),
        (
            "stores",
            200,
            Box::new(|size| {
                format!(
                    "{data} {}",
                    main(&each(size, |n| format!("data[{n}] = {n}u;")))
                )
            }),
        ),
        (
            "a chain of loads",
            200,
            Box::new(|size| {
                format!(
                    "{data} {}",
                    main(&each(size, |n| format!(
                        "data[{}] = data[{n}] + 1u;",
                        n + 1
                    )))
                )
            }),
        ),
        (
            "locals",
            100,
            Box::new(|size| {
                format!(
                    "{data} {}",
                    main(&each(size, |n| format!(
                        "var v{n} = data[{n}]; data[{n}] = v{n};"
                    )))
                )
            }),
        ),
        (
            "blocks and branches",
            60,
            Box::new(|size| {
                format!(
                    "{data} {}",
                    main(&each(size, |n| format!(
                        "if data[{n}] > 3u {{ data[{n}] = 1u; }} else {{ {{ data[0] = 2u; }} }}"
                    )))
                )
            }),
        ),
        (
            "loops",
            40,
            Box::new(|size| {
                format!(
                    "{data} {}",
                    main(&each(size, |n| format!(
                        "for (var i = 0u; i < {n}u; i++) {{ data[i] += i; }}"
                    )))
                )
            }),
        ),
        (
            "cases",
            100,
            Box::new(|size| {
                format!(
                    "{data} {}",
                    main(&format!(
                        "switch data[0] {{ {} default {{}} }}",
                        each(size, |n| format!("case {n}u {{ data[{n}] = 0u; }}"))
                    ))
                )
            }),
        ),
        (
            "resources",
            60,
            Box::new(|size| {
                let resources = each(size, |n| {
                    format!("@group(1) @binding({n}) var<storage, read_write> r{n}: u32;")
                });
                format!(
                    "{resources} {}",
                    main(&each(size, |n| format!("r{n} = {n}u;")))
                )
            }),
        ),
        (
            "structures",
            60,
            Box::new(|size| {
                let types = each(size, |n| {
                    format!("struct S{n} {{ a: u32, b: array<f32, {}> }}", n + 1)
                });
                let locals = each(size, |n| {
                    format!("var v{n}: S{n}; v{n}.a = data[0]; data[0] = v{n}.a;")
                });
                format!("{data} {types} {}", main(&locals))
            }),
        ),
        (
            "entry points",
            20,
            Box::new(|size| {
                let entries = each(size, |n| {
                    format!("@compute @workgroup_size(1) fn main{n}() {{ f({n}u); }}")
                });
                format!("{data} fn f(x: u32) {{ data[0] = x; }} {entries}")
            }),
        ),
        (
            "constants",
            100,
            Box::new(|size| {
                let constants = each(size, |n| format!("const C{n} = {n}u + 5u;"));
                format!(
                    "{data} {constants} {}",
                    main(&each(size, |n| format!("data[{n}] = C{n};")))
                )
            }),
        ),
        (
            "overrides",
            40,
            Box::new(|size| {
                let overrides = each(size, |n| format!("override O{}: u32 = O{n} + 1u;", n + 1));
                format!(
                    "{data} override O0: u32 = 1u; {overrides} {}",
                    main(&format!("data[0] = O{size};"))
                )
            }),
        ),
        (
            "a sum that shares",
            5,
            Box::new(|size| {
                // Each value is used twice: written out, the last would be of 2^40 terms.
                let lets = each(size, |n| format!("let s{} = s{n} * s{n};", n + 1));
                format!(
                    "{data} {}",
                    main(&format!("let s0 = data[0]; {lets} data[1] = s{size};"))
                )
            }),
        ),
        (
            "a table",
            100,
            Box::new(|size| {
                let items = each(size, |n| format!("{n}u,"));
                format!(
                    "{data} const T = array<u32, {size}>({items}); {}",
                    main("data[0] = T[data[1]];")
                )
            }),
        ),
    ];
    for (name, size, shape) in shapes {
        let module = |size| {
            let source = shape(size);
            naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)))
        };
        let key = grows_in_proportion(name, size, module);
        if let Err(why) = key {
            println!("  no key: {why}");
        }
    }
}

/// What branches share is computed before them: much of it in many branches is no form of many
/// times the module.
#[test]
fn branches_that_share_values_do_not_multiply_a_shader() {
    let shader = |size, step: &str| {
        let lets = each(size, |n| {
            let step = step.replace('x', &format!("s{n}"));
            format!("let s{} = {step};", n + 1)
        });
        let branches = each(size, |n| {
            format!("if data[{n}] == 0u {{ data[{n}] = s{size}; }}")
        });
        let source = format!(
            "@group(0) @binding(0) var<storage, read_write> data: array<u32>;
             @compute @workgroup_size(1) fn main() {{ let s0 = data[0]; {lets} {branches} }}"
        );
        naga::front::wgsl::parse_str(&source).unwrap()
    };
    // A division may not be done where the source does not come to it.
    for (step, is_shared) in [("x * x + 1u", true), ("x / (x + 1u)", false)] {
        assert!(PipelineFingerprint::of(&shader(30, step)).is_ok());
        let large = shader(600, step);
        let mut key = None;
        let memory = allocation_counter::measure(|| key = Some(PipelineFingerprint::of(&large)));
        println!("{} bytes: {key:?}", memory.bytes_max);
        assert_eq!(key.unwrap().is_ok(), is_shared, "{step}");
        assert!(memory.bytes_max < 30 << 20);
    }
}
