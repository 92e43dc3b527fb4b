//! Shader modules.

mod fields;
mod meaning;
mod results;
mod shuffled;
mod speed;
mod stack;
pub(crate) mod support;
