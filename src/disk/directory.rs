//! The folder: the paths in it, and what is done to its entries.
//!
//! Everything here waits: it is called on the blocking pool only.

use bytes::Bytes;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::error::{Fault, at};
use super::files::{
    again_if_stale, ignore_missing, look, look_once, open, open_once, open_with, read_up_to,
    regular, renew_use, same_file, sync_folder, unless_stale,
};
use crate::artifact::frame::{FrameFormat, MAX_OVERHEAD};
use crate::artifact::{Artifact, ArtifactMetadata, FrameError};
use crate::key::PipelineFingerprint;

/// How often a folder is created again that somebody removes while it is empty.
const FOLDER_ATTEMPTS: usize = 64;

/// The folder of a disk tier.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: PathBuf,
    pub(super) format: FrameFormat,
    /// Whether files and folders are created for this user alone.
    pub(super) private: bool,
}

/// What a read found under a key's name.
pub(super) enum Found {
    Whole(Artifact),
    Missing,
    /// A regular file that is not the frame of this key. With the file, to tell it from one that
    /// replaces it.
    Corrupt(File, FrameError),
    /// A frame that another reader may accept.
    Foreign(File, FrameError),
}

impl Directory {
    /// The path of a key's entry.
    pub(super) fn entry(&self, key: &PipelineFingerprint) -> PathBuf {
        self.of_key(key, ".bin")
    }

    /// The folder of temporary files and locks. It is within the root, so that a rename can move a file
    /// to its entry.
    pub(super) fn staging(&self) -> PathBuf {
        self.root.join(".staging")
    }

    /// The count of what the folder holds. Not among the temporary files, where cleaners are welcome.
    pub(super) fn usage(&self) -> PathBuf {
        self.root.join(".usage")
    }

    /// The folder of the intents of writes.
    pub(super) fn intents(&self) -> PathBuf {
        self.root.join("intents")
    }

    /// The path of a corrupt entry that was set aside. One per key, so that they do not pile up.
    fn aside(&self, key: &PipelineFingerprint) -> PathBuf {
        self.of_key(key, ".corrupt")
    }

