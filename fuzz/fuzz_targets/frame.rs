#![no_main]

#[path = "../../tests/keys/fuzzed/frame.rs"]
mod frame;

libfuzzer_sys::fuzz_target!(|data: &[u8]| frame::check(data));
