//! Staging: entries are written to temporary files and then renamed into the folder.
//!
//! The files are in a folder of their own within the root, `.staging`. So they are on the file
//! system of the entries, which a rename needs; and an open that looks for what crashes have left
//! does not list a million entries.
//!
//! Each cache that writes owns a lock file there, `.<pid>-<random>.lock`, and holds its lock until it
//! is dropped or closed. The names of its temporary files begin with the lock's name. So a temporary
//! file belongs to a dead owner exactly when that lock can be taken or is gone, in whatever
//! namespace the process ids are. No name is ever used twice.
//!
//! Cleaners of temporary files and of empty folders may work there. A put whose temporary file they
//! remove stages it again, in the end beside the entries, in the root. What a crash leaves there is
//! found by its age, by the next scan of the folder.

use bytes::{Buf as _, Bytes, buf::Chain};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt as _;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::directory::Directory;
use super::error::{Fault, at};
use super::lock::{is_linked, lock_options, try_lock};
use crate::sync::blocking;

pub(super) const LOCK: &str = ".lock";
pub(super) const TEMPORARY: &str = ".tmp";
/// The ending of a temporary file beside the entries, which is the only one of its owner.
const BESIDE: &str = ".0.tmp";

/// The head and the payload.
pub(super) type Frame = Chain<Bytes, Bytes>;

/// The same frame, without a copy of its bytes.
pub(super) fn copy_of(frame: &Frame) -> Frame {
    frame.first_ref().clone().chain(frame.last_ref().clone())
}

/// The most bytes that one poll copies and one call writes.
const MAX_WRITE: usize = 256 * 1024;

/// How often a new lock file is created, where the sweep of another process locked the last one
/// just after it was created.
const LOCK_ATTEMPTS: usize = 8;

/// The temporary files of one cache. The lock file is created by the first put, so that a folder
/// that cannot be written can still be read.
#[derive(Debug, Default)]
pub(super) struct Staging {
    owner: Mutex<Option<Arc<Owner>>>,
}

impl Staging {
    /// Creates a temporary file, and the folder for it where that is missing. Waits for the disk.
    ///
    /// Beside the entries also where no file stays in the staging folder for long enough.
    pub(super) fn stage(
        &self,
        directory: &Directory,
        tasks: &TaskTracker,
        place: Place,
    ) -> io::Result<Staged> {
        if place == Place::Staging {
            match directory.in_staging(|| self.create_staged(directory, tasks)) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::WouldBlock
                    ) => {}
                staged => return staged,
            }
        }
        directory.in_root(|| create_beside_entries(directory, tasks))
    }

    /// Removes the lock file. A closed cache has no file open, and leaves only its entries.
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

    fn create_staged(&self, directory: &Directory, tasks: &TaskTracker) -> io::Result<Staged> {
        let owner = self.owner(directory)?;
        let path = owner.next_path(&directory.staging());
        let file = directory.create_new().open(&path);
        let file = file.map_err(at("create", &path))?;
        let path = TempPath::try_from_path(path)?;
        Ok(Staged::new(file, path, Some(owner), tasks))
    }

    fn owner(&self, directory: &Directory) -> io::Result<Arc<Owner>> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        match &*owner {
            Some(owner) if owner.is_visible() => Ok(Arc::clone(owner)),
            // The first put, or someone removed the lock file with the folder.
            _ => Ok(Arc::clone(owner.insert(Arc::new(Owner::new(directory)?)))),
        }
    }
}

/// A temporary file that no lock file protects: its age tells whether a crash left it.
fn create_beside_entries(directory: &Directory, tasks: &TaskTracker) -> io::Result<Staged> {
    let prefix = owner_prefix();
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(BESIDE).rand_bytes(16);
    let file = builder.make_in(&directory.root, |path| directory.create_new().open(path));
    let (file, path) = file
        .map_err(at("create a temporary file in", &directory.root))?
        .into_parts();
    Ok(Staged::new(file, path, None, tasks))
}

/// The start of the name of an owner.
fn owner_prefix() -> String {
    format!(".{}-", std::process::id())
}

#[derive(Debug)]
struct Owner {
    /// Closed, and then removed, when the owner is dropped.
    lock: Option<(File, TempPath)>,
    /// The lock's name without its ending.
    name: String,
    staged: AtomicU64,
}

