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

/// How far ahead of this machine's clock a recorded time may be: the clock of a file server differs a
/// little.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// How a path is opened under which there may be anything: no link is followed, a FIFO without another
/// end does not block, and no terminal becomes the controlling one. The standard library adds
/// close-on-exec.
#[cfg(unix)]
pub(crate) const SAFE_OPEN: rustix::fs::OFlags = rustix::fs::OFlags::NOFOLLOW
    .union(rustix::fs::OFlags::NONBLOCK)
    .union(rustix::fs::OFlags::NOCTTY);

/// Opens a regular file to read it. `None` where there is no file.
pub(super) fn open(path: &Path) -> Result<Option<(File, Metadata)>, Fault> {
    unless_stale(again_if_stale(|| open_once(path))).map(Option::flatten)
}

/// [`open`], where a stale file is a fault.
pub(super) fn open_once(path: &Path) -> Result<Option<(File, Metadata)>, Fault> {
    let mut options = OpenOptions::new();
    options.read(true);
    open_with(&mut options, path)
}

pub(super) fn open_with(
    options: &mut OpenOptions,
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

/// Whether the recorded time of use is so old, or so far in the future, that the next use is recorded.
pub(super) fn is_use_stale(used: Option<SystemTime>) -> bool {
    // A time that cannot be told would never get old.
    used.is_none_or(|used| is_unused_for(used, USE_GRANULARITY) || is_in_future(used))
}

/// Whether an entry was last used at least so long ago.
pub(super) fn is_unused_for(used: SystemTime, time: Duration) -> bool {
    used.elapsed().is_ok_and(|age| age >= time)
}

/// Whether a clock was wrong when the time was recorded. Such a time counts as now.
pub(super) fn is_in_future(used: SystemTime) -> bool {
    let ahead = used.duration_since(SystemTime::now());
    ahead.is_ok_and(|ahead| ahead > CLOCK_TOLERANCE)
}

/// The time itself, or now where it is in the future.
pub(super) fn not_in_future(used: SystemTime) -> SystemTime {
    if is_in_future(used) {
        SystemTime::now()
    } else {
        used
    }
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

/// Sets the modification time of the file of this name to now, and returns the file. For one that is
/// dated in the future, so that it gets old.
pub(super) fn date_now(path: &Path) -> Option<File> {
    let (file, _) = open(path).ok().flatten()?;
    touch(&file);
    Some(file)
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
    unless_stale(again_if_stale(|| look_once(path))).map(Option::flatten)
}

/// [`look`], where a stale file is a fault.
pub(super) fn look_once(path: &Path) -> Result<Option<Metadata>, Fault> {
    match ignore_missing(fs::symlink_metadata(path)).map_err(at("inspect", path))? {
        Some(metadata) if !metadata.is_file() => Err(Fault::NotAFile(path.to_owned())),
        found => Ok(found),
    }
}

/// Takes a step that begins with a name, and once more if a network file system replaced or removed the
/// file meanwhile.
pub(super) fn again_if_stale<T>(step: impl Fn() -> Result<T, Fault>) -> Result<T, Fault> {
    match step() {
        Err(fault) if fault.is_stale() => step(),
        done => done,
    }
}

/// `None` where the file is still stale. To a reader it is then not there.
pub(super) fn unless_stale<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Err(fault) if fault.is_stale() => Ok(None),
        done => done.map(Some),
    }
}

/// Makes the names in a folder durable, where the platform has such a call.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
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
pub(crate) fn same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// A guess: there is no stable identity of a file here.
#[cfg(not(unix))]
pub(crate) fn same_file(a: &Metadata, b: &Metadata) -> bool {
    a.len() == b.len() && a.modified().ok() == b.modified().ok()
}
