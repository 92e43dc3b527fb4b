//! Files of keys.

use anyhow::{Context as _, Result, ensure};
use pipeline_cache::PipelineFingerprint;
use std::fs;
use std::path::Path;

/// Empty lines, and what follows a `#`, are nothing.
pub(crate) fn read_keys(file: &Path) -> Result<Vec<PipelineFingerprint>> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let lines = text.lines().enumerate().filter_map(|(number, line)| {
        let key = line.split('#').next().unwrap_or_default().trim();
        (!key.is_empty()).then_some((number + 1, key))
    });
    let keys = lines.map(|(number, key)| {
        let key = key.parse();
        key.with_context(|| format!("{shown}, line {number}: not a key of 64 hex digits"))
    });
    let keys: Vec<_> = keys.collect::<Result<_>>()?;
    ensure!(!keys.is_empty(), "{shown} holds no key");
    Ok(keys)
}
