//! What is refused before naga's validator sees it.
//!
//! The validator recurses over blocks, and follows a few handles that it has not checked.

use naga::{Block, Module};

use super::MAX_NESTING;
use super::rebase::{Rebased, Refusal, Shape, shape};

/// Refuses modules that could exhaust the stack or hold a handle into nowhere.
pub(super) fn check(module: &Module) -> Rebased<()> {
    let functions = module.functions.iter().map(|(_, function)| function);
    let mains = module.entry_points.iter().map(|entry| &entry.function);
    let mut pending = Vec::new();
    for function in functions.chain(mains) {
        pending.push((&function.body, 1));
        check_nesting(&mut pending)?;
    }
    for entry in &module.entry_points {
        if let Some(payload) = entry.incoming_ray_payload {
            if module.global_variables.try_get(payload).is_err() {
                return Err(Refusal("an entry point's payload is missing"));
            }
        }
    }
    Ok(())
}

/// Iterates, because it is what makes recursion safe for all that follows.
fn check_nesting<'b>(pending: &mut Vec<(&'b Block, usize)>) -> Rebased<()> {
    while let Some((block, depth)) = pending.pop() {
        if depth > MAX_NESTING {
            return Err(Refusal("blocks nest deeper than 48"));
        }
        let depth = depth + 1;
        for statement in block {
            match shape(statement) {
                Shape::Emit(_) | Shape::Leaf(_) => {}
                Shape::Block(inner) => pending.push((inner, depth)),
                Shape::If {
                    condition: _,
                    accept,
                    reject,
                } => {
                    pending.push((accept, depth));
                    pending.push((reject, depth));
                }
                Shape::Switch { selector: _, cases } => {
                    pending.extend(cases.iter().map(|case| (&case.body, depth)));
                }
                Shape::Loop {
                    body,
                    continuing,
                    break_if: _,
                } => {
                    pending.push((body, depth));
                    pending.push((continuing, depth));
                }
            }
        }
    }
    Ok(())
}
