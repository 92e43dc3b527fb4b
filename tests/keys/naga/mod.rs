//! Shader modules.

mod fields;
mod interface;
mod meaning;
mod neighbours;
mod results;
mod shuffled;
mod speed;
mod spirv;
mod stack;
pub(crate) mod support;
mod variables;
mod wrapped;
mod wrappers;
