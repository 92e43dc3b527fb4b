//! Whether a folder is one of a disk tier, and what it is otherwise.

use anyhow::{Context as _, Result, bail, ensure};
use pipeline_cache::PipelineFingerprint;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// What a disk tier keeps beside its entries.
const STAGING: &str = ".staging";

/// Folders that `cache_server` has beside its artifacts.
const SERVER_FOLDERS: [&str; 3] = ["ccache", "sccache", "uploads"];

/// Fails unless the folder is one of a disk tier; says what was found instead.
pub(crate) fn check(root: &Path) -> Result<()> {
    let shown = root.display();
    ensure!(root.is_dir(), "{shown} is no folder");
    if root.join(STAGING).is_dir() {
        return Ok(());
    }
    let artifacts = root.join("artifacts");
    let of_server = SERVER_FOLDERS.iter().any(|name| root.join(name).is_dir());
    if artifacts.is_dir() && of_server {
        let artifacts = artifacts.display();
        bail!(
            "{shown} is the folder of a cache_server: its artifacts are in {artifacts}; run \
             cachectl --cache-dir {artifacts}"
        );
    }
    let mut found: u64 = 0;
    let entries = fs::read_dir(root).with_context(|| format!("cannot list {shown}"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {shown}"))?;
        if is_entry(&entry.file_name()) {
            return Ok(());
        }
        found += 1;
    }
    ensure!(found > 0, "{shown} is empty: it holds no disk cache");
    bail!("{shown} holds no entries of a disk cache, and {found} other files or folders")
}

/// As [`check`], for a folder that entries go to: it may be empty, or still to be made.
pub(crate) fn check_unless_new(root: &Path) -> Result<()> {
    if !root.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(root);
    let mut entries = entries.with_context(|| format!("cannot list {}", root.display()))?;
    match entries.next() {
        Some(_) => check(root),
        None => Ok(()),
    }
}

/// Whether a name is that of an entry. A copy of a cache may have nothing else.
fn is_entry(name: &OsStr) -> bool {
    let hex = name.to_str().and_then(|name| name.strip_suffix(".bin"));
    hex.is_some_and(|hex| hex.parse::<PipelineFingerprint>().is_ok())
}
