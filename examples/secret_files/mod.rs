//! Files of shared secrets, as `cache_server` and `cachectl` read them: both must have the same secret
//! from the same file.

use anyhow::{Result, ensure};
use pipeline_cache::{SharedSecret, TrustedKeys};
use std::path::{Path, PathBuf};

/// The secrets of all files. What is made is signed with the first.
pub(crate) fn trusted_keys(
    files: &[PathBuf],
    read: fn(&Path) -> Result<String>,
) -> Result<Option<TrustedKeys>> {
    let mut keys: Option<TrustedKeys> = None;
    for file in files {
        let secret = secret(file, &read(file)?)?;
        keys = Some(match keys {
            Some(keys) => keys.also_accepting(secret),
            None => secret.into(),
        });
    }
    Ok(keys)
}

/// The line break at the end of a file is not part of its secret.
fn secret(file: &Path, text: &str) -> Result<SharedSecret> {
    let secret = text.trim_end();
    // Anybody could sign with it.
    ensure!(!secret.is_empty(), "{} holds no secret", file.display());
    Ok(SharedSecret::new(secret))
}
