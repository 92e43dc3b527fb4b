//! Entries that are at hand: name, file and pages are in the kernel's caches.
//!
//! Reading such an entry waits for nothing, so it is done on the worker; the hop to the blocking
//! pool alone would take longer than to read and hash 64 KiB. What is larger is read in slices,
//! between which others have their turn. The kernel is asked for no more than it can tell at once:
//! `RESOLVE_CACHED` and `RWF_NOWAIT` fail where it would have to wait for a disk. Whatever is not
//! whole, or too large, is left to the blocking pool, with the file that was opened.
//!
//! No flag keeps a file system from asking others when a file is opened or closed, as one does that
//! is served by another machine or process. So only those of this machine's kernel are read here.
//!
//! What remains: where an entry is removed while it is being read here, closing it frees its space.

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

use super::Inner;
use super::directory::{self, Found, SAFE_OPEN};
use super::error::Fault;
use crate::artifact::Artifact;
use crate::artifact::FREED_INLINE;
use crate::artifact::digest::PayloadDigest;
use crate::artifact::frame::{FrameFormat, HEADER_LEN, decoding_work};
use crate::key::PipelineFingerprint;
use crate::store::Fetched;
use crate::sync::blocking;
use crate::sync::blocking::INLINE_BYTES;

/// Frames are a little larger than what they carry.
const FRAMING: usize = HEADER_LEN + 1024;

/// What is read at once.
const MAX_WHOLE: usize = INLINE_BYTES + FRAMING;

/// What is read in slices. What is larger is freed on the blocking pool, and so best allocated there;
/// a hop is little beside the work that it takes.
const MAX_SLICED: usize = FREED_INLINE + FRAMING;

/// As much as a task may do in one turn: read and hashed in about 0.1 ms. The kernel takes longer to
/// copy the same in smaller ones.
const SLICE: usize = 512 * 1024;

/// File systems that open and close a file by themselves, as the kernel numbers them. What is not
/// among them is read on the blocking pool.
///
/// An overlay asks those beneath it. What a cache writes is in the uppermost, which no network file
/// system can be.
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

/// Whether a folder's files can be opened and closed without asking others. Waits.
pub(super) fn is_on_this_machine(folder: &Path) -> bool {
    // Platforms differ in the type of the number, not in its lower half.
    statfs(folder).is_ok_and(|found| ON_THIS_MACHINE.contains(&(found.f_type as u32)))
}

/// What can be done about an entry without waiting.
enum Cached {
    /// It was read, which took so much work, or there is none.
    Told(Found, usize),
    /// It is to be read in slices.
    Large(Entry),
    /// It is for the blocking pool, with what was opened for nothing.
    Unknown(Option<Opened>),
}

/// An entry that was not read.
struct Entry {
    opened: Opened,
    len: usize,
    used: Option<SystemTime>,
}

/// The file of an entry, of whatever kind, that was opened on a worker. Wherever that is left, it is
/// closed on the blocking pool.
struct Opened(Option<File>);

