//! Files of keys.

use anyhow::{Context as _, Result, bail, ensure};
use pipeline_cache::PipelineFingerprint;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use crate::input::without_mark;

/// Far more than a key and a comment have. A device such as `/dev/zero` has a line without an end.
const MAX_LINE: u64 = 1024;

/// Empty lines, and what follows a `#`, are nothing.
pub(crate) fn read_keys(file: &Path) -> Result<Vec<PipelineFingerprint>> {
    let shown = file.display();
    let open = File::open(file).with_context(|| format!("cannot read {shown}"))?;
    let (mut lines, mut keys) = (BufReader::new(open), Vec::new());
    for number in 1_u64.. {
        let at = || format!("{shown}, line {number}");
        let Some(line) = next_line(&mut lines).with_context(at)? else {
            break;
        };
        let line = if number == 1 {
            without_mark(&line)
        } else {
            &line
        };
        let key = line.split('#').next().unwrap_or_default().trim();
        if !key.is_empty() {
            let key = key.parse();
            keys.push(key.with_context(|| format!("{}: not a key of 64 hex digits", at()))?);
        }
    }
    ensure!(!keys.is_empty(), "{shown} holds no key");
    Ok(keys)
}

/// None at the end of the file.
fn next_line(lines: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = String::new();
    let length = lines.take(MAX_LINE + 1).read_line(&mut line);
    match length.context("cannot be read")? as u64 {
        0 => Ok(None),
        length if length > MAX_LINE => bail!("longer than {MAX_LINE} bytes"),
        _ => Ok(Some(line)),
    }
}
