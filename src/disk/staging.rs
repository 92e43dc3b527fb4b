//! Temporary files: entries on their way into the folder.
//!
//! They stand in a folder of their own within the root, `.staging`: on the same file system, so
//! that a rename moves them into place, and apart from the entries, so that an open that looks for
//! what crashes have left need not list a million of those.
//!
//! Each opener of a folder that writes owns a lock file there, `.<pid>-<random>.lock`, and holds
//! an advisory lock on it for as long as it lives. Its temporary files bear the lock's name. So a
//! temporary file is a dead owner's exactly when its lock can be taken or is gone, whatever became
//! of the process id and in whatever namespace it was; and no name is ever used twice.

use bytes::{Buf as _, Bytes, buf::Chain};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempPath;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::directory::Directory;
use super::error::at;
use super::lock::{
    is_compile_lock, is_linked, lock_existing, lock_options, remove_locked, try_lock,
};
use crate::sync::blocking;

const LOCK: &str = ".lock";
const TEMPORARY: &str = ".tmp";

/// The head and the payload.
pub(super) type Frame = Chain<Bytes, Bytes>;

/// How often an opener makes a new lock file where another's sweep took its last one for dead,
/// which takes a sweep between two neighbouring system calls.
const LOCK_ATTEMPTS: usize = 8;

/// The right of one opener to its temporary files. Made by the first put, so that a folder that
/// cannot be written can still be read.
#[derive(Debug, Default)]
pub(super) struct Staging {
    owner: Mutex<Option<Arc<Owner>>>,
}

impl Staging {
    /// Creates a temporary file. Recreates the folder where it was removed.
    pub(super) fn stage(&self, folder: &Directory, tasks: &TaskTracker) -> io::Result<Staged> {
        let staged = self.try_stage(folder, tasks);
        match staged {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.create_staging()?;
                self.try_stage(folder, tasks)
            }
            staged => staged,
        }
    }

    /// Gives the lock up, so that a closed cache has no file open and leaves none but its entries.
    pub(super) fn release(&self) {
        let owner = self
            .owner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut owner) = owner.and_then(Arc::into_inner) {
            drop(owner.lock.take());
        }
    }

    fn try_stage(&self, folder: &Directory, tasks: &TaskTracker) -> io::Result<Staged> {
        let owner = self.owner(folder)?;
        let path = owner.next_path(&folder.staging());
        let file = folder.create_new().open(&path);
        let file = file.map_err(at("create", &path))?;
        Ok(Staged {
            file,
            path: TempPath::try_from_path(path)?,
            _owner: owner,
            _token: tasks.token(),
        })
    }

    fn owner(&self, folder: &Directory) -> io::Result<Arc<Owner>> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        match &*owner {
            Some(owner) if owner.is_known() => Ok(Arc::clone(owner)),
            // There is none yet, or somebody cleared the folder and the lock with it.
            _ => Ok(Arc::clone(owner.insert(Arc::new(Owner::new(folder)?)))),
        }
    }
}

#[derive(Debug)]
struct Owner {
    /// Unlocked and removed when the owner is dropped.
    lock: Option<(File, TempPath)>,
    /// The lock's name without its ending.
    name: String,
    staged: AtomicU64,
}

impl Owner {
    fn new(folder: &Directory) -> io::Result<Self> {
        let staging = folder.staging();
        if !is_folder(&staging)? {
            let error = io::ErrorKind::NotADirectory.into();
            return Err(at("stage in", &staging)(error));
        }
        let prefix = format!(".{}-", std::process::id());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(LOCK).rand_bytes(16);
        for _ in 0..LOCK_ATTEMPTS {
            let lock = builder
                .make_in(&staging, |path| {
                    lock_options(folder.create_new()).open(path)
                })
                .map_err(at("create a lock file in", &staging))?;
            match try_lock(lock.as_file()) {
                Ok(()) if is_linked(lock.as_file()) => {}
                Ok(()) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                // A file system without locks. No sweep can lock the file either, so what a crash
                // leaves stays there, and what the living have is never removed.
                Err(_) => {}
            }
            let name = lock.path().file_name().and_then(OsStr::to_str);
            let name = name.and_then(|name| name.strip_suffix(LOCK));
            let name = name.unwrap_or_default().to_owned();
            return Ok(Self {
                lock: Some(lock.into_parts()),
                name,
                staged: AtomicU64::new(0),
            });
        }
        Err(at("lock a file in", &staging)(
            io::ErrorKind::WouldBlock.into(),
        ))
    }

