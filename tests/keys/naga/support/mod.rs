//! Shaders to test with, and what can be done with them. No promise is tested here.

pub(crate) mod arithmetic;
pub(crate) mod entries;
pub(crate) mod evaluate;
pub(crate) mod generate;
pub(crate) mod grammar;
pub(crate) mod mutate;
pub(crate) mod parts;
pub(crate) mod shuffle;
pub(crate) mod spirv;
pub(crate) mod vello;
pub(crate) mod wrap;
pub(crate) mod writers;

use crate::random;
