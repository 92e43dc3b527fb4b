//! The files that the operator names.

use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// More than any configuration, list of tokens or chain of certificates has.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a text. One that never ends, such as a device, is an error.
pub(crate) fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(file)
        .and_then(|open| open.take(MAX_BYTES + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        text.len() as u64 <= MAX_BYTES,
        "{} is larger than {MAX_BYTES} bytes: it is not the right file",
        file.display()
    );
    Ok(text)
}
