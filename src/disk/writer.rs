//! Writes: put and remove.
//!
//! Each is a task of its own. A caller that drops its future while the write waits for its turn
//! cancels it. Once the write has begun it is finished: no temporary file is left, and every entry
//! is counted and flushed. What runs at once is bounded by a place in the ledger, room in the
//! folder, the lock of the key and a permit, in this order.

use bytes::{Buf as _, Bytes};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::directory::Found;
use super::durability::flush::{Durability, Reservation};
use super::durability::ledger::Ledger;
use super::error::Fault;
use super::files::{is_in_future, is_unused_for, touch};
use super::gc::collector::Collector;
use super::gc::room::Room;
use super::intents;
use super::shared::Shared;
use super::staging::{Durable, Frame, Place, Staged, Staging, copy_of, publish};
use crate::artifact::{Artifact, FrameError};
use crate::key::PipelineFingerprint;
use crate::store::compile_lease::HeldLeases;
use crate::store::{CompileLease, StoreError, StoreErrorKind, StoreOperation};
use crate::sync::blocking;
use crate::sync::keyed_mutex::KeyedGuard;
use crate::sync::operations::{Permit, once_admitted, run_with};

/// How long a foreign entry is kept for its owner after the last use. Then the owner has gone, or its
/// secret was replaced.
const FOREIGN_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Stores and removes entries.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    staging: Arc<Staging>,
    durability: Arc<Durability>,
    collector: Arc<Collector>,
    /// A put holds the compile lease of its key, if someone has it.
    held_leases: HeldLeases,
}

/// What a put holds while it writes.
struct Admission {
    _place: Reservation,
    _room: Room,
    _key_lock: KeyedGuard,
    _permit: Option<Permit>,
}