    /// Whether others can still see that this owner lives.
    fn is_known(&self) -> bool {
        let lock = self.lock.as_ref();
        lock.is_some_and(|(file, _)| is_linked(file))
    }

    fn next_path(&self, staging: &Path) -> PathBuf {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        staging.join(format!("{}.{number}{TEMPORARY}", self.name))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        blocking::discard(self.lock.take());
    }
}

/// A temporary file, removed when it is dropped before it was published.
#[derive(Debug)]
pub(super) struct Staged {
    file: File,
    path: TempPath,
    /// Lives as long as its files do.
    _owner: Arc<Owner>,
    /// A close of the cache waits until the file is closed.
    _token: TaskTrackerToken,
}

impl Staged {
    /// Writes the frame and renames it to its entry. On failure nothing is left of it.
    pub(super) fn publish(mut self, frame: Frame, entry: &Path) -> io::Result<()> {
        self.write(frame)?;
        self.rename(entry)
    }

    /// As [`publish`](Self::publish), and the data is durable before it is renamed.
    pub(super) fn publish_durably(mut self, frame: Frame, entry: &Path) -> io::Result<()> {
        self.write(frame)?;
        self.file.sync_data().map_err(at("sync", &self.path))?;
        self.rename(entry)
    }

    /// In one call, as a rule: the kernel keeps what comes at once in larger pieces, and what is
    /// kept in larger pieces is read faster.
    fn write(&mut self, mut frame: Frame) -> io::Result<()> {
        while frame.has_remaining() {
            let mut parts = [IoSlice::new(&[]); 2];
            let count = frame.chunks_vectored(&mut parts);
            let written = match self.file.write_vectored(&parts[..count]) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                written => written,
            };
            frame.advance(written.map_err(at("write", &self.path))?);
        }
        Ok(())
    }

    fn rename(mut self, entry: &Path) -> io::Result<()> {
        fs::rename(&self.path, entry).map_err(at("rename a temporary file to", entry))?;
        self.path.disable_cleanup(true);
        Ok(())
    }
}

/// Whether it is a folder, and not a link to one.
fn is_folder(path: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path).map_err(at("inspect", path))?;
    Ok(metadata.is_dir())
}

/// Removes what dead owners have left in a folder for temporary files.
pub(super) fn sweep(staging: &Path) -> io::Result<()> {
    match is_folder(staging) {
        Ok(true) => {}
        // Nothing that a cache made: puts will say so.
        Ok(false) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let mut owners = BTreeSet::new();
    let mut temporaries = Vec::new();
    for file in fs::read_dir(staging)? {
        let file = file?.file_name();
        let Some(name) = file.to_str() else { continue };
        if let Some(owner) = name.strip_suffix(LOCK).filter(|owner| is_owner(owner)) {
            owners.insert(owner.to_owned());
        } else if let Some(owner) = owner_of(name) {
            owners.insert(owner.to_owned());
            temporaries.push(name.to_owned());
        } else if is_compile_lock(name) {
            let path = staging.join(name);
            if let Ok(Some(dead)) = lock_existing(&path) {
                warn_if_left(&path, remove_locked(dead, &path));
            }
        }
    }
    for owner in owners {
        let path = staging.join(format!("{owner}{LOCK}"));
        // A lock that cannot be had is that of a living owner. This one is held until the last file
        // is gone, so that two sweeps do not meet.
        let Ok(dead) = lock_existing(&path) else {
            continue;
        };
        for name in temporaries
            .iter()
            .filter(|name| owner_of(name) == Some(&owner))
        {
            let path = staging.join(name);
            warn_if_left(&path, fs::remove_file(&path));
        }
        if let Some(dead) = dead {
            warn_if_left(&path, remove_locked(dead, &path));
        }
    }
    Ok(())
}

fn warn_if_left(path: &Path, removed: io::Result<()>) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "cannot remove a file that a dead process left");
        }
        _ => {}
    }
}

/// The owner in the name of a temporary file.
fn owner_of(name: &str) -> Option<&str> {
    let (owner, number) = name.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (is_number && is_owner(owner)).then_some(owner)
}

/// Whether a name is one that [`Owner::new`] gives.
fn is_owner(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|name| name.split_once('-'));
    parts.is_some_and(|(pid, random)| {
        pid.bytes().all(|b| b.is_ascii_digit())
            && random.len() == 16
            && random.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}
