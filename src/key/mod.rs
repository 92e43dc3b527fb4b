//! What names an artifact: programs, their canonical forms, the scope they are compiled in, and the
//! fingerprint of all that.

mod fingerprint;
mod opaque;
mod parts;
mod pass_through;
mod program;
mod scope;
mod wire;

#[cfg(feature = "naga")]
pub mod naga;
#[cfg(feature = "wasm")]
pub mod wasm;

pub use fingerprint::{ParseFingerprintError, PipelineFingerprint};
pub use opaque::OpaqueProgram;
pub use parts::KeyPart;
pub(crate) use pass_through::PassThrough;
pub use program::{Program, Unkeyable};
pub use scope::{CompileScope, CompileScopeError};
pub use wire::{ToWire, WireWriter};
pub(crate) use wire::{WIRE_VERSION, write_program};
