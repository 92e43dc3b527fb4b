#![no_main]

#[path = "../../tests/keys/fuzzed/wasm.rs"]
mod wasm;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wasm::check(data));
