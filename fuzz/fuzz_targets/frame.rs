#![no_main]

#[path = "../../tests/hostile_programs/fuzzed/frame.rs"]
mod frame;

libfuzzer_sys::fuzz_target!(|data: &[u8]| frame::check(data));
