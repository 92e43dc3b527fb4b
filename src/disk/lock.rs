//! Advisory locks on files in the staging folder, by the crate `fs4`: `flock` on Unix, `LockFileEx`
//! on Windows.
//!
//! The operating system releases a lock when the process that holds it dies. Every file is opened
//! close-on-exec, so a child process that runs another program does not keep the lock. A child that
//! was forked and runs on without `exec` shares its parent's locks until both have closed them.
//!
//! The Windows parts compile from the documented behaviour of the system calls; they have not been
//! run there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use super::directory::Directory;
use crate::key::PipelineFingerprint;

/// The ending of the lock file of a compile.
const COMPILE_LOCK: &str = ".compile";

/// The name of the file whose lock gives the right to compile a key.
pub(super) fn compile_lock_name(key: &PipelineFingerprint) -> String {
    format!("{key}{COMPILE_LOCK}")
}

/// Whether a name is one that [`compile_lock_name`] returns.
pub(super) fn is_compile_lock(name: &str) -> bool {
    let key = name.strip_suffix(COMPILE_LOCK);
    key.is_some_and(|key| key.parse::<PipelineFingerprint>().is_ok())
}

/// Locks a file, or fails at once, with the kind `WouldBlock` where another holds the lock.
///
/// Not the method of the standard library, which Rust has since 1.89.
pub(super) fn try_lock(file: &File) -> io::Result<()> {
    Ok(fs4::FileExt::try_lock(file)?)
}

/// Opens a file of the folder, or of its staging folder, and locks it. Creates the file, and both
/// folders, where they are missing. Fails at once, with the kind `WouldBlock`, where another holds the
/// lock.
pub(super) fn open_locked(directory: &Directory, path: &Path) -> io::Result<File> {
    directory.in_staging(|| try_open_locked(directory, path))
}

/// [`open_locked`], where all folders are there.
pub(super) fn try_open_locked(directory: &Directory, path: &Path) -> io::Result<File> {
    let mut options = lock_options(directory.create_new());
    options.create_new(false).create(true).read(true);
    let file = match options.open(path) {
        // The file of another user who shares the folder. A lock needs no more than to read it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            options.write(false).create(false).open(path)?
        }
        opened => opened?,
    };
    lock_regular(file)
}

/// Locks a file that exists; `None` where there is none. Fails at once where another holds the lock.
pub(super) fn lock_existing(path: &Path) -> io::Result<Option<File>> {
    let mut options = lock_options(OpenOptions::new());
    match options.read(true).open(path) {
        Ok(file) => lock_regular(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn lock_regular(file: File) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    try_lock(&file)?;
    Ok(file)
}

/// Adds what a lock file is opened with: no link is followed, and on Windows nobody can remove the
/// file while it is open.
pub(super) fn lock_options(mut options: OpenOptions) -> OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(super::files::SAFE_OPEN.bits() as i32);
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt as _;
        // FILE_SHARE_READ and FILE_SHARE_WRITE, without FILE_SHARE_DELETE.
        options.share_mode(1 | 2);
    }
    options
}

/// Whether a lock file still has a name. A lock on a file without one excludes nobody.
#[cfg(unix)]
pub(super) fn is_linked(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

/// See [`lock_options`]: a file that is open here cannot be removed.
#[cfg(not(unix))]
pub(super) const fn is_linked(_file: &File) -> bool {
    true
}

/// Removes a lock file and releases its lock.
///
/// On Unix the file goes first, so that whoever locks it next sees that it has no name. On Windows
/// an open file cannot be removed: it is closed first, and stays where another has just opened it.
pub(super) fn remove_locked(file: File, path: &Path) -> io::Result<()> {
    if cfg!(windows) {
        drop(file);
        return fs::remove_file(path);
    }
    if is_linked(&file) {
        fs::remove_file(path)?;
    }
    Ok(())
}