    /// In one allocation: a read from the page cache takes little longer than to build its path.
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
        self.create_and(|| Ok(()))
    }

    /// Creates the folder where it is missing, and does `work` in it.
    fn create_and<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let missing: Vec<&Path> = self.root.ancestors().take_while(|a| !a.exists()).collect();
        self.dir_builder().recursive(true).create(&self.root)?;
        // Before the syncs, which take long: meanwhile somebody may remove a folder that is empty.
        let done = work();
        // A durable entry is found again only if the names of the folders above it are durable.
        for parent in missing.iter().filter_map(|folder| folder.parent()) {
            if let Err(error) = sync_folder(parent) {
                tracing::warn!(folder = %parent.display(), %error, "cannot sync the parent of a new cache folder: a power loss may remove it");
            }
        }
        done
    }

    /// Does `work` in the folder. Where something is missing, creates the folder and tries again.
    pub(super) fn in_root<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        again_where_missing(&work, || {
            self.create_and(|| Ok(work()))
                .map_err(at("create", &self.root))?
        })
    }

    /// Does `work` in the folder for temporary files. Where something is missing, creates that folder,
    /// and the folder itself, and tries again.
    pub(super) fn in_staging<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        again_where_missing(&work, || {
            let create = || {
                self.create_folder(&self.staging())?;
                Ok(work())
            };
            self.create_and(create)
                .map_err(at("create", &self.staging()))?
        })
    }

    /// Creates a folder in the root where it is missing, and not the root.
    pub(super) fn create_folder(&self, folder: &Path) -> io::Result<()> {
        match self.dir_builder().create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) if !self.private => {
                // Users that may add entries must be able to add files here, whatever the umask is.
                let permissions = fs::metadata(&self.root)?.permissions();
                fs::set_permissions(folder, permissions)
            }
            _ => Ok(()),
        }
    }

    /// A builder that creates folders with this folder's mode.
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

    /// [`read`](Self::read) of an entry that was opened already.
    #[cfg(target_os = "linux")]
    pub(super) fn read_opened(
        &self,
        key: &PipelineFingerprint,
        file: File,
    ) -> Result<Found, Fault> {
        let path = self.entry(key);
        let opened = regular(file, &path);
        let mut found = opened.and_then(|opened| self.verify(key, &path, opened, renew_file_use));
        if found.as_ref().is_err_and(Fault::is_stale) {
            found = self.examine_once(key, &path, renew_file_use);
        }
        Ok(unless_stale(found)?.unwrap_or(Found::Missing))
    }

    /// Reads and verifies an entry, and calls `whole` if it is whole.
    pub(super) fn examine(
        &self,
        key: &PipelineFingerprint,
        whole: impl Fn(&File, &Metadata),
    ) -> Result<Found, Fault> {
        let path = self.entry(key);
        let found = again_if_stale(|| self.examine_once(key, &path, &whole));
        Ok(unless_stale(found)?.unwrap_or(Found::Missing))
    }

    fn examine_once(
        &self,
        key: &PipelineFingerprint,
        path: &Path,
        whole: impl Fn(&File, &Metadata),
    ) -> Result<Found, Fault> {
        match open_once(path)? {
            Some(opened) => self.verify(key, path, opened, whole),
            None => Ok(Found::Missing),
        }
    }

    fn verify(
        &self,
        key: &PipelineFingerprint,
        path: &Path,
        (file, metadata): (File, Metadata),
        whole: impl Fn(&File, &Metadata),
    ) -> Result<Found, Fault> {
        let (_, decoded) = self.load(key, path, &file, metadata.len())?;
        Ok(match decoded {
            Ok(artifact) => {
                whole(&file, &metadata);
                Found::Whole(artifact)
            }
            Err(why) if why.is_foreign() => Found::Foreign(file, why),
            Err(why) => Found::Corrupt(file, why),
        })
    }

    /// Reads a file of this length. Returns its frame, or the start of one that is too large, and what
    /// is in it.
    fn load(
        &self,
        key: &PipelineFingerprint,
        path: &Path,
        file: &File,
        len: u64,
    ) -> Result<(Bytes, Result<Artifact, FrameError>), Fault> {
        let oversized = len > self.format.max_frame();
        let read = if oversized { MAX_OVERHEAD as u64 } else { len };
        // A file that shrinks meanwhile is read short, and one that grows is read to its old length.
        // The frame is verified in either case.
        let frame = Bytes::from(read_up_to(file, read).map_err(at("read", path))?);
        let decoded = if oversized {
            Err(self.format.judge_oversized(key, &frame, len))
        } else {
            self.format.decode(key, &frame)
        };
        Ok((frame, decoded))
    }

    /// Reads the stored form of an entry and verifies it. `None` where there is no entry. Neither sets
    /// it aside nor renews its time of use.
    pub(super) fn verified_frame(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<Result<Bytes, FrameError>>, Fault> {
        let path = self.entry(key);
        let read = again_if_stale(|| {
            let Some((file, metadata)) = open_once(&path)? else {
                return Ok(None);
            };
            let (frame, decoded) = self.load(key, &path, &file, metadata.len())?;
            Ok(Some(decoded.map(|_| frame)))
        });
        unless_stale(read).map(Option::flatten)
    }

    /// Opens the file of an entry. `None` where there is none.
    pub(super) fn open(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<(File, Metadata)>, Fault> {
        open(&self.entry(key))
    }

    /// The metadata of an entry, from the start of its file. `None` where that cannot be read.
    pub(super) fn metadata(
        &self,
        key: &PipelineFingerprint,
    ) -> Option<Result<ArtifactMetadata, FrameError>> {
        // Metadata is short, as a rule.
        const USUAL: u64 = 4096;
        let (mut file, _) = open(&self.entry(key)).ok()??;
        let mut start = Vec::new();
        for len in [USUAL, MAX_OVERHEAD as u64] {
            let more = len - start.len() as u64;
            file.by_ref().take(more).read_to_end(&mut start).ok()?;
            match self.format.decode_metadata(key, &start) {
                Err(FrameError::LengthMismatch) => {}
                decoded => return Some(decoded),
            }
        }
        None
    }

    /// Whether there is a regular file whose length is that of a frame.
    pub(super) fn contains(&self, key: &PipelineFingerprint) -> Result<bool, Fault> {
        let found = look(&self.entry(key))?;
        Ok(found.is_some_and(|metadata| self.format.may_be_frame(metadata.len())))
    }

    /// Removes an entry, and what was set aside of it. Returns the bytes of the file, if there was an
    /// entry.
    pub(super) fn remove(&self, key: &PipelineFingerprint) -> Result<Option<u64>, Fault> {
        self.remove_aside(key)?;
        let path = self.entry(key);
        // What stays stale may still be there.
        let Some(metadata) = again_if_stale(|| look_once(&path))? else {
            return Ok(None);
        };
        let removed = ignore_missing(fs::remove_file(&path)).map_err(at("remove", &path))?;
        Ok(removed.map(|()| metadata.len()))
    }

    /// Removes what was set aside of an entry.
    pub(super) fn remove_aside(&self, key: &PipelineFingerprint) -> Result<(), Fault> {
        let aside = self.aside(key);
        match ignore_missing(fs::remove_file(&aside)) {
            // No cache made a folder of this name.
            Err(error) if !aside.is_dir() => Err(at("remove", &aside)(error).into()),
            _ => Ok(()),
        }
    }

    /// Renames a corrupt entry away from its key.
    ///
    /// An entry that has replaced it since it was read stays. If another process replaces it between
    /// the check and the rename, the good entry has been renamed, and is put back: it is
    /// interchangeable with any later one.
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

    /// Makes the data of an entry durable. Returns whether there still is an entry.
    pub(super) fn sync_entry(&self, key: &PipelineFingerprint) -> Result<bool, SyncError> {
        let path = self.entry(key);
        let mut options = OpenOptions::new();
        // Windows syncs only a file that is open for writing.
        options.read(true).write(cfg!(windows));
        match again_if_stale(|| open_with(&mut options.clone(), &path)) {
            Ok(Some((file, _))) => {
                let synced = file.sync_data().map_err(at("sync", &path));
                synced.map(|()| true).map_err(SyncError::Sync)
            }
            // The entry that was put is gone.
            Ok(None) | Err(Fault::NotAFile(_) | Fault::Foreign { .. }) => Ok(false),
            Err(Fault::Io(error)) => Err(SyncError::Open(error)),
        }
    }

    /// Makes the names of the folders of intents durable.
    pub(super) fn sync_intents(&self) -> io::Result<()> {
        for folder in [&self.intents(), &self.root] {
            ignore_missing(sync_folder(folder)).map_err(at("sync", folder))?;
        }
        Ok(())
    }

    /// Makes the names in the folder durable. Succeeds where there is no folder.
    ///
    /// Then the removal of the temporary names: on a file system without a journal, a power loss could
    /// leave an entry with both names, and the removal of the temporary one would free the file.
    pub(super) fn sync(&self) -> io::Result<()> {
        for folder in [&self.root, &self.staging()] {
            ignore_missing(sync_folder(folder)).map_err(at("sync", folder))?;
        }
        Ok(())
    }
}

/// Why the data of an entry may not be durable.
pub(super) enum SyncError {
    /// No sync was tried. A later one can be trusted.
    Open(io::Error),
    /// The sync failed. A later one may succeed although the data is lost: see
    /// [`super::durability::ledger`].
    Sync(io::Error),
}

/// Does `work`. Where something is missing, does `create_and_work`, a bounded number of times: somebody
/// may remove a new folder before there is anything in it.
fn again_where_missing<T>(
    work: impl Fn() -> io::Result<T>,
    create_and_work: impl Fn() -> io::Result<T>,
) -> io::Result<T> {
    let mut done = work();
    for _ in 0..FOLDER_ATTEMPTS {
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => done = create_and_work(),
            done => return done,
        }
    }
    done
}

fn renew_file_use(file: &File, metadata: &Metadata) {
    renew_use(file, metadata.modified().ok());
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

        // The good entry keeps its name, and the file that was set aside is not replaced.
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
