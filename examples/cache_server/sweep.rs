//! The least recently used blobs removed, in memory that does not grow with their number.
//!
//! A first pass counts bytes by age, in classes; it tells from which class on the blobs are to
//! go. The next ones remove them. What cannot be looked at or removed is passed over.

use std::cell::Cell;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::blobs::Blobs;

/// Ages are told apart to about a sixteenth of themselves.
const CLASSES_PER_DOUBLING: f64 = 11.0;

/// Enough for a thousand years; what is older counts as that.
const CLASSES: usize = 512;

/// The folders that blobs are spread over.
pub(crate) fn shards(root: &Path) -> impl Iterator<Item = PathBuf> {
    (0..=u8::MAX).map(move |shard| root.join(format!("{shard:02x}")))
}

/// The bytes of all blobs.
pub(crate) fn held(root: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    each(root, |_, _, length| {
        bytes += length;
        Ok(())
    })?;
    Ok(bytes)
}

/// Removes blobs until no more than `goal` bytes are left, or nothing more can be removed: then the
/// first reason. Also, whether any was removed.
pub(crate) fn down_to(blobs: &Blobs, root: &Path, goal: u64) -> (io::Result<()>, bool) {
    let now = SystemTime::now();
    let mut bytes = vec![0_u64; CLASSES];
    let counted = blobs.recount(|| {
        each(root, |_, used, length| {
            bytes[class(now, used)] += length;
            Ok(())
        })?;
        Ok(bytes.iter().sum())
    });
    // Of the youngest class that must go, only as much as it takes.
    let mut kept = 0_u64;
    let youngest = bytes.iter().position(|class| {
        kept = kept.saturating_add(*class);
        kept > goal
    });
    let Some(youngest) = youngest else {
        return (counted, false);
    };
    let has_removed = Cell::new(false);
    let remove = |goes: &dyn Fn(usize) -> bool| {
        each(root, |blob, used, _| {
            if goes(class(now, used)) && blobs.held() > goal {
                blobs.remove(&blob.path())?;
                has_removed.set(true);
            }
            Ok(())
        })
    };
    let older = remove(&|class| class > youngest);
    let swept = counted.and(older).and(remove(&|class| class == youngest));
    (swept, has_removed.get())
}

/// The class of an age: the larger, the older. What was used after `now` is in the first.
fn class(now: SystemTime, used: SystemTime) -> usize {
    let age = now.duration_since(used).unwrap_or_default();
    // In milliseconds: on a busy server what was stored last is not as old as a second.
    let class = (age.as_secs_f64() * 1e3 + 1.0).log2() * CLASSES_PER_DOUBLING;
    (class as usize).min(CLASSES - 1)
}

/// Looks at all blobs that can be looked at. The first failure is told once all have been.
fn each(
    root: &Path,
    mut look: impl FnMut(&DirEntry, SystemTime, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut told = Ok(());
    for shard in shards(root) {
        let blobs = match fs::read_dir(shard) {
            Ok(blobs) => blobs,
            // A cleaner has removed the empty folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                told = told.and(Err(error));
                continue;
            }
        };
        for blob in blobs {
            let looked = blob.and_then(|blob| {
                let metadata = blob.metadata()?;
                match metadata.is_file() {
                    true => look(&blob, metadata.modified()?, metadata.len()),
                    false => Ok(()),
                }
            });
            match looked {
                // One that is gone meanwhile is of no more interest.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    told = told.and(Err(error));
                }
                _ => {}
            }
        }
    }
    told
}
