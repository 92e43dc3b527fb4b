//! Shader modules.

mod fields;
mod interface;
mod meaning;
mod results;
mod shuffled;
mod speed;
mod spirv;
mod stack;
pub(crate) mod support;
mod wrapped;
mod wrappers;
