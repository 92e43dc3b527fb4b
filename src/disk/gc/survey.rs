//! The survey of a folder: its names, listed in steps. A name tells what its file is, and a million
//! names are never in memory at once.

use std::fs::{self, DirEntry, ReadDir};
use std::io;
use std::time::SystemTime;

use crate::disk::directory::Directory;
use crate::disk::error::{Fault, at};
use crate::disk::files::{date_now, is_in_future, not_in_future};
use crate::key::PipelineFingerprint;
use crate::sync::blocking;

/// How many names one step looks at, in a millisecond or two on the blocking pool.
const STEP: usize = 512;

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::disk) enum Named {
    Entry,
    /// A corrupt entry that was set aside.
    Aside,
}

/// A regular file under a key's name, in the order of eviction: by its worth and then by its last use.
/// One that does not fit the bounds comes before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::disk) struct Seen {
    /// Whether it fits the bounds on its own. Otherwise it would make a trim remove all others first.
    pub(in crate::disk) fits: bool,
    /// What it saves, see [`super::order`]. 0 where only the last use counts, and where it is too old.
    pub(in crate::disk) worth: u64,
    pub(in crate::disk) used: SystemTime,
    pub(in crate::disk) key: PipelineFingerprint,
    pub(in crate::disk) bytes: u64,
    /// Whether the recorded time of use is in the future. Then `used` is the time of the look.
    pub(in crate::disk) in_future: bool,
}

impl Seen {
    /// Whether the recorded time of use, which now is this one, is that of the look.
    pub(in crate::disk) fn is_unused(&self, used: SystemTime) -> bool {
        used == self.used || (self.in_future && is_in_future(used))
    }

    /// Sets a time in the future to now, so that the entry gets old.
    pub(in crate::disk) fn dated_now(self, file: &DirEntry) -> Self {
        let dated = self.in_future.then(|| date_now(&file.path()));
        let Some(dated) = dated.flatten() else {
            return self;
        };
        match dated.metadata().and_then(|metadata| metadata.modified()) {
            Ok(used) if !is_in_future(used) => Self {
                used,
                in_future: false,
                ..self
            },
            _ => self,
        }
    }
}

/// One pass over the names of a folder. An entry that is stored or removed meanwhile may be seen or
/// not.
#[derive(Debug)]
pub(in crate::disk) struct Listing {
    /// `None` where there is no folder, or at its end.
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
    pub(in crate::disk) fn open(directory: &Directory) -> Result<Self, Fault> {
        match fs::read_dir(&directory.root) {
            Ok(files) => Ok(Self { files: Some(files) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { files: None }),
            Err(error) => Err(at("list", &directory.root)(error).into()),
        }
    }

    /// Looks at the next names. Returns whether there may be more.
    pub(in crate::disk) fn step(
        &mut self,
        directory: &Directory,
        each: impl FnMut(PipelineFingerprint, Named, &DirEntry),
    ) -> Result<bool, Fault> {
        self.step_over_all(directory, each, |_| ())
    }

    /// [`step`](Self::step), and calls `other` for what is not named for a key.
    pub(in crate::disk) fn step_over_all(
        &mut self,
        directory: &Directory,
        mut each: impl FnMut(PipelineFingerprint, Named, &DirEntry),
        other: impl Fn(&DirEntry),
    ) -> Result<bool, Fault> {
        let Some(files) = &mut self.files else {
            return Ok(false);
        };
        for _ in 0..STEP {
            let Some(file) = files.next() else {
                self.files = None;
                return Ok(false);
            };
            let file = file.map_err(at("list", &directory.root))?;
            match name_of(&file) {
                Some((key, named)) => each(key, named, &file),
                None => other(&file),
            }
        }
        Ok(true)
    }
}

/// The key in a file's name, and what the file is.
fn name_of(file: &DirEntry) -> Option<(PipelineFingerprint, Named)> {
    let name = file.file_name();
    let (key, ending) = name.to_str()?.split_once('.')?;
    let named = match ending {
        "bin" => Named::Entry,
        "corrupt" => Named::Aside,
        _ => return None,
    };
    Some((key.parse().ok()?, named))
}

/// The file of a name, if it still exists and is a regular one. A link is not followed.
pub(in crate::disk) fn inspect(
    key: PipelineFingerprint,
    file: &DirEntry,
) -> Result<Option<Seen>, Fault> {
    let metadata = match file.metadata() {
        Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => file.metadata(),
        found => found,
    };
    let metadata = match metadata {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(None),
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle => Ok(None),
                _ => Err(at("inspect", &file.path())(error).into()),
            };
        }
    };
    let used = metadata.modified();
    let used = used.map_err(|error| at("inspect", &file.path())(error))?;
    let in_future = is_in_future(used);
    Ok(Some(Seen {
        fits: true,
        worth: 0,
        used: not_in_future(used),
        key,
        bytes: metadata.len(),
        in_future,
    }))
}
