#![no_main]

#[path = "../../tests/keys/fuzzed/naga.rs"]
mod naga;

libfuzzer_sys::fuzz_target!(|data: &[u8]| naga::check(data));
