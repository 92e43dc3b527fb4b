//! WebAssembly modules.

mod behaviour;
mod declarations;
mod meaning;
mod operators;
mod real_modules;
mod speed;
mod spellings;
pub(crate) mod support;
