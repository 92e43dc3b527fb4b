//! The same module with one function changed, as an author changes it between two builds.

use wasmparser::{Operator, Parser, Payload, Result};

/// The module once for each function that has a constant, with another constant there: first those
/// that stand in the middle.
pub(crate) fn change_one_function(module: &[u8]) -> Result<impl Iterator<Item = Vec<u8>>> {
    let mut constants = constants(module)?;
    let middle = constants.len() / 2;
    constants.rotate_left(middle);
    Ok(constants.into_iter().map(|constant| {
        let mut changed = module.to_owned();
        // The lowest bits of a number in LEB128 are in its first byte.
        if let Some(first) = changed.get_mut(constant) {
            *first ^= 1;
        }
        changed
    }))
}

/// Where the first constant of each function stands, of those that have one.
fn constants(module: &[u8]) -> Result<Vec<usize>> {
    let mut constants = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        let Payload::CodeSectionEntry(body) = payload? else {
            continue;
        };
        for operator in body.get_operators_reader()?.into_iter_with_offsets() {
            let (operator, offset) = operator?;
            if let Operator::I32Const { .. } = operator {
                // After the byte that says what it is.
                constants.extend(usize::try_from(offset + 1));
                break;
            }
        }
    }
    Ok(constants)
}
