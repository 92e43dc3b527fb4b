//! Shader modules.

mod fields;
mod meaning;
mod results;
mod shuffled;
mod speed;
pub(crate) mod support;
