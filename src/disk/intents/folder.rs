//! The files of the intents: `intents/<digest of a tier's name>/<key>`, each empty.
//!
//! An empty file is there or not: a crash tears none, any number of processes may create and remove
//! it, and it takes no block of a disk that is nearly full. Its time of modification is the age of
//! the intent. Beside the keys, `tier` holds the name in clear for operators, and `lock` is locked by
//! the process that offers. Every other name is somebody else's, and stays.
//!
//! Everything here waits: it is called on the blocking pool only.

use std::fs::{self, File, OpenOptions, ReadDir};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::disk::directory::Directory;
use crate::disk::error::at;
use crate::disk::files::{SAFE_OPEN, sync_folder};
use crate::disk::files::{ignore_missing, is_unused_for, not_in_future, open, read_up_to};
use crate::disk::lock::try_open_locked;
use crate::disk::staging::is_folder;
use crate::key::PipelineFingerprint;

const NAME: &str = "tier";
const LOCK: &str = "lock";

/// No name of a tier is longer: URLs are at most half of that.
const MAX_NAME: u64 = 64 << 10;

/// The intents for one tier.
#[derive(Debug)]
pub(super) struct IntentFolder {
    path: PathBuf,
}

/// An intent, ordered by its age: the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Intent {
    pub(super) since: SystemTime,
    pub(super) key: PipelineFingerprint,
}

impl Intent {
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        is_unused_for(self.since, age)
    }
}

impl IntentFolder {
    pub(super) fn of(directory: &Directory, tier: &str) -> Self {
        Self {
            path: directory.intents().join(digest(tier)),
        }
    }

    /// All that there are. A folder of this name is one of a tier, or of somebody else.
    pub(super) fn all(directory: &Directory) -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for file in list(&directory.intents())?.into_iter().flatten() {
            let file = file.map_err(at("list", &directory.intents()))?;
            let name = file.file_name();
            let is_digest = name.to_str().is_some_and(is_digest);
            if is_digest && file.file_type().is_ok_and(|kind| kind.is_dir()) {
                all.push(Self { path: file.path() });
            }
        }
        Ok(all)
    }

    /// Creates the folder where it is missing, and says in it for which tier it is.
    pub(super) fn create(&self, directory: &Directory, tier: &str) -> io::Result<()> {
        directory.in_root(|| {
            directory.create_folder(&directory.intents())?;
            directory.create_folder(&self.path)
        })?;
        for folder in [&directory.intents(), &self.path] {
            if !is_folder(folder)? {
                let error = io::ErrorKind::NotADirectory.into();
                return Err(at("keep intents in", folder)(error));
            }
        }
        if self.tier().as_deref() != Some(tier) {
            // A full disk takes empty files all the same.
            if let Err(error) = self.write_name(directory, tier) {
                tracing::debug!(tier, %error, "intents are kept without the name of their tier");
            }
        }
        Ok(())
    }

    fn write_name(&self, directory: &Directory, tier: &str) -> io::Result<()> {
        let path = self.path.join(NAME);
        ignore_missing(fs::remove_file(&path))
            .and_then(|_| new_file(directory, &path)?.write_all(tier.as_bytes()))
            .map_err(at("write", &path))
    }

    /// The name of the tier. `None` where it is not told, or is of another.
    pub(super) fn tier(&self) -> Option<String> {
        let (file, _) = open(&self.path.join(NAME)).ok()??;
        let name = String::from_utf8(read_up_to(&file, MAX_NAME).ok()?).ok()?;
        let is_of_it = self.path.ends_with(digest(&name));
        is_of_it.then_some(name)
    }

    /// Adds an intent; whether it was not there.
    pub(super) fn add(&self, directory: &Directory, key: &PipelineFingerprint) -> io::Result<bool> {
        let path = self.path.join(&*key.hex());
        match new_file(directory, &path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(at("create", &path)(error)),
        }
    }

    /// Removes an intent; whether it was there.
    pub(super) fn remove(&self, key: &PipelineFingerprint) -> io::Result<bool> {
        let path = self.path.join(&*key.hex());
        let removed = ignore_missing(fs::remove_file(&path)).map_err(at("remove", &path))?;
        Ok(removed.is_some())
    }

    /// The intents, oldest first. Of more than so many, those that come first in the folder.
    pub(super) fn intents(&self, at_most: usize) -> io::Result<Vec<Intent>> {
        let mut intents = Vec::new();
        // A link in the place of the folder above is none either.
        let files = match self.path.parent() {
            Some(all) if is_there(all)? => list(&self.path)?,
            _ => None,
        };
        for file in files.into_iter().flatten() {
            if intents.len() >= at_most {
                break;
            }
            let file = file.map_err(at("list", &self.path))?;
            let key = file.file_name().to_str().and_then(|name| name.parse().ok());
            // What is removed meanwhile, or is no file, is no intent.
            let found = file.metadata().ok().filter(fs::Metadata::is_file);
            let since = found.and_then(|found| found.modified().ok());
            if let (Some(key), Some(since)) = (key, since) {
                let since = not_in_future(since);
                intents.push(Intent { since, key });
            }
        }
        intents.sort_unstable();
        Ok(intents)
    }

    /// The lock that the offering process holds. Fails with `WouldBlock` where another has it.
    pub(super) fn lock(&self, directory: &Directory) -> io::Result<File> {
        try_open_locked(directory, &self.path.join(LOCK))
    }

    /// Makes the names in it durable. Succeeds where it is gone.
    pub(super) fn sync(&self) -> io::Result<()> {
        ignore_missing(sync_folder(&self.path)).map_err(at("sync", &self.path))?;
        Ok(())
    }

    /// Removes a folder in which nothing was added or removed for so long. What is not of intents stays.
    pub(super) fn remove_if_unused(&self, for_so_long: Duration, at_most: usize) -> io::Result<()> {
        let changed = fs::symlink_metadata(&self.path)?.modified()?;
        if !is_unused_for(changed, for_so_long) {
            return Ok(());
        }
        for intent in self.intents(at_most)? {
            self.remove(&intent.key)?;
        }
        for name in [NAME, LOCK] {
            ignore_missing(fs::remove_file(self.path.join(name)))?;
        }
        fs::remove_dir(&self.path)
    }
}

/// Removes the intents of a key, for all tiers. One that stays is dropped when it is offered: its
/// artifact is gone.
pub(in crate::disk) fn forget(directory: &Directory, key: &PipelineFingerprint) {
    for folder in IntentFolder::all(directory).unwrap_or_default() {
        if let Err(error) = folder.remove(key) {
            tracing::debug!(%key, %error, "intent of a removed key stays until it is offered");
        }
    }
}

fn digest(tier: &str) -> String {
    blake3::hash(tier.as_bytes()).to_hex()[..32].to_owned()
}

fn is_digest(name: &str) -> bool {
    name.len() == 32
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

fn new_file(directory: &Directory, path: &Path) -> io::Result<File> {
    let mut options: OpenOptions = directory.create_new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(SAFE_OPEN.bits() as i32);
    }
    options.open(path)
}

/// `None` where there is no folder.
fn list(path: &Path) -> io::Result<Option<ReadDir>> {
    match is_there(path)? {
        true => ignore_missing(fs::read_dir(path)).map_err(at("list", path)),
        false => Ok(None),
    }
}

/// Whether there is such a folder. A link is none.
fn is_there(path: &Path) -> io::Result<bool> {
    let found = ignore_missing(fs::symlink_metadata(path)).map_err(at("inspect", path))?;
    Ok(found.is_some_and(|found| found.is_dir()))
}
