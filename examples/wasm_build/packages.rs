//! Paths given by the name of an npm package.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Where npm puts packages, in the folder it is called in.
const PACKAGES: &str = "node_modules";

/// The paths as they are; those that do not exist are looked for among the packages.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    paths.iter().map(|path| find_one(path)).collect()
}

fn find_one(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    let package = Path::new(PACKAGES).join(path);
    if package.exists() {
        return Ok(package);
    }
    bail!(
        "cannot read {}: there is nothing of this name here, nor in ./{PACKAGES}; `npm install` puts \
         packages there",
        path.display()
    )
}
