//! Put, remove and flush.
//!
//! A put is a task of its own from its first system call on. A caller that leaves cannot stop it
//! between two steps: no temporary file without an owner, no entry that is not counted and not
//! flushed. What such tasks may take is bounded before they start: by a turn of the key and a permit.

use bytes::{Buf as _, Bytes, buf::Chain};
use futures::stream::{self, StreamExt as _};
use std::io;
use std::sync::Arc;

use super::Inner;
use super::durability::Due;
use super::error::Fault;
use super::folder::{Found, SyncError};
use crate::{
    Artifact, FrameError, PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation,
    off_worker,
};

/// How many entries a flush syncs at once. File systems put concurrent syncs into one commit.
const CONCURRENT_SYNCS: usize = 16;

/// The head and the payload, which are never copied into one.
type Frame = Chain<Bytes, Bytes>;

impl Inner {
    pub(super) async fn put(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        let head = self.folder.format.encode_head(&key, &artifact);
        let head = head.map_err(|error| {
            self.counters.rejected_puts.increment();
            let kind = match error {
                FrameError::TooLarge => StoreErrorKind::TooLarge,
                _ => StoreErrorKind::InvalidArtifact,
            };
            self.refuse(kind, StoreOperation::Put).with_source(error)
        })?;
        let frame = head.chain(artifact.payload().clone());
        self.put_frame(key, frame).await
    }

