//! How much the folder holds, by the count that all bounded caches on it keep together.
//!
//! Each adds what it stored and removed to a small file, `.staging/usage`, so that none has to
//! list a million names to know that it is time for a trim. The count is an estimate: it misses
//! what a process did not live to report, and what came from caches without bounds or by hand. So
//! each trim, which lists the folder anyway, corrects it, and one is due when the last is an hour
//! old. Nothing but the time of a trim depends on it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

use crate::disk::directory::Directory;
use crate::disk::lock::open_locked;

const MAGIC: &[u8; 8] = b"pcusage2";

/// The file, but for its checksum.
const BODY: usize = 48;

/// What the folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::disk) struct Total {
    pub(in crate::disk) bytes: u64,
    pub(in crate::disk) entries: u64,
    /// When it was last counted, in seconds of the Unix time.
    pub(in crate::disk) counted: u64,
    pub(in crate::disk) stored: Stored,
}

/// All that was ever stored, whatever has become of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::disk) struct Stored {
    pub(in crate::disk) bytes: u64,
    pub(in crate::disk) entries: u64,
}

/// What was stored, less what was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::disk) struct Change {
    bytes: i64,
    entries: i64,
    stored: Stored,
}

#[derive(Debug, Default)]
pub(in crate::disk) struct Usage {
    state: Mutex<State>,
    /// Whether somebody reports or trims already.
    busy: AtomicBool,
    /// Whether entries are being evicted.
    evicting: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// As the file last said.
    known: Option<Total>,
    unreported: Change,
    /// By this cache, since it was opened.
    stored: Stored,
    /// No trim in the background before then.
    rests_until: Option<Instant>,
}

impl Usage {
    pub(in crate::disk) fn add(&self, change: Change) {
        let mut state = self.lock();
        state.unreported = state.unreported.plus(change);
        state.stored = state.stored.plus(change.stored);
    }

    /// What this cache has stored since it was opened.
    pub(in crate::disk) fn stored(&self) -> Stored {
        self.lock().stored
    }

    /// Whether the caller is the one to report from now on, until it [`rests`](Self::rest).
    pub(in crate::disk) fn wake(&self) -> bool {
        !self.busy.swap(true, Ordering::AcqRel)
    }

    pub(in crate::disk) fn rest(&self) {
        self.busy.store(false, Ordering::Release);
    }

    pub(in crate::disk) fn set_evicting(&self, evicting: bool) {
        self.evicting.store(evicting, Ordering::SeqCst);
    }

    pub(in crate::disk) fn is_evicting(&self) -> bool {
        self.evicting.load(Ordering::SeqCst)
    }

    pub(in crate::disk) fn has_news(&self) -> bool {
        self.lock().unreported != Change::default()
    }

    pub(in crate::disk) fn put_off(&self, pause: Duration) {
        self.lock().rests_until = Instant::now().checked_add(pause);
    }