impl Opened {
    /// For who may wait to close it.
    fn into_file(mut self) -> Option<File> {
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

impl Inner {
    /// Reads what is at hand, and has the rest read on the blocking pool; counts either way.
    pub(super) async fn get_cached(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<Fetched, Fault> {
        let opened = match self.look_cached(key) {
            Cached::Told(found, work) => {
                let fetched = self.count_lookup(key, Ok(found));
                blocking::consume_budget(work).await;
                return fetched;
            }
            Cached::Large(entry) => match self.read_large(key, entry).await {
                Ok(artifact) => return self.count_lookup(key, Ok(Found::Whole(artifact))),
                Err(opened) => Some(opened),
            },
            Cached::Unknown(opened) => opened,
        };
        match opened {
            Some(opened) => self.go_on(*key, opened).await,
            None => self.read_on_pool(*key).await,
        }
    }

    /// Reads on the blocking pool what is open already, unless it would stay open until it is its
    /// turn: there is no bound on how many wait for theirs.
    async fn go_on(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        opened: Opened,
    ) -> Result<Fetched, Fault> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            drop(opened);
            return self.read_on_pool(key).await;
        };
        let read = move |inner: &Arc<Self>| match opened.into_file() {
            Some(file) => inner.count_lookup(&key, inner.folder.read_opened(&key, file)),
            None => inner.read(&key),
        };
        self.run_with(Some(permit), read).await
    }

    /// Tells of what is at hand, and reads it at once where it is small.
    fn look_cached(&self, key: &PipelineFingerprint) -> Cached {
        if !self.page_cache {
            return Cached::Unknown(None);
        }
        let path = self.folder.entry(key);
        let flags = SAFE_OPEN.union(OFlags::CLOEXEC);
        let file = match openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::CACHED) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Cached::Told(Found::Missing, 0),
            Err(_) => return Cached::Unknown(None),
        };
        let Some((len, used)) = inspect(&file) else {
            return Cached::Unknown(Some(Opened(Some(file))));
        };
        if len > MAX_WHOLE {
            let opened = Opened(Some(file));
            return Cached::Large(Entry { opened, len, used });
        }
        let Some(artifact) = read_whole(&file, len, &self.folder.format, key) else {
            return Cached::Unknown(Some(Opened(Some(file))));
        };
        if directory::is_use_stale(used) {
            self.touch_aside(Opened(Some(file)));
        }
        Cached::Told(Found::Whole(artifact), len)
    }

    /// Reads an entry in slices, or hands its file back.
    async fn read_large(
        &self,
        key: &PipelineFingerprint,
        entry: Entry,
    ) -> Result<Artifact, Opened> {
        let Entry { opened, len, used } = entry;
        let Some(artifact) = self.read_sliced(&opened, len, key).await else {
            return Err(opened);
        };
        if directory::is_use_stale(used) {
            self.touch_aside(opened);
        } else {
            drop(opened.into_file());
        }
        Ok(artifact)
    }

    /// Nothing where it is too large, or where as many are being read as operations may be in
    /// flight: each keeps its file and its memory between its key_locks. They do not share the permits
    /// of those, as nobody knows when a caller takes his next turn.
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
        let mut frame = vec![0; len];
        let mut digest = PayloadDigest::default();
        let mut read = 0;
        while read < len {
            // What little is left over has no turn of its own.
            let end = Some(read + SLICE).filter(|end| end + FRAMING < len);
            let end = end.unwrap_or(len);
            blocking::consume_budget(end - read).await;
            read_cached(opened.0.as_ref()?, &mut frame[read..end], read)?;
            digest.update(&frame[..end])?;
            read = end;
        }
        let frame = Bytes::from(frame);
        let format = &self.folder.format;
        format.decode_digested(key, &frame, digest).ok()
    }

    /// Records that an entry is used, in the background. Another reader does it where there are
    /// too many at once.
    fn touch_aside(&self, opened: Opened) {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let held = (permit, self.tasks.token());
            blocking::detach(move || {
                let _held = held;
                if let Some(file) = opened.into_file() {
                    directory::touch(&file);
                }
            });
        }
    }
}

/// The length and the last use of a regular file.
fn inspect(file: &File) -> Option<(usize, Option<SystemTime>)> {
    // No server of a network file system is asked either.
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

fn read_whole(
    file: &File,
    len: usize,
    format: &FrameFormat,
    key: &PipelineFingerprint,
) -> Option<Artifact> {
    let mut frame = vec![0; len];
    read_cached(file, &mut frame, 0)?;
    let frame = Bytes::from(frame);
    if decoding_work(&frame) > MAX_WHOLE {
        return None;
    }
    format.decode(key, &frame).ok()
}

/// Fills a part of a frame, or nothing where that would wait.
fn read_cached(file: &File, part: &mut [u8], offset: usize) -> Option<()> {
    let len = part.len();
    let mut whole = [IoSliceMut::new(part)];
    let read = preadv2(file, &mut whole, offset as u64, ReadWriteFlags::NOWAIT).ok()?;
    (read == len).then_some(())
}
