//! The last requests.

use std::collections::VecDeque;
use std::time::Duration;

use pipeline_cache::PipelineFingerprint;
use serde::Serialize;

use super::now;

/// How many are kept.
const KEPT: usize = 50;

/// The longest target, as a client may have named it.
const MAX_TARGET: usize = 32;

/// What an answer is about. Handlers put it into the extensions of their response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered {
    pub(crate) key: Option<PipelineFingerprint>,
    /// Where the artifact came from.
    pub(crate) source: Option<String>,
    /// As `Server-Timing` has it.
    pub(crate) timing: Option<String>,
}

/// A request that is over.
#[derive(Debug, Serialize)]
pub(crate) struct Request {
    /// When its answer was sent.
    at: f64,
    /// What was asked for: `compile` or `artifact`.
    kind: &'static str,
    target: Option<String>,
    key: Option<String>,
    source: Option<String>,
    /// 499 if its client left before the answer.
    status: u16,
    seconds: f64,
    bytes: u64,
    timing: Option<String>,
}

impl Request {
    pub(crate) fn new(kind: &'static str, target: Option<String>, status: u16) -> Self {
        Self {
            at: now(),
            kind,
            target,
            key: None,
            source: None,
            status,
            seconds: 0.0,
            bytes: 0,
            timing: None,
        }
    }

    pub(crate) fn answered(mut self, answered: Answered) -> Self {
        self.key = answered.key.map(|key| key.to_string());
        self.source = answered.source;
        self.timing = answered.timing;
        self
    }

    pub(crate) fn took(mut self, elapsed: Duration, bytes: u64) -> Self {
        (self.seconds, self.bytes) = (elapsed.as_secs_f64(), bytes);
        self
    }

    pub(super) fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    pub(super) fn elapsed(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }

    /// What a path asks to compile to, cut short.
    pub(crate) fn target_of(path: &str) -> Option<String> {
        let target = path.strip_prefix("/compile/")?;
        Some(target.chars().take(MAX_TARGET).collect())
    }
}

/// The latest first.
#[derive(Debug, Default, Serialize)]
pub(super) struct Recent(VecDeque<Request>);

impl Recent {
    pub(super) fn keep(&mut self, request: Request) {
        self.0.truncate(KEPT - 1);
        self.0.push_front(request);
    }
}
