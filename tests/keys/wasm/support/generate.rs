//! Generated WebAssembly modules, their mutations, and an interpreter to compare them in.

use std::cell::RefCell;
use std::fmt::Write as _;

use wasmi::{CompilationMode, Config, Engine, Extern, Linker, Module, Store, Val};

pub(crate) use super::random::Random;

/// How many modules to generate, in units of each test's own.
pub(crate) fn rounds() -> u64 {
    std::env::var("PIPELINE_CACHE_WASM_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(60)
}

/// A module of what the interpreter can run, which ends by itself or by its fuel.
pub(crate) fn runnable(random: &mut Random) -> Vec<u8> {
    let config = wasm_smith::Config {
        max_imports: 0,
        min_funcs: 1,
        max_funcs: 8,
        min_exports: 2,
        max_exports: 12,
        export_everything: random.below(3) == 0,
        max_instructions: 60,
        max_memory32_bytes: 1 << 18,
        max_table_elements: 100,
        canonicalize_nans: false,
        gc_enabled: false,
        exceptions_enabled: false,
        threads_enabled: false,
        compact_imports_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        simd_enabled: false,
        tail_call_enabled: true,
        wide_arithmetic_enabled: false,
        shared_everything_threads_enabled: false,
        ..wasm_smith::Config::default()
    };
    generate(config, random)
}

/// A module of everything that the generator knows and the rules do too.
pub(crate) fn any(random: &mut Random) -> Vec<u8> {
    let config = wasm_smith::Config {
        max_funcs: 12,
        max_types: 20,
        max_instructions: 80,
        max_memories: 3,
        max_tables: 3,
        custom_page_sizes_enabled: true,
        ..wasm_smith::Config::default()
    };
    generate(config, random)
}

fn generate(config: wasm_smith::Config, random: &mut Random) -> Vec<u8> {
    loop {
        let size = 200 + random.below(3000);
        let bytes = random.bytes(size);
        let mut input = arbitrary::Unstructured::new(&bytes);
        // Some bytes do not yield what the configuration asks for at the least.
        if let Ok(module) = wasm_smith::Module::new(config.clone(), &mut input) {
            return module.to_bytes();
        }
    }
}

/// Modules written by hand, which hold what the generators make too seldom.
pub(crate) const FIXTURES: &[&str] = &[
    "(module)",
    r#"(module (import "host" "log" (func $log (param i32)))
        (memory (export "memory") 1) (table 2 funcref) (elem (i32.const 0) $step $log)
        (global $count (mut i32) (i32.const 0)) (global $unused f64 (f64.const -0))
        (func $unused) (func $also call $unused)
        (func $step (param i32) (result i32) (local i32) (local i32)
            local.get 0 call $log global.get $count i32.const 1 i32.add global.set $count
            block (result i32) local.get 0 i32.load offset=4 end)
        (func (export "run") (result i32)
            i32.const 0 i32.const 0 call_indirect (param i32) (result i32))
        (data (i32.const 8) "data") (data (i32.const -1) ""))"#,
    // Structured control, and calls that need several tries to be numbered.
    r#"(module (func $even (param i32) (result i32)
            local.get 0 i32.eqz if (result i32) i32.const 1 else
                local.get 0 i32.const 1 i32.sub call $odd end)
        (func $odd (param i32) (result i32)
            local.get 0 i32.eqz if (result i32) i32.const 0 else
                local.get 0 i32.const 1 i32.sub call $even end)
        (func (export "sum") (param $n i32) (result i64) (local $sum i64) (local $at i32)
            block $done loop $next
                local.get $at local.get $n i32.ge_u br_if $done
                local.get $sum local.get $at i64.extend_i32_u i64.add local.set $sum
                local.get $at i32.const 1 i32.add local.tee $at
                br_table $next $next $done end end
            local.get $sum)
        (export "odd" (func $odd)))"#,
    // Bulk memory, and a body that needs the data count.
    r#"(module (memory 1 4) (table $t 4 8 funcref) (table $x (export "x") 2 externref)
        (func $f) (func $g (result i32) i32.const 7)
        (elem $e func $f $g) (elem declare func $f) (elem (table $t) (i32.const 1) func $g)
        (data $d "passive") (data (i32.const 3) "active")
        (func (export "f") (param i32 externref)
            i32.const 0 i32.const 0 i32.const 7 memory.init $d data.drop $d
            i32.const 0 i32.const 0 i32.const 2 table.init $t $e elem.drop $e
            i32.const 9 i32.const 0 i32.const 4 memory.copy
            i32.const 9 i32.const 255 i32.const 4 memory.fill
            i32.const 0 local.get 1 table.set $x
            ref.func $f ref.is_null drop i32.const 0 table.get $x drop
            local.get 1 i32.const 1 table.grow $x drop))"#,
    // Numbers of every kind at their edges.
    r#"(module (func (export "f") (result i32 i64 f32 f64)
            i32.const -2147483648 i64.const 9223372036854775807 f32.const nan:0x200001 f64.const -0)
        (func (export "g") (param f32 f64) (result i32 i64)
            local.get 0 i32.trunc_sat_f32_s local.get 1 i64.trunc_f64_u
            i64.extend8_s f64.convert_i64_s i64.trunc_sat_f64_u)
        (func (export "h") (param i32 i32) (result i32)
            local.get 0 local.get 1 local.get 0 select
            local.get 0 i32.popcnt local.get 1 i32.rotl i32.rem_s))"#,
    // Vectors.
    r#"(module (memory 1) (func (export "f") (param v128 v128) (result v128)
            local.get 0 local.get 1 i8x16.shuffle 0 17 2 19 4 21 6 23 8 25 10 27 12 29 14 31
            v128.const i32x4 1 2 3 4 i32x4.add
            i32.const 0 v128.load32_splat offset=8 align=1 f32x4.mul
            i32.const 0 local.get 0 v128.store8_lane 3 local.get 1 v128.xor))"#,
    // Several memories, of both widths; atomics; tail calls.
    r#"(module (memory $a 1) (memory $b i64 1 2) (memory $s 1 1 shared)
        (func $f (param i32) (result i32) local.get 0 return_call $g)
        (func $g (param i32) (result i32)
            local.get 0 i64.const 5 i32.load8_u $b offset=4294967296 i32.add
            i32.const 0 i32.const 1 i32.atomic.rmw.add $s i32.sub atomic.fence)
        (func (export "f") (param i32) (result i32) local.get 0 return_call $f))"#,
    // Exceptions, in both forms.
    r#"(module (type $t (func (param i32))) (tag $e (export "e") (type $t)) (tag $n)
        (func (export "new") (result i32)
            block $all block $h (result i32)
                try_table (catch $e $h) (catch_all $all) i32.const 3 throw $e end
                i32.const 4 end return end i32.const 5))"#,
    r#"(module (tag $e (param i32)) (tag $n)
        (func (export "old") (result i32)
            try (result i32) i32.const 3 throw $e catch $e i32.const 1 i32.add
                catch $n i32.const 5 catch_all rethrow 0 end
            try try nop delegate 0 catch_all end))"#,
    // Types that refer to each other, and everything of their kind.
    r#"(module
        (rec (type $list (sub (struct (field $next (ref null $list)) (field (mut i32)))))
             (type $visit (func (param (ref $list)))))
        (type $long (sub final $list
            (struct (field (ref null $list)) (field (mut i32)) (field i64))))
        (type $bytes (array (mut i8))) (type $unused (array (ref $bytes)))
        (global $g (export "g") (ref null $list) (ref.null none))
        (global $kept (ref $bytes) (array.new_default $bytes (i32.const 9)))
        (func $v (type $visit) local.get 0 struct.get $list 1 drop)
        (elem declare func $v) (data $d "bytes")
        (func (export "f") (param anyref) (result i32)
            block $no (result anyref)
                local.get 0 br_on_cast_fail $no anyref (ref $long) struct.get $list 1 return end
            ref.test (ref $bytes)
            ref.null none i64.const 2 i32.const 1 i64.const 3 drop drop drop drop
            ref.null $list ref.as_non_null ref.func $v call_ref $visit
            i32.const 0 i32.const 5 array.new_data $bytes $d array.len i32.add))"#,
];

