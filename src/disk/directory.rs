//! The folder: one file per key, and the system calls that read, remove and sync it.
//!
//! Everything here waits: it is called on the blocking pool only. A folder may hold what no cache
//! made, so an entry is opened without following a link and without waiting for a FIFO's other
//! end, and looked at through the handle that is then read, never through its name.

use bytes::Bytes;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::{Fault, at};
use crate::artifact::frame::{FrameFormat, HEADER_LEN, MAX_OVERHEAD};
use crate::artifact::{Artifact, ArtifactMetadata, FrameError};
use crate::key::PipelineFingerprint;

/// How old the recorded time of use may get before a hit renews it.
const USE_GRANULARITY: Duration = Duration::from_secs(60 * 60);

/// The folder of a disk tier.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: PathBuf,
    pub(super) format: FrameFormat,
    /// Whether other users are kept out of what is created.
    pub(super) private: bool,
}

/// How a name is opened behind which anything may stand: no link is followed, no other end of a FIFO
/// waited for, and no terminal becomes this process's own. Close-on-exec is the standard library's
/// own default.
#[cfg(unix)]
pub(super) const SAFE_OPEN: rustix::fs::OFlags = rustix::fs::OFlags::NOFOLLOW
    .union(rustix::fs::OFlags::NONBLOCK)
    .union(rustix::fs::OFlags::NOCTTY);

/// What stands under a key's name.
pub(super) enum Found {
    Whole(Artifact),
    Missing,
    /// A regular file that is not the frame of this key; the file, to tell it from its successor.
    Corrupt(File, FrameError),
}

impl Directory {
    /// Where the entry of a key is.
    pub(super) fn entry(&self, key: &PipelineFingerprint) -> PathBuf {
        self.of_key(key, ".bin")
    }

    /// Where temporary files and locks are: within the root, so that a rename can move a file from
    /// there to its entry.
    pub(super) fn staging(&self) -> PathBuf {
        self.root.join(".staging")
    }

    /// Where a corrupt entry is set aside: one place per key, so that they cannot pile up.
    fn aside(&self, key: &PipelineFingerprint) -> PathBuf {
        self.of_key(key, ".corrupt")
    }

    /// In one allocation: a read of what is at hand takes little more time than its name.
    fn of_key(&self, key: &PipelineFingerprint, ending: &str) -> PathBuf {
        let hex = key.hex();
        let len = self.root.as_os_str().len() + 1 + hex.len() + ending.len();
        let mut path = PathBuf::with_capacity(len);
        path.push(&self.root);
        path.push(&*hex);
        path.as_mut_os_string().push(ending);
        path
    }

    /// Creates the folder where it is missing.
    pub(super) fn create(&self) -> io::Result<()> {
        let missing: Vec<&Path> = self.root.ancestors().take_while(|a| !a.exists()).collect();
        self.dir_builder().recursive(true).create(&self.root)?;
        // What a flush makes durable is found again only if the way to it is durable, too.
        for parent in missing.iter().filter_map(|folder| folder.parent()) {
            if let Err(error) = sync_folder(parent) {
                tracing::warn!(folder = %parent.display(), %error, "a new cache folder may be lost on power loss");
            }
        }
        Ok(())
    }

