//! Reads from the kernel's page cache, on the worker.
//!
//! If the name, the file and its pages are cached, a read waits for nothing. A hop to the blocking
//! pool alone takes longer than to read and hash 64 KiB. Larger entries are read in slices, between
//! which other tasks run. `RESOLVE_CACHED` and `RWF_NOWAIT` make a call fail where it would wait for
//! a disk. An entry that is not cached, not whole or too large is read on the blocking pool, with
//! the file that was opened.
//!
//! No flag keeps a file system from asking a server or another process when a file is opened or
//! closed. So only file systems of this machine's kernel are read here.
//!
//! One wait remains: if an entry is removed while it is read here, closing it frees its disk space.

use bytes::Bytes;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statfs, statx,
};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::File;
use std::io::IoSliceMut;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

use super::directory::Found;
use super::files::{SAFE_OPEN, is_use_stale, touch};
use super::shared::Shared;
use crate::artifact::Artifact;
use crate::artifact::FREED_INLINE;
use crate::artifact::digest::PayloadDigest;
use crate::artifact::frame::{FrameFormat, HEADER_LEN, decoding_work};
use crate::key::PipelineFingerprint;
use crate::sync::blocking;
use crate::sync::blocking::INLINE_BYTES;

/// How much larger a frame may be than its payload, as a rule.
const FRAMING: usize = HEADER_LEN + 1024;

/// The largest frame that is read in one call.
pub(crate) const MAX_WHOLE: usize = INLINE_BYTES + FRAMING;

/// The largest frame that is read in slices. A larger payload is freed on the blocking pool, so it is
/// better allocated there, and a hop is little beside its work.
pub(crate) const MAX_SLICED: usize = FREED_INLINE + FRAMING;

/// The bytes of one slice: read and hashed in about 0.1 ms. The kernel takes longer to copy the same
/// bytes in smaller slices.
const SLICE: usize = 512 * 1024;

/// The file systems that open and close a file without asking others, by the kernel's numbers.
/// Entries on any other one are read on the blocking pool.
///
/// An overlay asks the file systems beneath it. A cache's files are in the uppermost one, and that
/// cannot be a network file system.
const ON_THIS_MACHINE: [u32; 20] = [
    0x0000_3434, // nilfs2
    0x0000_4244, // hfs
    0x0000_482b, // hfs+
    0x0000_4d44, // fat
    0x0000_ef53, // ext2, ext3, ext4
    0x0102_1994, // tmpfs
    0x2011_bab0, // exfat
    0x2fc1_2fc1, // zfs
    0x3153_464a, // jfs
    0x5265_4973, // reiserfs
    0x5346_544e, // ntfs
    0x5846_5342, // xfs
    0x7366_746e, // ntfs3
    0x7371_7368, // squashfs
    0x794c_7630, // overlayfs
    0x8584_58f6, // ramfs
    0x9123_683e, // btrfs
    0xca45_1a4e, // bcachefs
    0xe0f5_e1e2, // erofs
    0xf2f5_2010, // f2fs
];

/// Whether the files of the file system that this path is on can be opened and closed without asking
/// others. Waits.
///
/// The first put makes a folder that is not there: on the file system of the one above it.
pub(crate) fn is_on_this_machine(path: &Path) -> bool {
    match statfs(path) {
        // The type of the number depends on the platform; its lower half does not.
        Ok(found) => ON_THIS_MACHINE.contains(&(found.f_type as u32)),
        Err(Errno::NOENT) => path.parent().is_some_and(is_on_this_machine),
        Err(_) => false,
    }
}

/// What is known of an entry without waiting.
pub(super) enum Cached {
    /// It was read, which took so many bytes of work, or there is none.
    Known(Found, usize),
    /// It can be read in slices.
    Large(LargeEntry),
    /// Only the blocking pool can tell. With the file, if it was opened.
    Unknown(Option<Opened>),
}

/// An entry that was opened and not read yet.
pub(super) struct LargeEntry {
    opened: Opened,
    len: usize,
    used: Option<SystemTime>,
}

/// A file of any kind that was opened on a worker. Closed on the blocking pool when it is dropped.
pub(super) struct Opened(Option<File>);

impl Opened {
    /// For callers that may wait when they close it.
    pub(super) fn into_file(mut self) -> Option<File> {
        self.0.take()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            blocking::discard(file);
        }
    }
}

/// Reads cached entries on the worker.
#[derive(Debug)]
pub(super) struct PageCache {
    shared: Arc<Shared>,
    /// Whether the folder's file system lets files be read on a worker.
    usable: bool,
    /// The reads in slices. They do not share the operations' permits, because a caller that is not
    /// polled keeps its read.
    slicing: Semaphore,
}

impl PageCache {
    /// Waits for the file system.
    pub(super) fn new(shared: Arc<Shared>, max_sliced_reads: usize) -> Self {
        Self {
            usable: is_on_this_machine(&shared.directory.root),
            slicing: Semaphore::new(max_sliced_reads.min(Semaphore::MAX_PERMITS)),
            shared,
        }
    }