impl Owner {
    fn new(directory: &Directory) -> io::Result<Self> {
        let staging = directory.staging();
        if !is_folder(&staging)? {
            let error = io::ErrorKind::NotADirectory.into();
            return Err(at("stage in", &staging)(error));
        }
        let prefix = owner_prefix();
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(LOCK).rand_bytes(16);
        for _ in 0..LOCK_ATTEMPTS {
            let lock = builder
                .make_in(&staging, |path| {
                    lock_options(directory.create_new()).open(path)
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

    /// Whether other processes can still see that this owner lives.
    fn is_visible(&self) -> bool {
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

/// A temporary file. Closed on the blocking pool when it is dropped, and removed there if it was not
/// published.
#[derive(Debug)]
pub(super) struct Staged(Option<Open>);

#[derive(Debug)]
struct Open {
    /// `None` once it is being closed.
    file: Option<tokio::fs::File>,
    path: TempPath,
    /// The lock file stays as long as the temporary files of its owner.
    _owner: Option<Arc<Owner>>,
    /// A close of the cache waits until the file is closed.
    token: TaskTrackerToken,
}

/// Where a temporary file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the staging folder.
    Staging,
    /// In the folder of the entries, where no cleaner of temporary files works.
    BesideEntries,
}

/// Where a frame is staged, one try after the other.
const TRIES: [Place; 8] = {
    let mut tries = [Place::BesideEntries; 8];
    (tries[0], tries[1]) = (Place::Staging, Place::Staging);
    tries
};

/// Writes a frame to its entry, by a temporary file that `begin` makes. Returns whether there was
/// anything to write.
///
/// Begins again where somebody removed the temporary file or its folder before the rename, as cleaners
/// do.
pub(super) async fn publish<B>(
    entry: &Path,
    durable: Durable,
    begin: impl Fn(Place) -> B,
) -> Result<bool, Fault>
where
    B: Future<Output = Result<Option<(Frame, Staged)>, Fault>>,
{
    let mut left = TRIES.len();
    for place in TRIES {
        left -= 1;
        let Some((frame, staged)) = begin(place).await? else {
            return Ok(false);
        };
        match staged.publish(frame, durable, entry).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound && left > 0 => {
                tracing::debug!(entry = %entry.display(), %error, "temporary file removed by somebody: writing it again");
            }
            published => return Ok(published.map(|()| true)?),
        }
    }
    Ok(false)
}

/// Whether an entry's data is made durable before it is renamed into place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    Now,
    OnFlush,
}

impl Staged {
    fn new(file: File, path: TempPath, owner: Option<Arc<Owner>>, tasks: &TaskTracker) -> Self {
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(MAX_WRITE);
        Self(Some(Open {
            file: Some(file),
            path,
            _owner: owner,
            token: tasks.token(),
        }))
    }

    /// Writes the frame and renames the file to its entry. After a failure nothing is left of it.
    async fn publish(mut self, frame: Frame, durable: Durable, entry: &Path) -> io::Result<()> {
        let Some(open) = &mut self.0 else {
            return Ok(());
        };
        let published = match open.write(frame, durable).await {
            Ok(()) => open.rename(entry).await,
            failed => failed,
        };
        let open = self.0.take();
        if published.is_err() {
            blocking::blocking(move || drop(open)).await;
        }
        published
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            blocking::discard(open);
        }
    }
}

impl Open {
    /// Head and payload go together, in one call up to [`MAX_WRITE`]. A `tokio::fs::File` reports a
    /// write's error only to the next call: the flush makes sure that there is one.
    async fn write(&mut self, mut frame: Frame, durable: Durable) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let written = file.write_all_buf(&mut frame).await;
        written.map_err(at("write", &self.path))?;
        file.flush().await.map_err(at("write", &self.path))?;
        if durable == Durable::Now {
            file.sync_data().await.map_err(at("sync", &self.path))?;
        }
        Ok(())
    }

    /// Renames the file to its entry. Closes it at the same time: a close may wait, so it needs a hop
    /// to the blocking pool of its own, and the put need not wait for that.
    async fn rename(&mut self, entry: &Path) -> io::Result<()> {
        let written = (self.file.take(), self.token.clone());
        let close = async move { blocking::discard(written) };
        let (renamed, ()) = tokio::join!(tokio::fs::rename(&self.path, entry), close);
        renamed.map_err(at("rename a temporary file to", entry))?;
        self.path.disable_cleanup(true);
        Ok(())
    }
}

/// Whether a path is a folder, and not a link to one.
pub(super) fn is_folder(path: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path).map_err(at("inspect", path))?;
    Ok(metadata.is_dir())
}
