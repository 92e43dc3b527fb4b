//! How much the folder holds: a count that all bounded caches on it keep together.
//!
//! Each adds what it stored and removed to a small file, `.usage`, so that none lists a
//! million names to know whether a trim is due. The count is an estimate. It misses what a process
//! did not report before it died, and what came from unbounded caches or by hand. So each trim, which
//! scans the folder anyway, corrects it. A trim is due when the last is an hour old, and when more was
//! removed than was counted. The count decides when a trim starts and whether a put waits, and nothing
//! else.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::disk::directory::Directory;
use crate::disk::files::is_in_future;
use crate::disk::lock::open_locked;

/// The layout. A release that changes it also changes the name of the file, see [`Directory::usage`]:
/// two releases on one folder would overwrite each other's count.
const MAGIC: &[u8; 8] = b"pcusage2";

/// The length of the file without its checksum.
const BODY: usize = 48;

/// What the folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::disk) struct Total {
    pub(in crate::disk) bytes: u64,
    pub(in crate::disk) entries: u64,
    /// When it was last scanned, in seconds since the Unix epoch. 0 where a scan is due whatever the
    /// time is.
    pub(in crate::disk) scanned_at: u64,
    pub(in crate::disk) stored: Stored,
}

/// Everything that was ever stored, removed or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::disk) struct Stored {
    pub(in crate::disk) bytes: u64,
    pub(in crate::disk) entries: u64,
}

/// What was stored, minus what was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::disk) struct Change {
    bytes: i64,
    entries: i64,
    stored: Stored,
}

#[derive(Debug, Default)]
pub(in crate::disk) struct Usage {
    state: Mutex<State>,
    /// Whether a task reports and trims.
    collecting: AtomicBool,
    /// Notified when there may be more room, and when nobody reports and trims any more.
    pub(in crate::disk) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What the file last said.
    known: Option<Total>,
    unreported: Change,
    /// By this cache, since it was opened.
    stored: Stored,
    /// What puts of this cache are about to store.
    reserved: Stored,
    /// When this cache last scanned the folder.
    scanned: Option<Instant>,
    /// No trim in the background before this time.
    paused_until: Option<Instant>,
}

impl Usage {
    pub(in crate::disk) fn add(&self, change: Change) {
        let mut state = self.lock();
        state.unreported = state.unreported.plus(change);
        state.stored = state.stored.plus(change.stored);
        drop(state);
        if change.entries < 0 {
            self.changed.notify_waiters();
        }
    }

    /// Reserves room for an entry of so many bytes, if what is stored and reserved is `within` the
    /// bounds. So one entry at most exceeds them.
    pub(in crate::disk) fn reserve(&self, bytes: u64, within: impl FnOnce(&Total) -> bool) -> bool {
        let mut state = self.lock();
        let within = within(&state.held());
        if within {
            state.reserved = state.reserved.plus(Stored { bytes, entries: 1 });
        }
        within
    }

    /// Gives back what was reserved for an entry: by now it is counted, or was not stored.
    pub(in crate::disk) fn release(&self, bytes: u64) {
        let mut state = self.lock();
        state.reserved = state.reserved.since(Stored { bytes, entries: 1 });
        drop(state);
        self.changed.notify_waiters();
    }

    /// What is stored, as far as it is known, and reserved.
    pub(in crate::disk) fn held(&self) -> Total {
        self.lock().held()
    }

    /// What this cache has stored since it was opened.
    pub(in crate::disk) fn stored(&self) -> Stored {
        self.lock().stored
    }

    /// Whether the caller is the one that reports from now on, until it calls
    /// [`stop_collecting`](Self::stop_collecting).
    pub(in crate::disk) fn start_collecting(&self) -> bool {
        !self.collecting.swap(true, Ordering::AcqRel)
    }

