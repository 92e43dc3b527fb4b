//! The same module in another encoding.

use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{CodeSection, FunctionSection, Module};
use wasmparser::{
    CodeSectionReader, CustomSectionReader, FunctionSectionReader, KnownCustom, Parser, Payload,
    TypeRef,
};

/// Encodes a module anew: numbers are as short as they can be, names are gone, and the functions
/// stand in the opposite order.
pub(crate) fn respell(module: &[u8]) -> Result<Vec<u8>, Error> {
    let mut respelled = Module::new();
    let mut reversed = Reversed::of(module)?;
    reversed.parse_core_module(&mut respelled, Parser::new(0), module)?;
    Ok(respelled.finish())
}

/// The numbers of the functions that are reversed.
#[derive(Debug, Default)]
struct Reversed {
    /// The first: those before it are imported.
    first: u32,
    /// One more than the last.
    end: u32,
}

impl Reversed {
    fn of(module: &[u8]) -> Result<Self, Error> {
        let mut functions = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let is_function =
                            matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                        functions.first += u32::from(is_function);
                    }
                }
                Payload::FunctionSection(defined) => functions.end = defined.count(),
                _ => {}
            }
        }
        functions.end += functions.first;
        Ok(functions)
    }
}

impl Reencode for Reversed {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        let defined = (self.first..self.end).contains(&function);
        Ok(match defined {
            true => self.end - 1 - (function - self.first),
            false => function,
        })
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error> {
        let types: Vec<_> = section.into_iter().collect::<Result<_, _>>()?;
        for of_type in types.into_iter().rev() {
            functions.function(self.type_index(of_type)?);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error> {
        let bodies: Vec<_> = section.into_iter().collect::<Result<_, _>>()?;
        for body in bodies.into_iter().rev() {
            self.parse_function_body(code, body)?;
        }
        Ok(())
    }

    fn parse_custom_section(
        &mut self,
        module: &mut Module,
        section: CustomSectionReader<'_>,
    ) -> Result<(), Error> {
        match section.as_known() {
            KnownCustom::Name(_) => Ok(()),
            _ => utils::parse_custom_section(self, module, section),
        }
    }
}
