//! The rules as the encoder asks for them: each kind of index, and block types.

use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{BlockType, SubType, TypeSection};

use super::Unkeyable;
use super::build::Builder;

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
    members: &[wasmparser::SubType],
    section: &mut TypeSection,
) -> Result<(), Unkeyable> {
    let members = members
        .iter()
        .map(|member| writer.sub_type(member.clone()))
        .collect::<Result<Vec<SubType>, _>>()
        .map_err(|error| Unkeyable::new(format!("a type cannot be written: {error}")))?;
    match members.as_slice() {
        [] => {}
        [member] => section.ty().subtype(member),
        [..] => section.ty().rec(members),
    }
    Ok(())
}

/// Tables, memories, tags and segments keep their numbers, since all of them stay in order; the
/// encoder's defaults say so. [`operators`](super::operators) lists every kind of index.
impl Reencode for Builder<'_, '_> {
    type Error = Unkeyable;

    fn function_index(&mut self, source: u32) -> Result<u32, Error<Unkeyable>> {
        Ok(self.function(source))
    }

    fn global_index(&mut self, source: u32) -> Result<u32, Error<Unkeyable>> {
        self.global(source).map_err(Error::UserError)
    }

    fn type_index(&mut self, source: u32) -> Result<u32, Error<Unkeyable>> {
        Ok(self.ty(source))
    }

    /// Asked for by operators alone: a body that names a data segment is read before the
    /// segments are, and needs their count.
    fn data_index(&mut self, source: u32) -> Result<u32, Error<Unkeyable>> {
        self.needs_data_count = true;
        Ok(source)
    }

    /// The shorthand where there is one: it stands for the same parameters and results.
    fn block_type(&mut self, source: wasmparser::BlockType) -> Result<BlockType, Error<Unkeyable>> {
        if let wasmparser::BlockType::FuncType(ty) = source {
            if let Some(function) = self.types.function(ty) {
                match (function.params(), function.results()) {
                    ([], []) => return Ok(BlockType::Empty),
                    ([], &[result]) => return Ok(BlockType::Result(self.val_type(result)?)),
                    (_, _) => {}
                }
            }
        }
        utils::block_type(self, source)
    }
}