    pub(in crate::disk) fn stop_collecting(&self) {
        self.collecting.store(false, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// How long ago the folder was scanned. A scan of this cache counts by its own clock: machines whose
    /// clocks differ would scan in turn.
    pub(in crate::disk) fn age(&self, total: &Total) -> Duration {
        let own = self.lock().scanned.filter(|_| total.scanned_at != 0);
        let own = own.map_or(Duration::MAX, |scanned| scanned.elapsed());
        total.age().min(own)
    }

    pub(in crate::disk) fn has_unreported(&self) -> bool {
        self.lock().unreported != Change::default()
    }

    pub(in crate::disk) fn pause(&self, pause: Duration) {
        self.lock().paused_until = Instant::now().checked_add(pause);
    }

    /// Until when no trim starts in the background, if that is not over.
    pub(in crate::disk) fn paused_until(&self) -> Option<Instant> {
        let until = self.lock().paused_until?;
        (Instant::now() < until).then_some(until)
    }

    pub(in crate::disk) fn is_paused(&self) -> bool {
        self.paused_until().is_some()
    }

    /// The best estimate without a system call.
    pub(in crate::disk) fn estimate(&self) -> Option<Total> {
        let state = self.lock();
        state.known.map(|known| known.plus(state.unreported))
    }

    /// Adds what is unreported to the file, and reads what others have added. Returns the total, or
    /// `None` where the folder was never scanned, and whether the file could be locked and written.
    pub(in crate::disk) fn report(&self, directory: &Directory) -> (Option<Total>, bool) {
        let (change, known) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.unreported), state.known)
        };
        let reported = with_file(directory, |file| {
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
            // The folder was never scanned, another process holds the file, or the folder cannot be
            // written. The next report includes the change.
            Ok(None) | Err(_) => state.unreported = state.unreported.plus(change),
        }
        let total = state.known.map(|known| known.plus(state.unreported));
        drop(state);
        // Others may have removed entries.
        self.changed.notify_waiters();
        (total, done)
    }

    /// A scan that begins now counts what is unreported.
    pub(in crate::disk) fn forget_unreported(&self) {
        self.lock().unreported = Change::default();
    }

    /// Replaces the estimate by the count of a scan. Of what was reported during the scan, stored
    /// entries count as not scanned and removed ones as removed before, so that the estimate is never
    /// too low.
    ///
    /// `stored_before` is what this cache had stored when the scan began.
    pub(in crate::disk) fn correct(
        &self,
        directory: &Directory,
        before: Option<Total>,
        stored_before: Stored,
        mut counted: Total,
    ) {
        counted.scanned_at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        let corrected = with_file(directory, |file| {
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
                // Another process has scanned at the same time.
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
            // The file cannot be had: this cache counts only what it stores itself.
            let stored = state.stored.since(stored_before);
            state.unreported = Change {
                bytes: i64::try_from(stored.bytes).unwrap_or(i64::MAX),
                entries: i64::try_from(stored.entries).unwrap_or(i64::MAX),
                stored,
            };
        }
        state.known = Some(corrected.unwrap_or(counted));
        state.scanned = Some(Instant::now());
        drop(state);
        self.changed.notify_waiters();
    }

    /// Dates the last scan so many seconds from now, as another machine does by its clock.
    #[cfg(test)]
    pub(super) fn date_scan(&self, directory: &Directory, seconds: i64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let dated = with_file(directory, |file| {
            let mut total = read(file)?.unwrap_or_default();
            total.scanned_at = now.as_secs().saturating_add_signed(seconds);
            write(file, total)
        });
        dated.unwrap();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder of the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn held(&self) -> Total {
        let mut total = self.known.unwrap_or_default().plus(self.unreported);
        total.bytes = total.bytes.saturating_add(self.reserved.bytes);
        total.entries = total.entries.saturating_add(self.reserved.entries);
        total
    }
}

impl Change {
    /// An entry of `bytes` was stored.
    pub(in crate::disk) fn put(bytes: u64) -> Self {
        Self {
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            entries: 1,
            stored: Stored { bytes, entries: 1 },
        }
    }

    /// An entry of `bytes` was removed.
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
        let bytes = self.bytes.checked_add_signed(change.bytes);
        let entries = self.entries.checked_add_signed(change.entries);
        Self {
            bytes: self.bytes.saturating_add_signed(change.bytes),
            entries: self.entries.saturating_add_signed(change.entries),
            stored: self.stored.plus(change.stored),
            // More was removed than was counted: what is left is unknown.
            scanned_at: match (bytes, entries) {
                (Some(_), Some(_)) => self.scanned_at,
                _ => 0,
            },
        }
    }

    /// How long ago it was scanned, by the clock of the machine that scanned it.
    fn age(&self) -> Duration {
        let scanned = UNIX_EPOCH.checked_add(Duration::from_secs(self.scanned_at));
        // If the clock was set back, a scan is due.
        match scanned.filter(|scanned| !is_in_future(*scanned)) {
            Some(scanned) => scanned.elapsed().unwrap_or_default(),
            None => Duration::MAX,
        }
    }
}

/// Opens and locks the file. Fails at once where another process holds the lock.
fn with_file<T>(
    directory: &Directory,
    work: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<T> {
    work(&mut open_locked(directory, &directory.usage())?)
}

/// What the file says. `None` where it is new, or torn by a crash.
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
        scanned_at: number(24),
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
    for number in [
        total.bytes,
        total.entries,
        total.scanned_at,
        stored,
        entries,
    ] {
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
