//! The canonical module on the wire: every field of every construct that is left in it.
//!
//! The wire is a sequence of parts: how many items there are of each kind, types, constants,
//! overrides, variables, constant expressions, functions, entry points, diagnostic filters. A
//! part is two runs of bytes, each with its length: what the constructs in it [say](construct) of
//! themselves, one after the other, and what they refer to, by index, in the same order. An index
//! takes seven bits a byte. Apart, so that all that makes an expression one with others is one run
//! of bytes wherever it stands.
//!
//! The wire is written in two ways: part by part while a module is brought into its canonical
//! form, and as the copy of a module. Both give the same bytes, and the module that is compiled
//! is the one that is read back from them.

mod code;
mod construct;
mod items;
mod names;
mod reader;
mod sections;
mod tags;
mod target;
#[cfg(test)]
mod tests;

pub(super) use code::tag;
pub(super) use construct::Construct;
pub(super) use names::parts;
#[cfg(test)]
pub(super) use sections::write;
pub(super) use sections::{FunctionParts, Sections, read_back};
pub(super) use target::{Listing, Part, Target};

use naga::{Expression, Handle};

/// Names each operand of an expression, in the order in which it lists them.
#[inline]
pub(super) fn each_operand(expression: &Expression, mut see: impl FnMut(Handle<Expression>)) {
    expression.write(&mut Listing(|operand, _| see(operand)));
}
