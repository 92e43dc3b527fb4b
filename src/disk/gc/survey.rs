//! The folder, listed in steps: a name tells whose file it is, and a million of them are never in
//! memory at once.

use std::fs::{self, DirEntry, ReadDir};
use std::io;
use std::time::SystemTime;

use crate::disk::directory::Directory;
use crate::disk::error::{Fault, at};
use crate::key::PipelineFingerprint;
use crate::sync::blocking;

/// How many names one step looks at: a millisecond or two of the blocking pool.
const STEP: usize = 512;

/// What a name in the folder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::disk) enum Named {
    Entry,
    /// A corrupt entry that was set aside.
    Aside,
}

/// A regular file under a key's name. The order is that of their use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::disk) struct Seen {
    pub(in crate::disk) used: SystemTime,
    pub(in crate::disk) key: PipelineFingerprint,
    pub(in crate::disk) bytes: u64,
}

/// A pass over the names of a folder. What is stored or removed meanwhile may be seen or not.
#[derive(Debug)]
pub(in crate::disk) struct Listing {
    /// Nothing where there is no folder.
    files: Option<ReadDir>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        if let Some(files) = self.files.take() {
            blocking::discard(files);
        }
    }
}

impl Listing {
    pub(in crate::disk) fn open(folder: &Directory) -> Result<Self, Fault> {
        match fs::read_dir(&folder.root) {
            Ok(files) => Ok(Self { files: Some(files) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { files: None }),
            Err(error) => Err(at("list", &folder.root)(error).into()),
        }
    }

    /// Looks at the next names; whether there may be more.
    pub(in crate::disk) fn step(
        &mut self,
        folder: &Directory,
        mut each: impl FnMut(PipelineFingerprint, Named, &DirEntry),
    ) -> Result<bool, Fault> {
        let Some(files) = &mut self.files else {
            return Ok(false);
        };
        for _ in 0..STEP {
            let Some(file) = files.next() else {
                self.files = None;
                return Ok(false);
            };
            let file = file.map_err(at("list", &folder.root))?;
            let name = file.file_name();
            let Some((key, ending)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let named = match ending {
                "bin" => Named::Entry,
                "corrupt" => Named::Aside,
                _ => continue,
            };
            if let Ok(key) = key.parse() {
                each(key, named, &file);
            }
        }
        Ok(true)
    }
}

/// The file behind a name, if it still is one and a regular one. A link is not followed.
pub(in crate::disk) fn see(
    key: PipelineFingerprint,
    file: &DirEntry,
) -> Result<Option<Seen>, Fault> {
    let metadata = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("inspect", &file.path())(error).into()),
    };
    let used = metadata.modified().map_err(at("inspect", &file.path()))?;
    let bytes = metadata.len();
    Ok(Some(Seen { used, key, bytes }))
}
