//! Where programs come from: the shaders of `vello_shaders`, or files and folders.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use vello_shaders::{ComputeShader, SHADERS, Shaders};
use walkdir::WalkDir;

/// A text that should be WGSL, and the name to call it by.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

/// Reads the files and folders, or takes the shaders of vello where none are given.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Source>> {
    if paths.is_empty() {
        return Ok(vello());
    }
    let mut sources = Vec::new();
    for path in paths {
        for file in find(path)? {
            let text =
                std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.display().to_string();
            sources.push(Source { name, text });
        }
    }
    Ok(sources)
}

/// The file itself, or the `.wgsl` files below a folder, in the order of their names.
fn find(path: &Path) -> Result<Vec<PathBuf>> {
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
        if file.extension() == Some(OsStr::new("wgsl")) && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("there are no .wgsl files in {}", path.display());
    }
    Ok(files)
}

/// All shaders of vello. The pattern names every one: a release with another does not compile
/// until it is listed.
fn vello() -> Vec<Source> {
    let Shaders {
        backdrop,
        backdrop_dyn,
        bbox_clear,
        binning,
        clip_leaf,
        clip_reduce,
        coarse,
        draw_leaf,
        draw_reduce,
        fine_area,
        fine_msaa16,
        fine_msaa8,
        flatten,
        path_count,
        path_count_setup,
        path_tiling,
        path_tiling_setup,
        pathtag_reduce,
        pathtag_reduce2,
        pathtag_scan1,
        pathtag_scan_large,
        pathtag_scan_small,
        tile_alloc,
    } = SHADERS;
    let shaders: [ComputeShader<'static>; 23] = [
        backdrop,
        backdrop_dyn,
        bbox_clear,
        binning,
        clip_leaf,
        clip_reduce,
        coarse,
        draw_leaf,
        draw_reduce,
        fine_area,
        fine_msaa16,
        fine_msaa8,
        flatten,
        path_count,
        path_count_setup,
        path_tiling,
        path_tiling_setup,
        pathtag_reduce,
        pathtag_reduce2,
        pathtag_scan1,
        pathtag_scan_large,
        pathtag_scan_small,
        tile_alloc,
    ];
    let source = |shader: ComputeShader<'static>| Source {
        name: shader.name.into_owned(),
        text: shader.wgsl.code.into_owned().into_bytes(),
    };
    shaders.into_iter().map(source).collect()
}