    pub(in crate::disk) fn is_put_off(&self) -> bool {
        self.lock()
            .rests_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// The best estimate without a system call.
    pub(in crate::disk) fn estimate(&self) -> Option<Total> {
        let state = self.lock();
        state.known.map(|known| known.plus(state.unreported))
    }

    /// Adds what is unreported to the file, and takes over what others have; what there is
    /// then, `None` where nobody has counted yet; and whether the file could be had.
    pub(in crate::disk) fn report(&self, folder: &Directory) -> (Option<Total>, bool) {
        let (change, known) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.unreported), state.known)
        };
        let reported = with_file(folder, |file| {
            let there = read(file)?;
            let total = there.or(known).map(|total| total.plus(change));
            if let Some(total) = total.filter(|_| total != there) {
                write(file, total)?;
            }
            Ok(total)
        });
        let mut state = self.lock();
        let done = reported.is_ok();
        match reported {
            Ok(Some(total)) => state.known = Some(total),
            // Nobody has counted yet, another process is at it, or the folder cannot be written.
            // The next report has it.
            Ok(None) | Err(_) => state.unreported = state.unreported.plus(change),
        }
        let total = state.known.map(|known| known.plus(state.unreported));
        (total, done)
    }

    /// What is about to be counted need not be reported.
    pub(in crate::disk) fn forget_unreported(&self) {
        self.lock().unreported = Change::default();
    }

    /// Puts the count of a listing in the place of the estimate from before it. Of what was
    /// reported during the listing, the stored is taken for not listed and the removed for gone
    /// before, so that the estimate errs upwards.
    ///
    /// `stored_before` is what this cache had stored when the listing began.
    pub(in crate::disk) fn correct(
        &self,
        folder: &Directory,
        before: Option<Total>,
        stored_before: Stored,
        mut counted: Total,
    ) {
        counted.counted = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        let corrected = with_file(folder, |file| {
            let total = match (before, read(file)?) {
                (Some(before), Some(now)) => {
                    let stored = now.stored.since(before.stored);
                    Total {
                        bytes: counted.bytes.saturating_add(stored.bytes),
                        entries: counted.entries.saturating_add(stored.entries),
                        stored: now.stored,
                        ..counted
                    }
                }
                // Another has counted in the same time.
                (None, Some(now)) => Total {
                    bytes: counted.bytes.max(now.bytes),
                    entries: counted.entries.max(now.entries),
                    stored: now.stored,
                    ..counted
                },
                (_, None) => counted,
            };
            write(file, total)?;
            Ok(total)
        });
        let mut state = self.lock();
        if corrected
            .as_ref()
            .is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
        {
            // There is no such file to be had: this cache counts for itself.
            let stored = state.stored.since(stored_before);
            state.unreported = Change {
                bytes: i64::try_from(stored.bytes).unwrap_or(i64::MAX),
                entries: i64::try_from(stored.entries).unwrap_or(i64::MAX),
                stored,
            };
        }
        state.known = Some(corrected.unwrap_or(counted));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder of the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change {
    /// An entry of so many bytes came.
    pub(in crate::disk) fn put(bytes: u64) -> Self {
        Self {
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            entries: 1,
            stored: Stored { bytes, entries: 1 },
        }
    }

    /// An entry of so many bytes is gone.
    pub(in crate::disk) fn removal(bytes: u64) -> Self {
        Self {
            bytes: -i64::try_from(bytes).unwrap_or(i64::MAX),
            entries: -1,
            stored: Stored::default(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            entries: self.entries.saturating_add(other.entries),
            stored: self.stored.plus(other.stored),
        }
    }
}

impl Stored {
    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            entries: self.entries.saturating_add(other.entries),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(before.bytes),
            entries: self.entries.saturating_sub(before.entries),
        }
    }
}

impl Total {
    fn plus(self, change: Change) -> Self {
        Self {
            bytes: self.bytes.saturating_add_signed(change.bytes),
            entries: self.entries.saturating_add_signed(change.entries),
            stored: self.stored.plus(change.stored),
            ..self
        }
    }

    /// How long ago it was counted.
    pub(in crate::disk) fn age(&self) -> Duration {
        let counted = UNIX_EPOCH.checked_add(Duration::from_secs(self.counted));
        // A clock that was set back: due again.
        let age = counted.and_then(|counted| counted.elapsed().ok());
        age.unwrap_or(Duration::MAX)
    }
}

/// Opens the file, whole or not at all: an error where another process has it.
fn with_file<T>(
    folder: &Directory,
    work: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<T> {
    work(&mut open_locked(folder, "usage")?)
}

/// What the file says; nothing where it is new, or torn by a crash.
fn read(file: &mut File) -> io::Result<Option<Total>> {
    let mut bytes = Vec::with_capacity(64);
    file.rewind()?;
    io::Read::by_ref(file).take(64).read_to_end(&mut bytes)?;
    let Some((body, check)) = bytes.split_first_chunk::<BODY>() else {
        return Ok(None);
    };
    if !body.starts_with(MAGIC) || check != checksum(body) {
        return Ok(None);
    }
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&body[at..at + 8]);
        u64::from_le_bytes(number)
    };
    Ok(Some(Total {
        bytes: number(8),
        entries: number(16),
        counted: number(24),
        stored: Stored {
            bytes: number(32),
            entries: number(40),
        },
    }))
}

fn write(file: &mut File, total: Total) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(MAGIC);
    let Stored {
        bytes: stored,
        entries,
    } = total.stored;
    for number in [total.bytes, total.entries, total.counted, stored, entries] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let check = checksum(&bytes);
    bytes.extend_from_slice(&check);
    file.rewind()?;
    file.write_all(&bytes)?;
    file.set_len(bytes.len() as u64)
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(body).as_bytes();
    [a, b, c, d, e, f, g, h]
}
