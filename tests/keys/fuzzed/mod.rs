//! What must hold for every input whatever, here and under a fuzzer: no panic, and the promises of
//! keys and frames. The fuzz targets include one file each.

pub(crate) mod frame;
pub(crate) mod naga;
pub(crate) mod wasm;
pub(crate) mod wire;
