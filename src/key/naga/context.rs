//! The function that a canonical function is made from.

use naga::valid::FunctionInfo;
use naga::{Function, Module};

use super::effects::Effects;
use super::flow::{Flow, Flows};
use super::items::Items;
use super::special::SpecialRoles;

/// What the values of a function are made from.
#[derive(Clone, Copy)]
pub(super) struct Context<'f> {
    pub(super) module: &'f Module,
    pub(super) items: &'f Items<'f>,
    pub(super) special: &'f SpecialRoles,
    /// Of the functions that come before this one, by their index in the source.
    pub(super) effects: &'f [Effects],
    pub(super) function: &'f Function,
    pub(super) flows: &'f Flows<'f>,
    pub(super) flow: Flow,
    pub(super) info: &'f FunctionInfo,
}
