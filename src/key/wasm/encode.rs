//! What the encoder is asked for in one way: types, and its failures in our words.

use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{SubType, TypeSection};

use super::Unkeyable;

/// The encoder fails on what the validator has refused before.
pub(super) fn failed(error: Error<Unkeyable>) -> Unkeyable {
    match error {
        Error::UserError(unkeyable) => unkeyable,
        Error::CanonicalizedHeapTypeReference
        | Error::InvalidConstExpr
        | Error::InvalidCodeSectionSize
        | Error::UnexpectedNonCoreModuleSection
        | Error::UnexpectedNonComponentSection
        | Error::UnsupportedCoreTypeInComponent
        | Error::ParseError(_) => Unkeyable::new(format!("the module cannot be written: {error}")),
    }
}

/// Writes a recursion group; a group of one in its short form.
pub(super) fn group<R: Reencode<Error = Infallible>>(
    writer: &mut R,
    members: Vec<wasmparser::SubType>,
    section: &mut TypeSection,
) -> Result<(), Unkeyable> {
    let members = members
        .into_iter()
        .map(|member| writer.sub_type(member))
        .collect::<Result<Vec<SubType>, _>>()
        .map_err(|error| Unkeyable::new(format!("a type cannot be written: {error}")))?;
    match members.as_slice() {
        [] => {}
        [member] => section.ty().subtype(member),
        [..] => section.ty().rec(members),
    }
    Ok(())
}
