//! Entries that are at hand: name, file and pages are in the kernel's caches.
//!
//! Reading such an entry takes a few microseconds and waits for nothing, so it is done on the
//! worker; the hop to the blocking pool alone would take several times as long. The kernel is asked
//! for no more than it can tell at once: `RESOLVE_CACHED` and `RWF_NOWAIT` fail where it would have
//! to wait for a disk. Whatever is not whole or not small is left to the blocking pool as
//! well, which can do something about it.
//!
//! What remains: where an entry is removed while it is being read here, closing it frees its space.

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::File;
use std::io::IoSliceMut;
use std::time::{Duration, SystemTime};

use super::folder::{Folder, Found, WARY};
use super::trim;
use crate::PipelineFingerprint;
use crate::artifact::frame::{HEADER_LEN, decoding_work};
use crate::off_worker::INLINE_BYTES;

/// Frames are a little larger than what they carry.
const MAX_LEN: usize = INLINE_BYTES + HEADER_LEN + 1024;

/// A whole entry or that there is none; `None` where that cannot be told without waiting. What was
/// not used for long is handed over to have its time of use renewed.
pub(super) fn read(
    folder: &Folder,
    key: &PipelineFingerprint,
    renew: impl FnOnce(File),
) -> Option<Found> {
    let path = folder.entry(key);
    let flags = WARY.union(OFlags::CLOEXEC);
    let file = match openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::CACHED) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Some(Found::Missing),
        Err(_) => return None,
    };
    let status = inspect(&file)?;
    let frame = Bytes::from(read_cached(&file, status.len)?);
    if decoding_work(&frame) > MAX_LEN {
        return None;
    }
    let artifact = folder.format.decode(key, &frame).ok()?;
    if trim::is_use_stale(status.used) {
        renew(file);
    }
    Some(Found::Whole(artifact))
}

struct Status {
    len: usize,
    used: Option<SystemTime>,
}

/// Of a regular file that is not too long.
fn inspect(file: &File) -> Option<Status> {
    // No server of a network file system is asked either.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let asked = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::MTIME;
    let status = statx(file, "", flags, asked).ok()?;
    let is_file = FileType::from_raw_mode(status.stx_mode.into()) == FileType::RegularFile;
    let len = usize::try_from(status.stx_size).ok()?;
    let seconds = u64::try_from(status.stx_mtime.tv_sec).ok();
    let since = seconds.map(|seconds| Duration::new(seconds, status.stx_mtime.tv_nsec));
    (is_file && len <= MAX_LEN).then_some(Status {
        len,
        used: since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)),
    })
}

fn read_cached(file: &File, len: usize) -> Option<Vec<u8>> {
    let mut frame = vec![0; len];
    let mut whole = [IoSliceMut::new(&mut frame)];
    let read = preadv2(file, &mut whole, 0, ReadWriteFlags::NOWAIT).ok()?;
    (read == len).then_some(frame)
}
