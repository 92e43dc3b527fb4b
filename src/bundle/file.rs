//! The system calls on the file of a bundle. Everything here waits: it is called on the blocking pool
//! only.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::error::BundleError;
use crate::disk::files::same_file;

/// How often a staged file is opened again that another writer has finished meanwhile.
const OPEN_ATTEMPTS: usize = 8;

/// Opens a bundle to read it, and its length. Follows links, and waits for no FIFO's other end.
pub(super) fn open(path: &Path) -> Result<(File, u64), BundleError> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(OFlags::NONBLOCK.union(OFlags::NOCTTY).bits() as i32);
    }
    let file = options.open(path).map_err(BundleError::io("open", path))?;
    let metadata = file.metadata().map_err(BundleError::io("inspect", path))?;
    if !metadata.is_file() {
        return Err(BundleError::NotAFile {
            path: path.to_owned(),
        });
    }
    Ok((file, metadata.len()))
}

/// Up to `len` bytes from this offset. Fewer where the file ends.
pub(super) fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reserved = bytes.try_reserve_exact(len);
    reserved.map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    bytes.resize(len, 0);
    let mut read = 0;
    while read < len {
        match read_once(file, &mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(unix)]
fn read_once(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

/// Moves the position of the file, which nothing that reads relies on.
#[cfg(windows)]
fn read_once(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, offset)
}

#[cfg(not(any(unix, windows)))]
fn read_once(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The name under which a bundle is written.
pub(super) fn partial_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Opens the staged file of a bundle, or what an earlier writer has left of it, and locks it. Returns its
/// length.
pub(super) fn open_partial(partial: &Path) -> Result<(File, u64), BundleError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A link is not followed: what it names would be overwritten.
        options.custom_flags(crate::disk::files::SAFE_OPEN.bits() as i32);
    }
    for _ in 0..OPEN_ATTEMPTS {
        let file = match options.open(partial) {
            Err(_) if is_no_file(partial) => {
                return Err(BundleError::NotAFile {
                    path: partial.to_owned(),
                });
            }
            opened => opened.map_err(BundleError::io("create", partial))?,
        };
        if let Some(len) = lock_staged(&file, partial)? {
            return Ok((file, len));
        }
    }
    Err(BundleError::Busy {
        path: partial.to_owned(),
    })
}

/// Locks the staged file, and returns its length. `None` where it has lost its name since it was opened:
/// another writer may have made it the finished bundle, which is not to be written to.
fn lock_staged(file: &File, partial: &Path) -> Result<Option<u64>, BundleError> {
    if let Err(error) = fs4::FileExt::try_lock(file).map_err(io::Error::from) {
        // A file system without locks: there it is up to the user that one process writes.
        if error.kind() == io::ErrorKind::WouldBlock {
            return Err(BundleError::Busy {
                path: partial.to_owned(),
            });
        }
    }
    let metadata = file.metadata();
    let metadata = metadata.map_err(BundleError::io("inspect", partial))?;
    let named = fs::symlink_metadata(partial);
    let has_name = named.is_ok_and(|named| same_file(&named, &metadata));
    Ok((has_name && metadata.is_file()).then_some(metadata.len()))
}

fn is_no_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_became_the_finished_bundle_is_not_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bundle");
        let partial = partial_of(&path);
        let opened_early = File::create(&partial).unwrap();
        fs::write(&partial, "finished").unwrap();
        fs::rename(&partial, &path).unwrap();
        assert!(matches!(lock_staged(&opened_early, &partial), Ok(None)));
        // Nor where the next writer has a file of that name.
        let (_next, len) = open_partial(&partial).unwrap();
        assert_eq!(len, 0);
        assert!(matches!(lock_staged(&opened_early, &partial), Ok(None)));
        assert_eq!(fs::read(&path).unwrap(), b"finished");
    }
}
