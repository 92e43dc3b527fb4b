//! The least recently used blobs removed, in memory that does not grow with their number.
//!
//! A first pass counts bytes by age, in classes; it tells from which class on the blobs are to
//! go. The next ones remove them. What cannot be looked at or removed is passed over.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::task::spawn_blocking;

use crate::blobs::Blobs;
use crate::http_server::console::say;
use crate::shards::each;

/// Ages are told apart to about a sixteenth of themselves.
const CLASSES_PER_DOUBLING: f64 = 11.0;

/// Enough for a thousand years; what is older counts as that.
const CLASSES: usize = 512;

/// Starts a sweep in the background where one is due and none is under way.
pub(crate) fn start_if_full(blobs: &Arc<Blobs>) {
    if !blobs.begin_sweep() {
        return;
    }
    let blobs = Arc::clone(blobs);
    spawn_blocking(move || {
        // Below the limit by an eighth, so that not every blob brings the next sweep.
        let goal = blobs.max_bytes - blobs.max_bytes / 8;
        let (swept, has_removed) = down_to(&blobs, goal);
        if let Err(error) = swept {
            say(format_args!(
                "cannot remove all blobs that should go: {error}"
            ));
        }
        blobs.end_sweep();
        if has_removed {
            // Whoever came during this sweep has started none, and may have brought more than
            // went. Where nothing can be removed, another would come to nothing, too.
            start_if_full(&blobs);
        }
    });
}

/// Removes blobs until no more than `goal` bytes are left, or nothing more can be removed: then the
/// first reason. Also, whether any was removed.
fn down_to(blobs: &Blobs, goal: u64) -> (io::Result<()>, bool) {
    let root = &blobs.root;
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
