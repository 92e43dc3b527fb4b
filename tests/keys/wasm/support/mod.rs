//! Modules to test with, and what can be done with them. No promise is tested here.

pub(crate) mod ast;
pub(crate) mod generate;
pub(crate) mod shuffle;
pub(crate) mod tools;

use crate::random;
