//! The same shader, written differently.

use std::iter;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use naga::back::wgsl::{WriterFlags, write_string};
use naga::front::wgsl::parse_str;
use naga::valid::Validator;

use crate::build_passes::sources::Source;
use crate::naga_compiler::VALIDATION;

/// So many spellings of a shader: as it is, printed by naga, so that names, layout and order
/// differ, and these two with other comments.
pub(crate) fn spellings(source: &Source, count: usize) -> Result<Vec<Bytes>> {
    let name = || format!("{} does not compile", source.name);
    let text = str::from_utf8(&source.text).with_context(name)?;
    let module = parse_str(text).with_context(name)?;
    let capabilities = naga::back::spv::supported_capabilities();
    let info = Validator::new(VALIDATION, capabilities)
        .validate(&module)
        .with_context(name)?;
    let printed = write_string(&module, &info, WriterFlags::EXPLICIT_TYPES)
        .with_context(|| format!("{} cannot be printed", source.name))?;
    let both = iter::repeat([text, printed.as_str()]).flatten();
    let numbered = both.take(count).enumerate();
    Ok(numbered
        .map(|(number, text)| match number / 2 {
            0 => Bytes::from(text.to_owned()),
            round => Bytes::from(format!("// Edited {round} times.\n{text}")),
        })
        .collect())
}