    /// Looks for an entry, and reads it if it is small.
    pub(super) fn look(&self, key: &PipelineFingerprint) -> Cached {
        if !self.usable {
            return Cached::Unknown(None);
        }
        let directory = &self.shared.directory;
        let path = directory.entry(key);
        let flags = SAFE_OPEN.union(OFlags::CLOEXEC);
        let file = match openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::CACHED) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Cached::Known(Found::Missing, 0),
            Err(_) => return Cached::Unknown(None),
        };
        let Some((len, used)) = inspect(&file) else {
            return Cached::Unknown(Some(Opened(Some(file))));
        };
        if len > MAX_WHOLE {
            let opened = Opened(Some(file));
            return Cached::Large(LargeEntry { opened, len, used });
        }
        let Some(artifact) = read_whole(&file, 0, len, &directory.format, key) else {
            return Cached::Unknown(Some(Opened(Some(file))));
        };
        if is_use_stale(used) {
            self.touch_in_background(Opened(Some(file)));
        }
        Cached::Known(Found::Whole(artifact), len)
    }

    /// Reads an entry in slices, or returns its file.
    pub(super) async fn read_large(
        &self,
        key: &PipelineFingerprint,
        entry: LargeEntry,
    ) -> Result<Artifact, Opened> {
        let LargeEntry { opened, len, used } = entry;
        let Some(artifact) = self.read_sliced(&opened, len, key).await else {
            return Err(opened);
        };
        if is_use_stale(used) {
            self.touch_in_background(opened);
        } else {
            drop(opened.into_file());
        }
        Ok(artifact)
    }

    /// `None` where the entry is too large, or as many are being read as operations may run: each
    /// keeps its file and its memory between two slices.
    async fn read_sliced(
        &self,
        opened: &Opened,
        len: usize,
        key: &PipelineFingerprint,
    ) -> Option<Artifact> {
        if len > MAX_SLICED {
            return None;
        }
        let _permit = self.slicing.try_acquire().ok()?;
        let format = &self.shared.directory.format;
        read_sliced(opened.0.as_ref()?, 0, len, format, key).await
    }

    /// Records a use in the background. Skipped where all permits are taken: the next reader
    /// records it.
    fn touch_in_background(&self, opened: Opened) {
        if let Some(permit) = self.shared.operations.try_permit() {
            let held = (permit, self.shared.tasks.token());
            blocking::detach(move || {
                let _held = held;
                if let Some(file) = opened.into_file() {
                    touch(&file);
                }
            });
        }
    }
}

/// The length and the last use of a regular file.
fn inspect(file: &File) -> Option<(usize, Option<SystemTime>)> {
    // No network file system asks its server.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let asked = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::MTIME;
    let status = statx(file, "", flags, asked).ok()?;
    let is_file = FileType::from_raw_mode(status.stx_mode.into()) == FileType::RegularFile;
    let len = usize::try_from(status.stx_size).ok()?;
    let seconds = u64::try_from(status.stx_mtime.tv_sec).ok();
    let since = seconds.map(|seconds| Duration::new(seconds, status.stx_mtime.tv_nsec));
    let used = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    is_file.then_some((len, used))
}

/// Reads a frame of at most [`MAX_WHOLE`] bytes, which begins at `start` of the file. `None` where that
/// would wait, where the frame is not good, and where it unpacks to more.
pub(crate) fn read_whole(
    file: &File,
    start: u64,
    len: usize,
    format: &FrameFormat,
    key: &PipelineFingerprint,
) -> Option<Artifact> {
    let mut frame = vec![0; len];
    read_cached(file, &mut frame, start)?;
    let frame = Bytes::from(frame);
    if decoding_work(&frame) > MAX_WHOLE {
        return None;
    }
    format.decode(key, &frame).ok()
}

/// Reads a frame of at most [`MAX_SLICED`] bytes in slices, between which other tasks run. `None` as in
/// [`read_whole`].
pub(crate) async fn read_sliced(
    file: &File,
    start: u64,
    len: usize,
    format: &FrameFormat,
    key: &PipelineFingerprint,
) -> Option<Artifact> {
    let mut frame = vec![0; len];
    let mut digest = PayloadDigest::default();
    let mut read = 0;
    while read < len {
        // A small rest is read with the last slice.
        let end = Some(read + SLICE).filter(|end| end + FRAMING < len);
        let end = end.unwrap_or(len);
        blocking::consume_budget(end - read).await;
        read_cached(file, &mut frame[read..end], start + read as u64)?;
        digest.update(&frame[..end])?;
        read = end;
    }
    let frame = Bytes::from(frame);
    format.decode_digested(key, &frame, digest).ok()
}

/// Fills a part of a frame. `None` where that would wait.
fn read_cached(file: &File, part: &mut [u8], offset: u64) -> Option<()> {
    let len = part.len();
    let mut whole = [IoSliceMut::new(part)];
    let read = preadv2(file, &mut whole, offset, ReadWriteFlags::NOWAIT).ok()?;
    (read == len).then_some(())
}
