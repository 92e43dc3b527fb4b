//! Keys: programs that mean one thing share one, programs that do not never do.

mod fingerprints;
#[cfg(feature = "naga")]
mod naga;
#[cfg(feature = "testing")]
mod program_checks;
#[cfg(any(feature = "naga", feature = "wasm"))]
mod random;
#[cfg(feature = "wasm")]
mod wasm;