    /// Creates the folder for temporary files, and the folder itself, where they are missing.
    pub(super) fn create_staging(&self) -> io::Result<()> {
        if !self.root.exists() {
            self.create().map_err(at("create", &self.root))?;
        }
        let staging = self.staging();
        match self.dir_builder().create(&staging) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(at("create", &staging)(error))
            }
            Ok(()) if !self.private => {
                // Whoever may add entries may stage them, whatever this process's umask is.
                let permissions = fs::metadata(&self.root)?.permissions();
                fs::set_permissions(&staging, permissions).map_err(at("open up", &staging))
            }
            _ => Ok(()),
        }
    }

    /// What creates folders with this folder's mode.
    fn dir_builder(&self) -> fs::DirBuilder {
        #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(if self.private { 0o700 } else { 0o777 });
        }
        builder
    }

    /// Options that create a new file with this folder's mode.
    pub(super) fn create_new(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(if self.private { 0o600 } else { 0o666 });
        }
        options
    }

    /// Reads and verifies an entry, and renews its time of use.
    pub(super) fn read(&self, key: &PipelineFingerprint) -> Result<Found, Fault> {
        self.examine(key, renew_file_use)
    }

    /// [`read`](Self::read) of an entry whose file, if it is one, was opened already.
    #[cfg(target_os = "linux")]
    pub(super) fn read_opened(
        &self,
        key: &PipelineFingerprint,
        file: File,
    ) -> Result<Found, Fault> {
        let path = self.entry(key);
        self.verify(key, &path, regular(file, &path)?, renew_file_use)
    }

    /// Reads and verifies an entry, and tells of a whole one.
    pub(super) fn examine(
        &self,
        key: &PipelineFingerprint,
        whole: impl FnOnce(&File, &Metadata),
    ) -> Result<Found, Fault> {
        let path = self.entry(key);
        match open(&path)? {
            Some(opened) => self.verify(key, &path, opened, whole),
            None => Ok(Found::Missing),
        }
    }

    fn verify(
        &self,
        key: &PipelineFingerprint,
        path: &Path,
        (file, metadata): (File, Metadata),
        whole: impl FnOnce(&File, &Metadata),
    ) -> Result<Found, Fault> {
        let len = metadata.len();
        if len > self.format.max_frame() {
            return Ok(Found::Corrupt(file, FrameError::TooLarge));
        }
        // A file that shrinks meanwhile is read short, one that grows is read to its old length;
        // either way the frame holds or it does not.
        let frame = read_up_to(&file, len).map_err(at("read", path))?;
        Ok(match self.format.decode(key, &Bytes::from(frame)) {
            Ok(artifact) => {
                whole(&file, &metadata);
                Found::Whole(artifact)
            }
            Err(error) => Found::Corrupt(file, error),
        })
    }

    /// Opens the file of an entry; `None` where there is none.
    pub(super) fn open(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<(File, Metadata)>, Fault> {
        open(&self.entry(key))
    }

    /// The metadata of an entry, by the start of its file; `None` where that is no frame of the key.
    pub(super) fn metadata(&self, key: &PipelineFingerprint) -> Option<ArtifactMetadata> {
        // Metadata is a few words, as a rule.
        const USUAL: u64 = 4096;
        let (mut file, _) = open(&self.entry(key)).ok()??;
        let mut start = Vec::new();
        for len in [USUAL, MAX_OVERHEAD as u64] {
            let more = len - start.len() as u64;
            file.by_ref().take(more).read_to_end(&mut start).ok()?;
            match self.format.decode_metadata(key, &start) {
                Err(FrameError::LengthMismatch) => {}
                decoded => return decoded.ok(),
            }
        }
        None
    }

    /// Whether there is an entry that could be whole, by its kind and length alone.
    pub(super) fn contains(&self, key: &PipelineFingerprint) -> Result<bool, Fault> {
        let range = HEADER_LEN as u64..=self.format.max_frame();
        let found = look(&self.entry(key))?;
        Ok(found.is_some_and(|metadata| range.contains(&metadata.len())))
    }

    /// Removes an entry, and what was set aside of it; the bytes of the file, if there was an
    /// entry.
    pub(super) fn remove(&self, key: &PipelineFingerprint) -> Result<Option<u64>, Fault> {
        self.remove_aside(key)?;
        let path = self.entry(key);
        let Some(metadata) = look(&path)? else {
            return Ok(None);
        };
        let removed = ignore_missing(fs::remove_file(&path)).map_err(at("remove", &path))?;
        Ok(removed.map(|()| metadata.len()))
    }

    /// Removes what was set aside of an entry.
    pub(super) fn remove_aside(&self, key: &PipelineFingerprint) -> Result<(), Fault> {
        let aside = self.aside(key);
        match ignore_missing(fs::remove_file(&aside)) {
            // A folder is nothing that a cache made.
            Err(error) if !aside.is_dir() => Err(at("remove", &aside)(error).into()),
            _ => Ok(()),
        }
    }

    /// Renames a corrupt entry away from its key.
    ///
    /// One that has replaced it since it was read stays where it is. Another process may do so just
    /// between the look and the rename. Then the good one has been renamed, and is put back: it is
    /// interchangeable with whatever came after it.
    pub(super) fn set_aside(&self, key: &PipelineFingerprint, corrupt: &File) -> io::Result<()> {
        let (entry, aside) = (self.entry(key), self.aside(key));
        let corrupt = corrupt.metadata()?;
        let is_at = |path: &Path| -> io::Result<bool> {
            let found = ignore_missing(fs::symlink_metadata(path))?;
            Ok(found.is_some_and(|found| same_file(&corrupt, &found)))
        };
        if is_at(&entry)?
            && ignore_missing(fs::rename(&entry, &aside))?.is_some()
            && !is_at(&aside)?
        {
            fs::rename(&aside, &entry)?;
        }
        Ok(())
    }

    /// Makes the data of an entry durable; whether there still is an entry.
    pub(super) fn sync_entry(&self, key: &PipelineFingerprint) -> Result<bool, SyncError> {
        let path = self.entry(key);
        let mut options = OpenOptions::new();
        // Windows syncs only what is open for writing.
        options.read(true).write(cfg!(windows));
        match open_with(options, &path) {
            Ok(Some((file, _))) => {
                let synced = file.sync_data().map_err(at("sync", &path));
                synced.map(|()| true).map_err(SyncError::Sync)
            }
            // What stands there now is not what was put.
            Ok(None) | Err(Fault::NotAFile(_)) => Ok(false),
            Err(Fault::Io(error)) => Err(SyncError::Open(error)),
        }
    }

    /// Makes the names in the folder durable. No folder, no names.
    ///
    /// Then that the temporary names are gone: where there is no journal, a power loss could leave
    /// an entry with both, and whoever removed the temporary one would free the file.
    pub(super) fn sync(&self) -> io::Result<()> {
        for folder in [&self.root, &self.staging()] {
            ignore_missing(sync_folder(folder)).map_err(at("sync", folder))?;
        }
        Ok(())
    }
}

