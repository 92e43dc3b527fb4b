//! The small files that the command line names: a token, a secret.

use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Far more than a token or a secret has.
const MAX_BYTES: u64 = 64 << 10;

/// Reads a text. It may come from a pipe, as that of another program, and what has no end, such as a
/// device, is an error.
pub(crate) fn read(file: &Path) -> Result<String> {
    let shown = file.display();
    let mut text = String::new();
    File::open(file)
        .and_then(|open| open.take(MAX_BYTES + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read {shown}"))?;
    ensure!(
        text.len() as u64 <= MAX_BYTES,
        "{shown} is larger than {} KiB: it is not the right file",
        MAX_BYTES >> 10
    );
    Ok(text)
}

/// A text without the byte order mark that some editors begin it with.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}
