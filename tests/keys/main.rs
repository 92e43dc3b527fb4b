//! Keys: programs that mean one thing share one, programs that do not never do.

mod fingerprints;
#[cfg(all(feature = "naga", feature = "testing", feature = "wasm"))]
mod fuzzed;
#[cfg(all(feature = "naga", feature = "testing", feature = "wasm"))]
mod hostile_programs;
#[cfg(feature = "naga")]
mod naga;
#[cfg(any(feature = "naga", feature = "wasm"))]
mod random;
#[cfg(feature = "wasm")]
mod wasm;