/// Why the data of an entry may not be durable.
pub(super) enum SyncError {
    /// Nothing was tried; a later try tells the truth.
    Open(io::Error),
    /// The medium refused. A later try may succeed falsely: see [`super::durability`].
    Sync(io::Error),
}

/// Opens a regular file to read it; `None` where there is nothing.
fn open(path: &Path) -> Result<Option<(File, Metadata)>, Fault> {
    let mut options = OpenOptions::new();
    options.read(true);
    open_with(options, path)
}

fn open_with(
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
        // A link, a socket or a device without a driver does not open; which error that gives
        // depends on the platform.
        Err(error) => match look(path) {
            Err(unsafe_entry @ Fault::NotAFile(_)) => Err(unsafe_entry),
            _ => Err(at("open", path)(error).into()),
        },
    }
}

/// What was opened, if it is a regular file.
fn regular(file: File, path: &Path) -> Result<(File, Metadata), Fault> {
    let metadata = file.metadata().map_err(at("inspect", path))?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(Fault::NotAFile(path.to_owned()))
    }
}

fn renew_file_use(file: &File, metadata: &Metadata) {
    renew_use(file, metadata.modified().ok());
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

/// What a file begins with, up to a length that it is known to have had.
fn read_up_to(file: &File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reserved = usize::try_from(len).map(|len| bytes.try_reserve_exact(len));
    if !matches!(reserved, Ok(Ok(()))) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    // In one call, as a rule; the standard library would take several for a part of a file.
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

/// The metadata of a regular file; `None` where there is nothing.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, Fault> {
    match ignore_missing(fs::symlink_metadata(path)).map_err(at("inspect", path))? {
        Some(metadata) if !metadata.is_file() => Err(Fault::NotAFile(path.to_owned())),
        found => Ok(found),
    }
}

/// Makes the names in a folder durable, where the platform has such a call.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // Some network and user-space file systems cannot sync a folder; there is no more to do.
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
fn same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// A guess: there is no stable identity of a file here.
#[cfg(not(unix))]
fn same_file(a: &Metadata, b: &Metadata) -> bool {
    a.len() == b.len() && a.modified().ok() == b.modified().ok()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

    #[test]
    fn a_good_entry_that_came_after_a_corrupt_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let folder = Directory {
            root: root.path().to_owned(),
            format: FrameFormat::new(None, 100),
            private: true,
        };
        let entry = folder.entry(&KEY);
        fs::write(&entry, "torn").unwrap();
        let Ok(Found::Corrupt(corrupt, _)) = folder.read(&KEY) else {
            panic!("it is corrupt");
        };
        // Here another process puts the artifact.
        let temporary = root.path().join("temporary");
        fs::write(&temporary, "good").unwrap();
        fs::rename(&temporary, &entry).unwrap();

        // Neither is the good one ever away from its name, nor what is set aside replaced.
        fs::write(folder.aside(&KEY), "aside").unwrap();
        folder.set_aside(&KEY, &corrupt).unwrap();
        assert_eq!(fs::read(&entry).unwrap(), b"good");
        assert_eq!(fs::read(folder.aside(&KEY)).unwrap(), b"aside");
        folder
            .set_aside(&KEY, &File::open(&entry).unwrap())
            .unwrap();
        assert!(!entry.exists());
        folder.set_aside(&KEY, &corrupt).unwrap();
    }
}
