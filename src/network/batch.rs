//! The keys of one request for many entries, and what the server has answered so far.
//!
//! An attempt asks only for what the attempts before it did not answer: an answer that breaks off costs
//! what was still to come.

use std::sync::Mutex;

use crate::key::PipelineFingerprint;
use crate::store::Fetched;
use crate::sync::lock::lock;

#[derive(Debug)]
pub(crate) struct Batch {
    keys: Vec<PipelineFingerprint>,
    /// One for each key.
    answers: Mutex<Vec<Option<BatchAnswer>>>,
}

/// What became of one key of a batch.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "remote-cache"),
    expect(dead_code, reason = "no other tier has batches")
)]
pub(crate) enum BatchAnswer {
    Fetched(Fetched),
    /// A request of its own will tell more.
    AskAlone,
}

impl Batch {
    pub(crate) fn new(keys: Vec<PipelineFingerprint>) -> Self {
        let answers = keys.iter().map(|_| None).collect();
        Self {
            keys,
            answers: Mutex::new(answers),
        }
    }

    /// The keys that have no answer, and the place of each.
    #[cfg(feature = "remote-cache")]
    pub(crate) fn unanswered(&self) -> Vec<(usize, PipelineFingerprint)> {
        let answers = lock(&self.answers);
        let keys = self.keys.iter().copied().enumerate();
        keys.filter(|&(place, _)| answers[place].is_none())
            .collect()
    }

    #[cfg(feature = "remote-cache")]
    pub(crate) fn answer(&self, place: usize, answer: BatchAnswer) {
        if let Some(of_place) = lock(&self.answers).get_mut(place) {
            *of_place = Some(answer);
        }
    }

    /// Each key, with its answer if it has one.
    pub(crate) fn answers(&self) -> Vec<(PipelineFingerprint, Option<BatchAnswer>)> {
        let answers = std::mem::take(&mut *lock(&self.answers));
        self.keys.iter().copied().zip(answers).collect()
    }
}