thread_local! {
    static MUTATOR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The mutator says its name in the log alone.
struct Listener;

impl log::Log for Listener {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("wasm_mutate")
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        let mutator = text
            .strip_prefix("attempting to mutate with `")
            .and_then(|rest| rest.strip_suffix('`'));
        if let Some(mutator) = mutator {
            MUTATOR.with_borrow_mut(|name| mutator.clone_into(name));
        }
    }

    fn flush(&self) {}
}

/// Variants of a module, with the name of the mutator that made them.
pub(crate) fn mutations(
    module: &[u8],
    seed: u64,
    preserve_semantics: bool,
    at_most: usize,
) -> Vec<(String, Vec<u8>)> {
    let _ = log::set_logger(&Listener);
    log::set_max_level(log::LevelFilter::Debug);
    let mut mutate = wasm_mutate::WasmMutate::default();
    mutate
        .seed(seed)
        .preserve_semantics(preserve_semantics)
        .fuel(200);
    let Ok(variants) = mutate.run(module) else {
        return Vec::new();
    };
    let variants: Vec<_> = variants.take(at_most).map_while(Result::ok).collect();
    let mutator = MUTATOR.with_borrow(String::clone);
    variants
        .into_iter()
        // The mutator makes invalid modules now and then; those have no meaning to compare.
        .filter(|variant| wasmparser::validate(variant).is_ok())
        .map(|variant| (mutator.clone(), variant))
        .collect()
}

