//! One construct copied from one module to another, with every reference translated.
//!
//! Each pattern names all variants and all fields, so that a new one upstream fails to compile
//! here instead of being carried over with a stale reference.

mod expression;
mod operands;
mod refusal;
mod statement;
mod target;

pub(super) use expression::expression;
pub(super) use operands::each_operand;
pub(super) use refusal::{Rebased, Refusal};
pub(super) use statement::{Shape, shape};
pub(super) use target::{Listing, Rebase};
