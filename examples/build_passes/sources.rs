//! Programs in files and folders.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

/// What should be a program, and the name to call it by.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

/// Reads the files, and those with this extension below the folders.
pub(crate) fn read_files(paths: &[PathBuf], extension: &str) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in paths {
        for file in find(path, extension)? {
            let text =
                std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.display().to_string();
            sources.push(Source { name, text });
        }
    }
    Ok(sources)
}

/// The file itself, or the files with this extension below a folder, in the order of their names.
fn find(path: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let metadata =
        std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if metadata.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !metadata.is_dir() {
        bail!("{} is neither a file nor a folder", path.display());
    }
    let mut files = Vec::new();
    // Links to folders are not followed, so a link to a folder above cannot lead in circles.
    for entry in WalkDir::new(path).sort_by_file_name() {
        let file = entry
            .with_context(|| format!("cannot search {}", path.display()))?
            .into_path();
        if file.extension() == Some(OsStr::new(extension)) && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("there are no .{extension} files in {}", path.display());
    }
    Ok(files)
}
