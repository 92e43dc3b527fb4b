//! The commands about one entry, and what each reply means.

use bytes::Bytes;
use redis::{Cmd, RedisWrite as _, Value};
use std::io::Write as _;
use std::time::Duration;

use super::link::{Failure, Link};
use crate::artifact::FrameError;
use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::key::PipelineFingerprint;
use crate::network::{AnswerProgress, Backend, ConnectionCounts, RequestError, Upload};
use crate::store::{Fetched, StoreErrorKind};
use crate::sync::blocking;

/// What a command has besides its arguments.
const COMMAND_BYTES: usize = 256;

/// Makes the requests.
pub(super) struct Entries {
    pub(super) link: Link,
    /// Whether the connection is that of another tier.
    pub(super) shares_link: bool,
    /// Before each key.
    pub(super) prefix: String,
    pub(super) has_credentials: bool,
    pub(super) format: FrameFormat,
    /// `None`: entries stay until the server evicts them.
    pub(super) time_to_live: Option<Duration>,
}

impl Entries {
    fn key(&self, key: &PipelineFingerprint) -> String {
        entry_key(&self.prefix, key)
    }

    /// The first bytes of an entry. None if there is no entry; the server says so of an empty one.
    async fn start_of_entry(
        &self,
        key: &PipelineFingerprint,
        bytes: u64,
    ) -> Result<Bytes, Failure> {
        let key = self.key(key);
        let last = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_sub(1);
        let mut command = redis::cmd("GETRANGE");
        command.arg(&key).arg(0).arg(last);
        match self.link.send(&command, &key).await? {
            Value::BulkString(bytes) => Ok(bytes.into()),
            Value::Nil => Ok(Bytes::new()),
            _ => Err(Failure::Way(unexpected())),
        }
    }

    /// The number in the reply to a command about this key.
    async fn number(&self, name: &str, key: &PipelineFingerprint) -> Result<u64, Failure> {
        let key = self.key(key);
        let mut command = redis::cmd(name);
        command.arg(&key);
        match self.link.send(&command, &key).await? {
            Value::Int(number) => Ok(number.try_into().unwrap_or(0)),
            _ => Err(Failure::Way(unexpected())),
        }
    }
}

impl Backend for Entries {
    /// Those of the URL, which do not change.
    type Credentials = ();

    fn credentials(&self) -> Result<(), RequestError> {
        Ok(())
    }

    fn version(&self, (): &()) -> Option<u64> {
        self.has_credentials.then_some(0)
    }

    /// By a range: an entry that is longer than any frame costs no more than a byte too much.
    async fn download(
        &self,
        key: &PipelineFingerprint,
        (): (),
        answer: &AnswerProgress,
    ) -> Result<Fetched, RequestError> {
        let limit = self.format.max_frame();
        let frame = match self.start_of_entry(key, limit.saturating_add(1)).await {
            Ok(frame) => frame,
            Err(failure) if failure.is_of_another_type() => {
                return Ok(Fetched::Corrupt(FrameError::NotAFrame));
            }
            Err(failure) => return Err(failure.into()),
        };
        answer.signal();
        if frame.is_empty() {
            return Ok(Fetched::Miss);
        }
        if frame.len() as u64 > limit {
            return Ok(Fetched::Corrupt(FrameError::TooLarge));
        }
        Ok(match self.format.decode_blocking(key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            Err(reason) => Fetched::Corrupt(reason),
        })
    }

    /// Replaces whatever the key holds, also what is not a string.
    async fn upload(
        &self,
        key: &PipelineFingerprint,
        upload: &Upload,
        (): (),
    ) -> Result<(), RequestError> {
        let key = self.key(key);
        let bytes = upload.head.len() + upload.payload.len();
        let command = {
            let (key, upload, time_to_live) = (key.clone(), upload.clone(), self.time_to_live);
            blocking::run(bytes, move || set(&key, &upload, time_to_live)).await
        };
        match self.link.send(&command, &key).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.link.error_of_a_write(failure)),
        }
    }

    async fn delete(&self, key: &PipelineFingerprint, (): ()) -> Result<bool, RequestError> {
        match self.number("DEL", key).await {
            Ok(removed) => Ok(removed > 0),
            Err(failure) => Err(self.link.error_of_a_write(failure)),
        }
    }

    async fn probe(&self, key: &PipelineFingerprint, (): ()) -> Result<bool, RequestError> {
        match self.number("STRLEN", key).await {
            Ok(bytes) => Ok(self.format.may_be_frame(bytes)),
            Err(failure) if failure.is_of_another_type() => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn check_health(&self, key: &PipelineFingerprint, (): ()) -> Result<(), RequestError> {
        match self.start_of_entry(key, HEADER_LEN as u64).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_of_another_type() => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    fn in_folder(&self, folder: &str) -> Self {
        Self {
            link: self.link.clone(),
            shares_link: true,
            prefix: format!("{}{folder}:", self.prefix),
            has_credentials: self.has_credentials,
            format: self.format.clone(),
            time_to_live: self.time_to_live,
        }
    }

    fn format(&self) -> &FrameFormat {
        &self.format
    }

    fn connection_counts(&self) -> ConnectionCounts {
        match self.shares_link {
            true => ConnectionCounts::default(),
            false => self.link.counts(),
        }
    }
}

/// The key of an entry in the server.
pub(super) fn entry_key(prefix: &str, key: &PipelineFingerprint) -> String {
    format!("{prefix}{key}")
}

fn set(key: &str, upload: &Upload, time_to_live: Option<Duration>) -> Cmd {
    let bytes = upload.head.len() + upload.payload.len();
    let mut command = Cmd::with_capacity(5, bytes + COMMAND_BYTES);
    command.arg("SET").arg(key);
    {
        // One argument, without a buffer of its own.
        let mut frame = command.writer_for_next_arg();
        let written = frame
            .write_all(&upload.head)
            .and_then(|()| frame.write_all(&upload.payload));
        debug_assert!(written.is_ok(), "the buffer is in memory");
    }
    if let Some(time) = time_to_live {
        command.arg("PX").arg(millis(time));
    }
    command
}

/// As the server takes times: at least 1.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX).max(1)
}

pub(super) fn unexpected() -> RequestError {
    RequestError::new(
        StoreErrorKind::Protocol,
        "the reply is not of the type that the command has",
    )
}