    /// Stores a frame that is known to be the key's.
    pub(super) async fn put_frame(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        frame: Frame,
    ) -> Result<(), StoreError> {
        // Taken before the check, so that a close that this put does not see waits for it.
        let token = self.tasks.token();
        let operation = StoreOperation::Put;
        let ready = match self.check_open(operation) {
            Ok(()) => self.make_room().await,
            closed => closed,
        };
        ready.inspect_err(|_| self.counters.put_errors.increment())?;

        self.await_room().await;
        let turn = self.turns.of(&key).await;
        let permit = self.permit().await;
        let inner = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _held = (token, turn, permit);
            inner.store(key, frame).await
        });
        let stored = off_worker::join(task).await;
        stored.map_err(|fault| self.failed(operation, Some(&key), fault))
    }

    /// Keeps the number of entries that await a flush within its bound.
    async fn make_room(self: &Arc<Self>) -> Result<(), StoreError> {
        let pending = self.ledger.len();
        if pending >= self.max_pending {
            let flushed = self.flush(StoreOperation::Put).await;
            // Another entry's failure is its own, as long as there is room now.
            return match self.ledger.len() < self.max_pending {
                true => Ok(()),
                false => flushed,
            };
        }
        if pending * 2 >= self.max_pending {
            // Whoever holds the lock is flushing already.
            if let Ok(turn) = Arc::clone(&self.flushing).try_lock_owned() {
                let inner = Arc::clone(self);
                let flushing = async move {
                    // Traced and counted; what failed is still pending.
                    let _ = inner.flush_in_turn(StoreOperation::Flush).await;
                    drop(turn);
                };
                self.tasks.spawn(flushing);
            }
        }
        Ok(())
    }

    async fn store(self: &Arc<Self>, key: PipelineFingerprint, frame: Frame) -> Result<(), Fault> {
        let bytes = frame.remaining();
        let stored = self.write(key, frame).await;
        match &stored {
            Ok(new_file) => {
                self.ledger.accept(key, *new_file);
                self.counters.puts.increment();
                if *new_file {
                    // A corrupt entry that it replaced is counted twice, until the next count.
                    self.account(bytes as u64);
                }
            }
            Err(_) => self.counters.put_errors.increment(),
        }
        stored.map(drop)
    }

    /// Whether a new file was written; else the whole entry was there.
    async fn write(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        frame: Frame,
    ) -> Result<bool, Fault> {
        let inner = Arc::clone(self);
        let staged = off_worker::blocking(move || {
            // Anything but a whole entry is replaced, or says why not when it is.
            if let Ok(Found::Whole(_)) = inner.folder.read(&key) {
                return Ok(None);
            }
            let staged = inner.staging.stage(&inner.folder, &inner.tasks);
            staged.map(Some)
        });
        let Some(staged) = staged.await? else {
            return Ok(false);
        };
        let entry = self.folder.entry(&key);
        match staged.publish(frame, &entry).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                Err(Fault::NotAFile(entry))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn remove(
        self: &Arc<Self>,
        key: PipelineFingerprint,
    ) -> Result<bool, StoreError> {
        let operation = StoreOperation::Remove;
        let token = self.tasks.token();
        self.check_open(operation)?;
        let turn = self.turns.of(&key).await;
        let removed = self.run(move |inner| {
            let _held = (token, turn);
            let removed = inner.remove_in_turn(&key)?;
            if removed {
                inner.counters.removes.increment();
            }
            Ok(removed)
        });
        removed
            .await
            .map_err(|fault| self.failed(operation, Some(&key), fault))
    }

    /// Removes an entry whose turn the caller has; whether there was one.
    pub(super) fn remove_in_turn(&self, key: &PipelineFingerprint) -> Result<bool, Fault> {
        let removed = self.folder.remove(key)?;
        self.ledger.forget(key);
        if let Some(bytes) = removed {
            self.forget_bytes(bytes);
        }
        Ok(removed.is_some())
    }

    pub(super) async fn flush(
        self: &Arc<Self>,
        operation: StoreOperation,
    ) -> Result<(), StoreError> {
        // Whoever flushes now may have looked at the ledger before the caller's last put.
        let _turn = self.flushing.lock().await;
        self.flush_in_turn(operation).await
    }

    async fn flush_in_turn(self: &Arc<Self>, operation: StoreOperation) -> Result<(), StoreError> {
        let mut synced = Vec::new();
        let mut first_failure = None;
        let syncs = self.ledger.due().into_iter().map(|due| async move {
            let outcome = self.make_durable(due).await;
            (due, outcome)
        });
        let mut syncs = stream::iter(syncs).buffer_unordered(CONCURRENT_SYNCS);
        while let Some((due, outcome)) = syncs.next().await {
            match outcome {
                Ok(()) => synced.push(due),
                Err(fault) if first_failure.is_none() => {
                    first_failure = Some(self.failed(operation, Some(&due.key), fault));
                }
                // One disk fails for one reason: a thousand warnings would say no more.
                Err(fault) => tracing::debug!(key = %due.key, %fault, "and so did this entry"),
            }
        }
        if !synced.is_empty() {
            let settled = self.run(move |inner| inner.settle(&synced)).await;
            if let Err(fault) = settled {
                let error = self.failed(operation, None, fault);
                first_failure.get_or_insert(error);
            }
        }
        match first_failure {
            None => {
                self.counters.flushes.increment();
                Ok(())
            }
            Some(error) => {
                self.counters.flush_errors.increment();
                Err(error)
            }
        }
    }

    /// Makes the data of an entry durable, if there still is one.
    async fn make_durable(self: &Arc<Self>, due: Due) -> Result<(), Fault> {
        // A rewrite takes its turn, so that it cannot bring back what is being removed.
        let turn = match due.doubted {
            true => Some(self.turns.of(&due.key).await),
            false => None,
        };
        self.run(move |inner| {
            let _turn = turn;
            if due.doubted {
                return inner.rewrite(&due.key);
            }
            match inner.folder.sync_entry(&due.key) {
                Ok(_) => Ok(()),
                Err(SyncError::Open(error)) => Err(error.into()),
                Err(SyncError::Sync(error)) => {
                    inner.ledger.doubt(&[due]);
                    Err(error.into())
                }
            }
        })
        .await
    }

    /// Writes an entry anew, durably, from what can be read of it.
    fn rewrite(&self, key: &PipelineFingerprint) -> Result<(), Fault> {
        let artifact = match self.folder.read(key) {
            Ok(Found::Whole(artifact)) => artifact,
            Ok(Found::Missing) | Err(Fault::NotAFile(_)) => return Ok(()),
            Ok(Found::Corrupt(file, error)) => {
                self.set_aside(key, &file, error);
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        let head = self.folder.format.encode_head(key, &artifact);
        let head = head.map_err(io::Error::other)?;
        let staged = self.staging.stage(&self.folder, &self.tasks)?;
        let entry = self.folder.entry(key);
        Ok(staged.publish_durably([&head, artifact.payload()], &entry)?)
    }

    /// Makes the names in the folder durable, and with them the entries whose data is.
    fn settle(&self, synced: &[Due]) -> Result<(), Fault> {
        match self.folder.sync() {
            Ok(()) => {
                self.ledger.settle(synced);
                Ok(())
            }
            Err(error) => {
                self.ledger.doubt(synced);
                Err(error.into())
            }
        }
    }
}
