//! The files that the operator names.

use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

/// More than any configuration, list of tokens or chain of certificates has.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a text. What is no file, such as a device or a pipe without a writer, is an error: reading it
/// may never end.
pub(crate) fn read(file: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", file.display());
    let is_file = fs::metadata(file).with_context(cannot)?.is_file();
    ensure!(is_file, "{} is not a file", file.display());
    let mut text = String::new();
    File::open(file)
        .and_then(|open| open.take(MAX_BYTES + 1).read_to_string(&mut text))
        .with_context(cannot)?;
    ensure!(
        text.len() as u64 <= MAX_BYTES,
        "{} is larger than {MAX_BYTES} bytes: it is not the right file",
        file.display()
    );
    Ok(text)
}
