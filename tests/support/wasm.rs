//! Generated WebAssembly modules, their mutations, and an interpreter to compare them in.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::cell::RefCell;
use std::fmt::Write as _;

use wasmi::{Config, Engine, Extern, Linker, Module, Store, Val};

/// SplitMix64: the same modules in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
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
