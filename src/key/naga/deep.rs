//! A stack for modules that nest deeply.

use std::thread;

use super::rebase::{Rebased, Refusal};

/// How deep a module may nest on the stack of whoever calls.
///
/// naga's validator takes about 33 KiB of stack a level in a debug build, where 48 levels fit
/// into the 2 MiB of a thread; in a release build it takes about 2 KiB.
const SHALLOW: usize = 48;
/// More than a level takes.
const LEVEL: usize = 40 << 10;
/// What all else takes.
const BASE: usize = 1 << 20;

/// Does work on a module that nests to a depth: here, or on a thread with a stack for it.
pub(super) fn with_stack<T: Send>(depth: usize, work: impl FnOnce() -> T + Send) -> Rebased<T> {
    if depth <= SHALLOW {
        return Ok(work());
    }
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("deep shader".into());
        let thread = thread.stack_size(BASE + depth * LEVEL);
        let running = thread.spawn_scoped(scope, work);
        let running = running.map_err(|_| Refusal(&"there is no thread for so deep a module"))?;
        running
            .join()
            .map_err(|_| Refusal(&"the work on a deep module panics"))
    })
}
