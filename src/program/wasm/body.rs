//! Bodies of functions: most of a module, and mostly canonical already.
//!
//! While a body is validated, the operators that may have to be written anew are noted down. All
//! bytes between them are copied as they are.

use std::ops::Range;

use wasmparser::{
    BinaryReader, FuncValidator, FunctionBody, OperatorsReader, OperatorsReaderAllocations,
    ValidatorResources, WasmFeatures,
};

use super::build::Builder;
use super::source::Body;
use super::{Unkeyable, encode, invalid, operators};
use wasm_encoder::Encode as _;
use wasm_encoder::reencode::Reencode as _;

/// An operator that is written anew, by its place in the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patch {
    start: u32,
    length: u32,
}

/// Validates a body, notes its patches, and says where its operators lie.
pub(super) fn validate(
    validator: &mut FuncValidator<ValidatorResources>,
    body: &FunctionBody<'_>,
    features: WasmFeatures,
    bytes: &[u8],
    patches: &mut Vec<Patch>,
) -> Result<Range<usize>, wasmparser::Error> {
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader)?;
    reader.set_features(features);
    let mut operators = OperatorsReader::new(reader);
    let start = operators.original_position() as usize;
    let mut position = start;
    while !operators.eof() {
        operators.visit_operator(&mut validator.visitor(position as u64))??;
        let end = operators.original_position() as usize;
        if !is_canonical(&bytes[position..end]) {
            patches.push(Patch {
                start: position as u32,
                length: (end - position) as u32,
            });
        }
        position = end;
    }
    operators.finish()?;
    Ok(start..position)
}

/// Whether these bytes of one valid operator are the only canonical ones, whatever the numbering
/// of types, functions and globals. To say no is always right, and costs time.
#[inline]
fn is_canonical(operator: &[u8]) -> bool {
    match *operator {
        // No immediates.
        [_] => true,
        // Locals and labels; `memory.size`, `memory.grow`, `table.get`, `table.set`, whose memories
        // and tables keep their numbers.
        [
            0x20..=0x22 | 0x0c..=0x0e | 0x25 | 0x26 | 0x3f | 0x40,
            ref numbers @ ..,
        ] => are_minimal(numbers),
        [0x41 | 0x42, ref number @ ..] => is_minimal_signed(number),
        // Loads and stores, alignment and offset. A larger first byte names a memory.
        [0x28..=0x3e, flags, ref offset @ ..] => flags < 0x40 && are_minimal(offset),
        // Floats, as they lie.
        [0x43 | 0x44, ..] => true,
        // Blocks without result, and with a number or a vector.
        [0x02..=0x04, block_type] => matches!(block_type, 0x40 | 0x7b..=0x7f),
        // Saturating conversions; vector instructions without immediates.
        [0xfc, 0x00..=0x07] | [0xfd, _] => true,
        // `memory.copy`, `memory.fill`
        [0xfc, 0x0a | 0x0b, ref memories @ ..] => are_minimal(memories),
        _ => false,
    }
}

/// Whether no unsigned number among these in LEB128 has padding: a last byte that adds nothing.
#[inline]
fn are_minimal(numbers: &[u8]) -> bool {
    !numbers
        .windows(2)
        .any(|pair| pair[0] >= 0x80 && pair[1] == 0x00)
}

/// The same of one signed number: its last byte must not repeat the sign of the one before.
#[inline]
fn is_minimal_signed(number: &[u8]) -> bool {
    match *number {
        [.., before, 0x00] => before & 0x40 != 0,
        [.., before, 0x7f] => before & 0x40 == 0,
        _ => true,
    }
}

impl<'a> Builder<'_, 'a> {
    /// Writes a body anew, and so numbers what it refers to.
    pub(super) fn body(&mut self, body: &Body<'a>, out: &mut Vec<u8>) -> Result<(), Unkeyable> {
        self.locals(&body.body, out)?;
        let bytes = self.source.bytes;
        let source = self.source;
        let mut allocations = OperatorsReaderAllocations::default();
        let mut copied = body.operators.start;
        for patch in &source.patches[body.patches.clone()] {
            let start = patch.start as usize;
            let end = start + patch.length as usize;
            out.extend_from_slice(&bytes[copied..start]);
            allocations = self.patch(&bytes[start..end], out, allocations)?;
            copied = end;
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

    fn patch(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        allocations: OperatorsReaderAllocations,
    ) -> Result<OperatorsReaderAllocations, Unkeyable> {
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
                operators::check(&operator)?;
                self.instruction(operator)
                    .map_err(encode::failed)?
                    .encode(out);
                return Ok(reader.into_allocations());
            }
        }
        Ok(allocations)
    }
}
