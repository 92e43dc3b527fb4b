#![no_main]

#[path = "../../tests/hostile_programs/fuzzed/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire::check(data));
