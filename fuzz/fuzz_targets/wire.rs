#![no_main]

#[path = "../../tests/keys/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::wire(data));
