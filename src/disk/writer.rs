//! Put and remove.
//!
//! A put is one piece of work on the blocking pool from its first system call on: each hop there
//! and back takes as long as what is done there. A caller that leaves cannot stop it between two
//! steps: no temporary file without an owner, no entry that is not counted and not flushed. How much
//! such work there is at once is bounded before it starts: by a turn of the key and a permit.

use bytes::Buf as _;
use std::io;
use std::sync::Arc;

use super::Inner;
use super::directory::Found;
use super::error::Fault;
use super::staging::Frame;
use crate::artifact::{Artifact, FrameError};
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreErrorKind, StoreOperation};
use crate::sync::blocking;

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
        let lease = self.held_leases.of(&key);
        let operation = StoreOperation::Put;
        let ready = match self.check_open(operation) {
            Ok(()) => self.make_room().await,
            Err(closed) => Err(closed),
        };
        let place = ready.inspect_err(|_| self.counters.put_errors.increment())?;

        self.await_room().await;
        let turn = self.key_locks.lock(&key).await;
        let permit = self.permit().await;
        let inner = Arc::clone(self);
        let stored = blocking::blocking(move || {
            let _held = (lease, token, place, turn, permit);
            inner.store(key, frame)
        });
        stored
            .await
            .map_err(|fault| self.failed(operation, Some(&key), fault))
    }

    fn store(self: &Arc<Self>, key: PipelineFingerprint, frame: Frame) -> Result<(), Fault> {
        let bytes = frame.remaining();
        let stored = self.write(key, frame);
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
    fn write(&self, key: PipelineFingerprint, frame: Frame) -> Result<bool, Fault> {
        // Anything but a whole entry is replaced, or says why not when it is.
        if let Ok(Found::Whole(_)) = self.folder.read(&key) {
            return Ok(false);
        }
        let staged = self.staging.stage(&self.folder, &self.tasks)?;
        let entry = self.folder.entry(&key);
        match staged.publish(frame, &entry) {
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
        let turn = self.key_locks.lock(&key).await;
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
}
