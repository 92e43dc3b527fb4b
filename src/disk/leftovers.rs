//! What crashed processes have left: temporary files and locks. See [`super::staging`] for their names
//! and owners.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::files::{date_now, is_in_future, is_unused_for};
use super::lock::{is_compile_lock, lock_existing, remove_locked};
use super::staging::{LOCK, TEMPORARY, is_folder};

/// A put does not write to a temporary file for so long.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);

/// Removes what dead owners have left in a staging folder.
pub(super) fn sweep(staging: &Path) -> io::Result<()> {
    match is_folder(staging) {
        Ok(true) => {}
        // No cache made it. A put reports it.
        Ok(false) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let mut owners = BTreeSet::new();
    let mut temporaries = Vec::new();
    let files = match fs::read_dir(staging) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for file in files {
        let file = file?.file_name();
        let Some(name) = file.to_str() else { continue };
        if let Some(owner) = name.strip_suffix(LOCK).filter(|owner| is_owner(owner)) {
            owners.insert(owner.to_owned());
        } else if let Some(owner) = owner_of(name) {
            owners.insert(owner.to_owned());
            temporaries.push(name.to_owned());
        } else if is_compile_lock(name) {
            let path = staging.join(name);
            if let Ok(Some(dead)) = lock_existing(&path) {
                warn_if_left(&path, remove_locked(dead, &path));
            }
        }
    }
    for owner in owners {
        let path = staging.join(format!("{owner}{LOCK}"));
        // A lock that cannot be had is that of a living owner. This one is held until the last file
        // is gone, so that two sweeps do not meet.
        let Ok(dead) = lock_existing(&path) else {
            continue;
        };
        for name in temporaries
            .iter()
            .filter(|name| owner_of(name) == Some(&owner))
        {
            let path = staging.join(name);
            warn_if_left(&path, fs::remove_file(&path));
        }
        if let Some(dead) = dead {
            warn_if_left(&path, remove_locked(dead, &path));
        }
    }
    Ok(())
}

/// Removes a file beside the entries, if it is a temporary one that a crash has left there.
pub(super) fn sweep_beside_entries(file: &DirEntry) {
    let name = file.file_name();
    if name.to_str().and_then(owner_of).is_none() {
        return;
    }
    let path = file.path();
    let written = file.metadata().ok().filter(fs::Metadata::is_file);
    let Some(written) = written.and_then(|metadata| metadata.modified().ok()) else {
        return;
    };
    if is_unused_for(written, LEFT_BEHIND) {
        warn_if_left(&path, fs::remove_file(&path));
    } else if is_in_future(written) {
        date_now(&path);
    }
}

fn warn_if_left(path: &Path, removed: io::Result<()>) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "cannot remove a stale staging file: remove it by hand");
        }
        _ => {}
    }
}

/// The owner in the name of a temporary file.
fn owner_of(name: &str) -> Option<&str> {
    let (owner, number) = name.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (is_number && is_owner(owner)).then_some(owner)
}

/// Whether a name is one that an owner of temporary files has.
fn is_owner(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|name| name.split_once('-'));
    parts.is_some_and(|(pid, random)| {
        pid.bytes().all(|b| b.is_ascii_digit())
            && random.len() == 16
            && random.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}
