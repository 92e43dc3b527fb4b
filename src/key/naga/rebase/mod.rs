//! Statements by what they nest, and why a module is refused.

mod refusal;
mod statement;

pub(super) use refusal::{Rebased, Refusal};
pub(super) use statement::{Leaf, Shape, shape};
