//! The least recently used blobs removed, in memory that does not grow with their number.
//!
//! A first pass counts bytes by age, in classes; it tells from which class on the blobs are to
//! go. A second pass removes them.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// Ages are told apart to about a sixteenth of themselves.
const CLASSES_PER_DOUBLING: f64 = 11.0;

/// Enough for a thousand years; what is older counts as that.
const CLASSES: usize = 512;

/// The bytes of all blobs.
pub(crate) fn held(root: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    each(root, |_, _, length| bytes += length)?;
    Ok(bytes)
}

/// Removes blobs until no more than `goal` bytes are left; what is left.
pub(crate) fn down_to(root: &Path, goal: u64) -> io::Result<u64> {
    let now = SystemTime::now();
    let mut bytes = vec![0_u64; CLASSES];
    each(root, |_, used, length| bytes[class(now, used)] += length)?;
    let mut held: u64 = bytes.iter().sum();
    // Of the youngest class that must go, only as much as it takes.
    let mut kept = 0_u64;
    let youngest = bytes.iter().position(|class| {
        kept = kept.saturating_add(*class);
        kept > goal
    });
    let Some(youngest) = youngest else {
        return Ok(held);
    };
    for only in [false, true] {
        each(root, |blob, used, length| {
            let class = class(now, used);
            let goes = if only {
                class == youngest
            } else {
                class > youngest
            };
            if goes && held > goal && fs::remove_file(blob.path()).is_ok() {
                held = held.saturating_sub(length);
            }
        })?;
    }
    Ok(held)
}

/// The class of an age: the larger, the older. What was used after `now` is in the first.
fn class(now: SystemTime, used: SystemTime) -> usize {
    let age = now.duration_since(used).unwrap_or_default();
    // In milliseconds: on a busy server what was stored last is not as old as a second.
    let class = (age.as_secs_f64() * 1e3 + 1.0).log2() * CLASSES_PER_DOUBLING;
    (class as usize).min(CLASSES - 1)
}

fn each(root: &Path, mut look: impl FnMut(&DirEntry, SystemTime, u64)) -> io::Result<()> {
    for shard in 0..=u8::MAX {
        for blob in fs::read_dir(root.join(format!("{shard:02x}")))? {
            let blob = blob?;
            // One that is gone meanwhile is of no more interest.
            let Ok(metadata) = blob.metadata() else {
                continue;
            };
            if metadata.is_file() {
                look(&blob, metadata.modified()?, metadata.len());
            }
        }
    }
    Ok(())
}
