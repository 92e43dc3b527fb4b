//! A folder of blobs within a bound on its bytes, which are counted as they come and go.
//!
//! A blob's file is named by the hash of its path, which leaves a client no say in what the file
//! system sees: no path leads out of the folder, is too long, differs in case alone, or is a folder
//! to another.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

use crate::shards::{held, shards};

/// The time of use is renewed no more often than this.
const USE_GRANULARITY: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(crate) struct Blobs {
    pub(crate) root: PathBuf,
    pub(crate) max_bytes: u64,
    /// The bytes of all blobs.
    held: AtomicU64,
    /// How often they changed. Locked while a file comes or goes, so that two that replace or remove
    /// the same one cannot both count it.
    changes: Mutex<u64>,
    sweeping: AtomicBool,
}

impl Blobs {
    /// Opens the folder, drops what a crash has left half-written, and counts what is there.
    pub(crate) fn open(root: PathBuf, max_bytes: u64) -> io::Result<Self> {
        let staging = root.join("staging");
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&staging)?;
        for shard in shards(&root) {
            fs::create_dir_all(shard)?;
        }
        let held = held(&root)?;
        Ok(Self {
            root,
            max_bytes,
            held: AtomicU64::new(held),
            changes: Mutex::default(),
            sweeping: AtomicBool::new(false),
        })
    }

    /// The bytes of all blobs.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn file_of(&self, path: &str) -> PathBuf {
        let name = blake3::hash(path.as_bytes()).to_hex();
        self.root.join(&name[..2]).join(name.as_str())
    }

    /// A file for a blob on its way in, which is removed unless it is stored.
    pub(crate) fn stage(&self) -> io::Result<NamedTempFile> {
        let staging = self.root.join("staging");
        in_folder(&staging, || NamedTempFile::new_in(&staging))
    }

    /// Puts a whole blob into its place. A power loss leaves it or what was there.
    pub(crate) fn store(&self, staged: NamedTempFile, file: &Path) -> io::Result<()> {
        staged.as_file().sync_data()?;
        let length = staged.as_file().metadata()?.len();
        {
            let mut changes = self.changes();
            let replaced = fs::metadata(file).map_or(0, |replaced| replaced.len());
            // The file survives a failed rename, to be renamed again.
            let mut staged = Some(staged);
            in_folder(file.parent().unwrap_or(&self.root), || {
                let Some(this) = staged.take() else {
                    return Ok(());
                };
                let renamed = this.persist(file);
                renamed.map(drop).map_err(|failed| {
                    staged = Some(failed.file);
                    failed.error
                })
            })?;
            self.count(&mut changes, length, replaced);
        }
        Ok(())
    }

    pub(crate) fn remove(&self, file: &Path) -> io::Result<()> {
        let mut changes = self.changes();
        let length = fs::metadata(file)?.len();
        fs::remove_file(file)?;
        self.count(&mut changes, 0, length);
        Ok(())
    }

    /// Takes what a look at all blobs finds for their bytes, unless any came or went meanwhile:
    /// others may have removed some.
    pub(crate) fn recount(&self, look: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
        let before = *self.changes();
        let bytes = look()?;
        let changes = self.changes();
        if *changes == before {
            self.held.store(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn count(&self, changes: &mut u64, more: u64, less: u64) {
        *changes += 1;
        let held = self.held().saturating_add(more).saturating_sub(less);
        self.held.store(held, Ordering::Relaxed);
    }

    fn changes(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a sweep is due and none is under way: it is under way from then on.
    pub(crate) fn begin_sweep(&self) -> bool {
        self.held() > self.max_bytes && !self.sweeping.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn end_sweep(&self) {
        self.sweeping.store(false, Ordering::Release);
    }
}

/// Creates something in a folder, and the folder, too, where a cleaner has removed it. It may do so
/// again at any time: a few times are tried.
pub(crate) fn in_folder<T>(
    folder: &Path,
    mut create: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    const ATTEMPTS: u32 = 100;
    let mut created = create();
    for _ in 0..ATTEMPTS {
        match &created {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
        match fs::create_dir_all(folder) {
            // A parent was removed at the same time.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => created = create(),
        }
    }
    created
}

/// An open blob, and its length.
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    if used.elapsed().unwrap_or_default() >= USE_GRANULARITY {
        // Where it fails, the blob goes sooner than it should: no reason to fail the read.
        let _ = File::options()
            .append(true)
            .open(path)
            .and_then(|file| file.set_modified(SystemTime::now()));
    }
    Ok((file, metadata.len()))
}
