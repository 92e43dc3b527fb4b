//! Memory that serves one module after the other.

use std::cell::Cell;

use super::function::Draft;
use super::nodes::Nodes;
use super::placer::Entry;
use super::shared::Shared;
use super::uses::Uses;
use super::values::{Value, Values};
use super::wire::Sections;

/// More values than this are not kept room for.
const MOST_VALUES: usize = 1 << 14;
/// A longer wire is not kept room for.
const MOST_BYTES: usize = 1 << 20;

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// What a module's canonical form is made with.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) items: Nodes,
    pub(super) sections: Sections,
    pub(super) function: FunctionScratch,
}

/// What a function's canonical form is made with.
#[derive(Default)]
pub(super) struct FunctionScratch {
    pub(super) values: Values,
    pub(super) draft: Draft,
    pub(super) shared: Shared,
    pub(super) needed: Uses,
    pub(super) compared: Uses,
    pub(super) journal: Vec<Entry>,
    pub(super) pending: Vec<Value>,
}

/// Runs `work` with the memory that the last module on this thread has left.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    // A thread that ends has none any more.
    let kept = SCRATCH.try_with(Cell::take).ok().flatten();
    let mut scratch = kept.unwrap_or_default();
    let result = work(&mut scratch);
    let Scratch {
        items,
        sections,
        function,
    } = &*scratch;
    let values = items.capacity().max(function.draft.marks.capacity());
    let bytes = sections.capacity().max(function.draft.parts.capacity());
    if values <= MOST_VALUES && bytes <= MOST_BYTES {
        // As above.
        let _ = SCRATCH.try_with(|kept| kept.set(Some(scratch)));
    }
    result
}