/// Everything that a host can see of a module when it calls each export with several inputs, or
/// nothing if the interpreter does not know the module's features.
pub(crate) fn behaviour(bytes: &[u8]) -> Option<String> {
    let mut config = Config::default();
    config.consume_fuel(true);
    // By the function as it is called, the translation would cost fuel by its bytes.
    config.compilation_mode(CompilationMode::Eager);
    config.wasm_custom_page_sizes(true);
    let engine = Engine::new(&config);
    let module = Module::new(&engine, bytes).ok()?;
    let mut seen = String::new();
    for seed in 0..3 {
        let mut store = Store::new(&engine, ());
        store.set_fuel(20_000).expect("fuel is switched on");
        let linker = Linker::new(&engine);
        let instance = match linker.instantiate_and_start(&mut store, &module) {
            Ok(instance) => instance,
            Err(error) => {
                // What follows is an address.
                let error = error.to_string();
                let error = error.split(": ").next().unwrap_or_default();
                writeln!(seen, "instantiation: {error}").expect("a text grows");
                continue;
            }
        };
        let mut random = Random(seed);
        let names: Vec<String> = module
            .exports()
            .map(|export| export.name().to_owned())
            .collect();
        for name in names {
            let Some(Extern::Func(function)) = instance.get_export(&store, &name) else {
                state(&mut seen, &instance, &store, &name);
                continue;
            };
            store.set_fuel(20_000).expect("fuel is switched on");
            let ty = function.ty(&store);
            let inputs: Vec<Val> = ty
                .params()
                .iter()
                .map(|&ty| input(ty, &mut random))
                .collect();
            let mut results: Vec<Val> = ty
                .results()
                .iter()
                .map(|&ty| Val::default_for_ty(ty))
                .collect();
            match function.call(&mut store, &inputs, &mut results) {
                Ok(()) => {
                    let results: Vec<String> = results.iter().map(value).collect();
                    writeln!(seen, "{name:?}: {results:?}").expect("a text grows");
                }
                Err(error) => writeln!(seen, "{name:?}: {error}").expect("a text grows"),
            }
        }
        for export in module.exports() {
            state(&mut seen, &instance, &store, export.name());
        }
    }
    Some(seen)
}

fn state(seen: &mut String, instance: &wasmi::Instance, store: &Store<()>, name: &str) {
    match instance.get_export(store, name) {
        Some(Extern::Memory(memory)) => {
            let hash = blake3::hash(memory.data(store));
            writeln!(seen, "{name:?}: memory {hash}").expect("a text grows");
        }
        Some(Extern::Global(global)) => {
            let value = value(&global.get(store));
            writeln!(seen, "{name:?}: global {value}").expect("a text grows");
        }
        Some(Extern::Table(table)) => {
            let size = table.size(store);
            let items: Vec<_> = (0..size.min(100))
                .map(|at| format!("{:?}", table.get(store, at).map(|item| item.is_null())))
                .collect();
            writeln!(seen, "{name:?}: table {size} {items:?}").expect("a text grows");
        }
        Some(Extern::Func(_)) | None => {}
    }
}

fn input(ty: wasmi::ValType, random: &mut Random) -> Val {
    let bits = match random.below(4) {
        0 => random.below(4) as u64,
        1 => u64::MAX - random.below(3) as u64,
        _ => random.next(),
    };
    match ty {
        wasmi::ValType::I32 => Val::I32(bits as i32),
        wasmi::ValType::I64 => Val::I64(bits as i64),
        wasmi::ValType::F32 => Val::F32(wasmi::F32::from_bits(bits as u32)),
        wasmi::ValType::F64 => Val::F64(wasmi::F64::from_bits(bits)),
        other => Val::default_for_ty(other),
    }
}

fn value(value: &Val) -> String {
    match value {
        Val::I32(value) => format!("i32 {value}"),
        Val::I64(value) => format!("i64 {value}"),
        Val::F32(value) => format!("f32 {:08x}", value.to_bits()),
        Val::F64(value) => format!("f64 {:016x}", value.to_bits()),
        Val::V128(value) => format!("v128 {:032x}", value.as_u128()),
        Val::FuncRef(reference) => format!("func null {}", reference.is_null()),
        Val::ExternRef(reference) => format!("extern null {}", reference.is_null()),
    }
}