impl Writer {
    pub(super) fn new(
        shared: &Arc<Shared>,
        ledger: &Arc<Ledger>,
        staging: &Arc<Staging>,
        durability: &Arc<Durability>,
        collector: &Arc<Collector>,
        held_leases: &HeldLeases,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            ledger: Arc::clone(ledger),
            staging: Arc::clone(staging),
            durability: Arc::clone(durability),
            collector: Arc::clone(collector),
            held_leases: held_leases.clone(),
        }
    }

    pub(super) async fn put(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        let head = self.shared.directory.format.encode_head(&key, &artifact);
        let head = head.map_err(|error| self.rejected(error))?;
        self.check_size(head.len() + artifact.len())?;
        self.store(key, head.chain(artifact.payload().clone()))
            .await
    }

    /// Verifies a frame and stores it byte for byte.
    pub(super) async fn put_frame(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        frame: Bytes,
    ) -> Result<(), StoreError> {
        self.check_size(frame.len())?;
        let (shared, bytes) = (Arc::clone(&self.shared), frame.clone());
        // A compressed frame may unpack to the largest artifact: it counts as an operation.
        let verify = move || shared.directory.format.decode(&key, &bytes).map(drop);
        let verified = self.shared.operations.run(verify).await;
        verified.map_err(|error| self.rejected(error))?;
        self.store(key, frame.chain(Bytes::new())).await
    }

    /// An entry that is large beside the bound of the folder would evict most of the others.
    fn check_size(&self, frame: usize) -> Result<(), StoreError> {
        if frame as u64 <= self.collector.max_entry_bytes() {
            return Ok(());
        }
        Err(self.rejected(FrameError::TooLarge))
    }

    fn rejected(&self, error: FrameError) -> StoreError {
        self.shared.counters.rejected_puts.increment();
        let kind = StoreErrorKind::of_a_rejected_put(error);
        let rejected = self.shared.error(kind, StoreOperation::Put);
        rejected.with_source(error)
    }

    /// Stores a frame that is known to be the key's.
    async fn store(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        frame: Frame,
    ) -> Result<(), StoreError> {
        // Taken before the check, so that a close that this put does not see waits for it.
        let held = (self.shared.tasks.token(), self.held_leases.of(&key));
        if let Err(closed) = self.shared.check_open(StoreOperation::Put) {
            self.shared.counters.put_errors.increment();
            return Err(closed);
        }
        let (waiting, writing) = (Arc::clone(self), Arc::clone(self));
        let bytes = frame.remaining() as u64;
        let admission = async move { waiting.admit(&key, bytes).await };
        once_admitted(admission, move |admitted| {
            writing.finish_put(key, frame, admitted, held)
        })
        .await
    }

    /// Waits until the put may begin.
    async fn admit(&self, key: &PipelineFingerprint, bytes: u64) -> Result<Admission, StoreError> {
        let place = self.durability.make_room().await;
        let place = place.inspect_err(|_| self.shared.counters.put_errors.increment())?;
        let room = self.collector.await_room(bytes).await;
        Ok(Admission {
            _place: place,
            _room: room,
            _key_lock: self.shared.key_locks.lock(key).await,
            _permit: self.shared.operations.permit().await,
        })
    }

    async fn finish_put(
        self: Arc<Self>,
        key: PipelineFingerprint,
        frame: Frame,
        admitted: Result<Admission, StoreError>,
        _held: (TaskTrackerToken, Option<CompileLease>),
    ) -> Result<(), StoreError> {
        let _admission = admitted?;
        let bytes = frame.remaining() as u64;
        let written = self.write(key, frame).await;
        let counters = &self.shared.counters;
        match &written {
            Ok(new_file) => {
                self.ledger.accept(key, *new_file);
                counters.puts.increment();
                if *new_file {
                    // A corrupt entry that it replaced is counted twice, until the next scan.
                    self.collector.account_put(bytes);
                }
            }
            Err(Fault::Foreign { .. }) => counters.rejected_puts.increment(),
            Err(_) => counters.put_errors.increment(),
        }
        let written = self.shared.outcome(StoreOperation::Put, &key, written);
        written.map(drop)
    }

    /// Whether a new file was written. If not, a whole entry was there.
    async fn write(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        frame: Frame,
    ) -> Result<bool, Fault> {
        let entry = self.shared.directory.entry(&key);
        let begin = |place| {
            let (writer, frame) = (Arc::clone(self), copy_of(&frame));
            blocking::blocking(move || {
                let staged = writer.stage(&key, place)?;
                Ok(staged.map(|staged| (frame, staged)))
            })
        };
        match publish(&entry, Durable::OnFlush, begin).await {
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::IsADirectory => {
                Err(Fault::NotAFile(entry))
            }
            published => published,
        }
    }

    /// Creates a temporary file. `None` where the entry is whole: a key names one artifact. A foreign
    /// entry in use is not replaced: its owner could not read the new one, would replace it in turn, and
    /// both would compile for ever.
    ///
    /// In one closure on the blocking pool: it looks for the entry, inspects the lock file and creates
    /// the temporary file. Together that takes a few microseconds; each hop to the pool takes 17 or
    /// more. So a put makes three hops that it waits for, as many as its steps through `tokio::fs`
    /// alone: measured, it takes 1.07 to 1.09 times as long as those for 4 KiB.
    fn stage(&self, key: &PipelineFingerprint, place: Place) -> Result<Option<Staged>, Fault> {
        let shared = &self.shared;
        // The rename replaces anything else, or reports why it cannot.
        match shared.directory.read(key) {
            Ok(Found::Whole(_)) => return Ok(None),
            Ok(Found::Foreign(file, why)) if !why.is_replaceable() && is_in_use(&file) => {
                shared.log_foreign(key, why);
                let path = shared.directory.entry(key);
                return Err(Fault::Foreign { path, why });
            }
            _ => {}
        }
        let staged = self
            .staging
            .stage(&shared.directory, &shared.tasks, place)?;
        Ok(Some(staged))
    }

    /// Removes an entry for a caller. Returns whether there was one.
    pub(super) async fn remove(
        self: &Arc<Self>,
        key: PipelineFingerprint,
    ) -> Result<bool, StoreError> {
        let operation = StoreOperation::Remove;
        let removed = self.remove_entry(key, operation).await?;
        removed.map_err(|fault| self.shared.failed(operation, Some(&key), fault))
    }

    /// Removes an entry and what was set aside of it. The outer error is that of a closed cache.
    pub(super) async fn remove_entry(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        operation: StoreOperation,
    ) -> Result<Result<bool, Fault>, StoreError> {
        // Taken before the check, as that of a put.
        let token = self.shared.tasks.token();
        self.shared.check_open(operation)?;
        let (waiting, removing) = (Arc::clone(self), Arc::clone(self));
        let admission = async move {
            let key_lock = waiting.shared.key_locks.lock(&key).await;
            (key_lock, waiting.shared.operations.permit().await)
        };
        let removed = once_admitted(admission, move |(key_lock, permit)| {
            // Three or four calls, each shorter than a hop to the blocking pool.
            run_with(permit, move || {
                let _held = (token, key_lock);
                let removed = removing.remove_locked(&key)?;
                if removed && operation == StoreOperation::Remove {
                    removing.shared.counters.removes.increment();
                }
                Ok(removed)
            })
        });
        Ok(removed.await)
    }

    fn remove_locked(&self, key: &PipelineFingerprint) -> Result<bool, Fault> {
        intents::forget(&self.shared.directory, key);
        let removed = self.shared.directory.remove(key)?;
        self.ledger.forget(key);
        // No put stored a larger one. It is not in the count, or a scan put it there: the next corrects it.
        if let Some(bytes) = removed.filter(|bytes| *bytes <= self.collector.max_entry_bytes()) {
            self.collector.account_removal(bytes);
        }
        Ok(removed.is_some())
    }
}

/// Whether the owner of a foreign entry has used it lately. A time that cannot be told counts as now.
fn is_in_use(file: &File) -> bool {
    let used = file.metadata().and_then(|metadata| metadata.modified());
    if used.as_ref().is_ok_and(|used| is_in_future(*used)) {
        // So that it gets old.
        touch(file);
    }
    !used.is_ok_and(|used| is_unused_for(used, FOREIGN_KEPT))
}
