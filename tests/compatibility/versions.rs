//! The folders of what releases wrote, and how that of this release is made.
//!
//! A release whose minor version is new has none yet, and `this_release_has_its_files` fails. Then
//! `PIPELINE_CACHE_WRITE_COMPATIBILITY=1 cargo test --all-features --test compatibility this_release`
//! writes it. It refuses to touch a folder that is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the folders are.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compatibility")
}

/// The folders of all releases that are kept.
pub(crate) fn all() -> Vec<PathBuf> {
    let is_version = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let version = name.strip_prefix('v').and_then(|v| v.split_once('_'));
        version.is_some_and(|(major, minor)| {
            [major, minor]
                .iter()
                .all(|number| number.parse::<u32>().is_ok())
        })
    };
    let files = fs::read_dir(root()).unwrap();
    let mut all: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(is_version)
        .collect();
    all.sort();
    assert!(all.iter().any(|path| path.ends_with("v0_1")), "{all:?}");
    all
}

/// The content of each file in a folder and in those below, by its path in the folder.
pub(crate) fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for file in fs::read_dir(next).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap();
            let name = name.to_str().unwrap().replace('\\', "/");
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

/// Copies a folder, so that a test may change it.
pub(crate) fn copy(from: &Path, to: &Path) {
    for (name, content) in tree(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

#[cfg(all(
    unix,
    feature = "metrics",
    feature = "naga",
    feature = "object-store",
    feature = "redis",
    feature = "remote-cache",
    feature = "signatures",
    feature = "wasm",
    feature = "zstd"
))]
mod write {
    use super::*;
    use crate::{bundles, folder, frames, keys, names, runs};

    const WRITE: &str = "PIPELINE_CACHE_WRITE_COMPATIBILITY";

    /// The folder of this release, which may not be there yet.
    fn own() -> PathBuf {
        let (major, minor) = (
            env!("CARGO_PKG_VERSION_MAJOR"),
            env!("CARGO_PKG_VERSION_MINOR"),
        );
        root().join(format!("v{major}_{minor}"))
    }

    /// Writes what this release writes.
    async fn write(folder: &Path) {
        keys::write(folder);
        frames::write(folder).await;
        bundles::write(folder).await;
        runs::write(folder).await;
        folder::write(folder).await;
        names::write(folder).await;
    }

    /// What is not the same in every run, or with every release of another crate: the count of a
    /// folder tells the time of its scan, a run how long its source was parsed, and the bytes of zstd
    /// are those of its library.
    fn settled(name: &str, content: Vec<u8>) -> Vec<u8> {
        match name {
            "build.run" => runs::without_parse_time(&content),
            name if name.ends_with("/.usage") => content[..8].to_vec(),
            name if name.starts_with("frames/zstd") => Vec::new(),
            _ => content,
        }
    }

    #[tokio::test]
    async fn this_release_has_its_files_and_writes_the_same() {
        let own = own();
        let written = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        write(written.path()).await;
        if std::env::var_os(WRITE).is_some_and(|value| value == "1") {
            let name = own.display();
            assert!(!own.exists(), "{name} is there: what was released stays");
            copy(written.path(), &own);
        }
        assert!(
            own.is_dir(),
            "{} is missing: a new minor version writes it with {WRITE}=1",
            own.display()
        );
        let settle = |folder| -> BTreeMap<String, Vec<u8>> {
            let files = tree(folder).into_iter();
            files
                .map(|(name, content)| (name.clone(), settled(&name, content)))
                .collect()
        };
        let (released, now) = (settle(&own), settle(written.path()));
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&released), names(&now));
        for (name, content) in released {
            assert!(
                content == now[&name],
                "this release writes {name} in another form: if that is meant, it needs a version of its own"
            );
        }
    }
}
