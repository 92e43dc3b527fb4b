//! The rules as the encoder asks for them: each kind of index, and block types.

use wasm_encoder::BlockType;
use wasm_encoder::reencode::{Error, Reencode, utils};

use super::Unkeyable;
use super::build::Builder;

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
