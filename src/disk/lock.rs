//! Advisory locks on files of the folder's housekeeping. The system lets go of one when the process
//! that has it dies, however it dies.

use std::fs::File;
use std::io;
use std::path::Path;

use super::directory::Directory;

/// Opens a file beside the temporary ones, creates it where it is missing, and locks it; an error
/// at once, of kind `WouldBlock`, where another has the lock.
pub(super) fn open_locked(folder: &Directory, name: &str) -> io::Result<File> {
    let path = folder.staging().join(name);
    match try_open_locked(folder, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            folder.create_staging()?;
            try_open_locked(folder, &path)
        }
        opened => opened,
    }
}

fn try_open_locked(folder: &Directory, path: &Path) -> io::Result<File> {
    let mut options = folder.create_new();
    options.create_new(false).create(true).read(true);
    #[cfg(unix)]
    {
        use super::directory::WARY;
        use rustix::fs::{FlockOperation, flock};
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(WARY.bits() as i32);
        let file = match options.open(path) {
            // Another user's, who shares the folder and lets it be read, as far as a lock asks.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                options.write(false).create(false).open(path)?
            }
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }
    // Without a lock two may meet: two counts of which one is lost, until the next.
    #[cfg(not(unix))]
    options.open(path)
}

/// Whether a file still has a name: one that was removed since it was opened locks nobody out.
#[cfg(unix)]
pub(super) fn linked(file: &File, _path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

#[cfg(not(unix))]
pub(super) fn linked(_file: &File, path: &Path) -> bool {
    path.exists()
}
