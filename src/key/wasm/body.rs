//! Bodies of functions: most of a module, and mostly canonical already.
//!
//! The operators that validation has noted down are written anew, and the bytes between them are
//! copied as they are.

use wasmparser::{BinaryReader, FunctionBody, OperatorsReader, OperatorsReaderAllocations};

use super::build::Builder;
use super::validate::Body;
use super::{Unkeyable, encode, invalid, operators};
use wasm_encoder::Encode as _;
use wasm_encoder::reencode::Reencode as _;

impl<'a> Builder<'_, 'a> {
    /// Writes a body anew, and so numbers what it refers to.
    pub(super) fn body(&mut self, body: &Body<'a>, out: &mut Vec<u8>) -> Result<(), Unkeyable> {
        self.locals(&body.body, out)?;
        let bytes = self.source.bytes;
        let source = self.source;
        let mut allocations = OperatorsReaderAllocations::default();
        let mut copied = body.operators.start;
        for &start in &source.code.patches[body.patches.clone()] {
            let start = start as usize;
            out.extend_from_slice(&bytes[copied..start]);
            let operator = &bytes[start..body.operators.end];
            let length;
            (length, allocations) = self.patch(operator, out, allocations)?;
            copied = start + length;
        }
        out.extend_from_slice(&bytes[copied..body.operators.end]);
        Ok(())
    }

    /// Merges runs of equal locals: a body knows a local by its number alone.
    fn locals(&mut self, body: &FunctionBody<'_>, out: &mut Vec<u8>) -> Result<(), Unkeyable> {
        let mut runs: Vec<(u32, wasm_encoder::ValType)> = Vec::new();
        for run in body.get_locals_reader().map_err(invalid)? {
            let (count, ty) = run.map_err(invalid)?;
            if count == 0 {
                continue;
            }
            let ty = self.val_type(ty).map_err(encode::failed)?;
            match runs.last_mut() {
                // The validator allows 50,000 locals in all.
                Some((total, last)) if *last == ty => *total += count,
                Some(_) | None => runs.push((count, ty)),
            }
        }
        runs.len().encode(out);
        for (count, ty) in runs {
            count.encode(out);
            ty.encode(out);
        }
        Ok(())
    }

    /// Writes the operator at the start of these bytes anew, and says how long it was.
    fn patch(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        allocations: OperatorsReaderAllocations,
    ) -> Result<(usize, OperatorsReaderAllocations), Unkeyable> {
        let opcode = bytes[0];
        let mut immediates = BinaryReader::new_features(&bytes[1..], 0, self.source.features);
        let mut number = || immediates.read_var_u32().map_err(invalid);
        // The most frequent operators, by hand; legacy exception handling too, whose operators
        // cannot be read outside of their block.
        match opcode {
            // `call`, `return_call`
            0x10 | 0x12 => {
                let function = self.function(number()?);
                out.push(opcode);
                function.encode(out);
            }
            // `call_indirect`, `return_call_indirect`
            0x11 | 0x13 => {
                let ty = self.ty(number()?);
                out.push(opcode);
                ty.encode(out);
                number()?.encode(out);
            }
            // `global.get`, `global.set`
            0x23 | 0x24 => {
                let global = self.global(number()?)?;
                out.push(opcode);
                global.encode(out);
            }
            // `catch`, `rethrow`, `delegate`: a tag or a label
            0x07 | 0x09 | 0x18 => {
                out.push(opcode);
                number()?.encode(out);
            }
            _ => {
                let reader = BinaryReader::new_features(bytes, 0, self.source.features);
                let mut reader = OperatorsReader::new_with_allocs(reader, allocations);
                let operator = reader.read().map_err(invalid)?;
                let length = reader.original_position() as usize;
                operators::check(&operator)?;
                self.instruction(operator)
                    .map_err(encode::failed)?
                    .encode(out);
                return Ok((length, reader.into_allocations()));
            }
        }
        Ok((1 + immediates.current_position(), allocations))
    }
}
