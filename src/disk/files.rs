//! The system calls on one file of the folder, which may be anything. A file is opened without
//! following a link and without waiting for a FIFO's other end, and inspected through the handle that
//! is then read, never by its name.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
#[cfg(not(unix))]
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::error::{Fault, at};

/// How old the recorded time of use may get before a hit renews it.
const USE_GRANULARITY: Duration = Duration::from_secs(60 * 60);

/// How a path is opened under which there may be anything: no link is followed, a FIFO without another
/// end does not block, and no terminal becomes the controlling one. The standard library adds
/// close-on-exec.
#[cfg(unix)]
pub(super) const SAFE_OPEN: rustix::fs::OFlags = rustix::fs::OFlags::NOFOLLOW
    .union(rustix::fs::OFlags::NONBLOCK)
    .union(rustix::fs::OFlags::NOCTTY);

/// Opens a regular file to read it. `None` where there is no file.
pub(super) fn open(path: &Path) -> Result<Option<(File, Metadata)>, Fault> {
    let mut options = OpenOptions::new();
    options.read(true);
    open_with(options, path)
}

pub(super) fn open_with(
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has flags to add"))]
    mut options: OpenOptions,
    path: &Path,
) -> Result<Option<(File, Metadata)>, Fault> {
    #[cfg(not(unix))]
    if look(path)?.is_none() {
        return Ok(None);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(SAFE_OPEN.bits() as i32);
    }
    match options.open(path) {
        Ok(file) => regular(file, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A link, a socket or a device without a driver does not open. The error for that depends on
        // the platform.
        Err(error) => match look(path) {
            Err(unsafe_entry @ Fault::NotAFile(_)) => Err(unsafe_entry),
            _ => Err(at("open", path)(error).into()),
        },
    }
}

/// The file that was opened, if it is a regular one.
pub(super) fn regular(file: File, path: &Path) -> Result<(File, Metadata), Fault> {
    let metadata = file.metadata().map_err(at("inspect", path))?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(Fault::NotAFile(path.to_owned()))
    }
}

/// Records a use of an entry: sets its modification time to now, if that is older than
/// [`USE_GRANULARITY`].
pub(super) fn renew_use(file: &File, used: Option<SystemTime>) {
    if is_use_stale(used) {
        touch(file);
    }
}

/// Whether the recorded time of use is so old that the next use is recorded.
pub(super) fn is_use_stale(used: Option<SystemTime>) -> bool {
    let age = used.and_then(|used| SystemTime::now().duration_since(used).ok());
    age.is_some_and(|age| age >= USE_GRANULARITY)
}

/// Sets an entry's modification time to now. Errors are ignored: the entry is then evicted earlier
/// than it should be.
pub(super) fn touch(file: &File) {
    #[cfg(unix)]
    {
        use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
        // A user who may write a file but does not own it may only set both times to "now".
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = futimens(file, &times);
    }
    #[cfg(not(unix))]
    let _ = file.set_modified(SystemTime::now());
}

/// The first `len` bytes of a file, or fewer if it has become shorter.
pub(super) fn read_up_to(file: &File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reserved = usize::try_from(len).map(|len| bytes.try_reserve_exact(len));
    if !matches!(reserved, Ok(Ok(()))) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    // In one call, as a rule. The standard library makes several for a part of a file.
    #[cfg(unix)]
    while (bytes.len() as u64) < len {
        match rustix::io::read(file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    #[cfg(not(unix))]
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The metadata of a regular file. `None` where there is no file.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, Fault> {
    match ignore_missing(fs::symlink_metadata(path)).map_err(at("inspect", path))? {
        Some(metadata) if !metadata.is_file() => Err(Fault::NotAFile(path.to_owned())),
        found => Ok(found),
    }
}

/// Makes the names in a folder durable, where the platform has such a call.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // Some network and user-space file systems cannot sync a folder. Nothing else helps.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// `None` where the file was not there.
pub(super) fn ignore_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(unix)]
pub(super) fn same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// A guess: there is no stable identity of a file here.
#[cfg(not(unix))]
pub(super) fn same_file(a: &Metadata, b: &Metadata) -> bool {
    a.len() == b.len() && a.modified().ok() == b.modified().ok()
}
