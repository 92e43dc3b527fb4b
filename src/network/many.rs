//! Lookups of many keys: in as few requests as the server allows, and one by one where it allows none.
//!
//! A batch is one call to the [call policy](super::call_policy): one permit, one breaker, retries and
//! time limits as of a single lookup. Its answers are counted and learnt from key by key.

use futures::stream::{self, StreamExt as _};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::backend::Backend;
use super::batch::{Batch, BatchAnswer};
use super::caller::{AnswerProgress, as_task};
use super::tier::NetworkTier;
use super::time::after;
use crate::key::PipelineFingerprint;
use crate::store::{Fetched, StoreError, StoreOperation, many};
use crate::sync::blocking;

/// How many batches of one call are under way at a time.
const BATCHES_AT_ONCE: usize = 4;

type Answer = Result<Fetched, StoreError>;

/// What a batch has for one of its keys.
enum Outcome {
    Answered(Answer),
    /// It was left out of the answer: the next batch may have room for it.
    LeftOut,
    AskAlone,
}

impl<B: Backend> NetworkTier<B> {
    /// The answers to these keys, in their order.
    pub(crate) async fn fetch_many(self: &Arc<Self>, keys: &[PipelineFingerprint]) -> Vec<Answer> {
        let most = self.backend.max_batch_keys();
        if most < 2 || keys.len() < 2 {
            return many::in_order(keys.iter().map(|key| self.fetch(key))).await;
        }
        let groups: Vec<_> = keys
            .chunks(most)
            .map(|keys| self.fetch_group(keys))
            .collect();
        let groups = stream::iter(groups).buffered(BATCHES_AT_ONCE);
        let groups: Vec<_> = groups.collect().await;
        groups.into_iter().flatten().collect()
    }

    /// As [`fetch_many`](Self::fetch_many), for no more keys than one batch may have.
    async fn fetch_group(self: &Arc<Self>, keys: &[PipelineFingerprint]) -> Vec<Answer> {
        let answers = &self.fetch_in_batches(keys).await;
        let each = keys.iter().map(|key| async move {
            match answers.get(key) {
                Some(answer) => answer.clone(),
                None => self.fetch(key).await,
            }
        });
        many::in_order(each).await
    }

    /// What batches answer, or what is remembered. Keys that have to be asked for alone have no answer.
    async fn fetch_in_batches(
        self: &Arc<Self>,
        keys: &[PipelineFingerprint],
    ) -> HashMap<PipelineFingerprint, Answer> {
        let mut answers = HashMap::with_capacity(keys.len());
        let mut seen = HashSet::with_capacity(keys.len());
        let mut waiting = Vec::with_capacity(keys.len());
        for key in keys {
            if !seen.insert(*key) {
                continue;
            }
            match self.remembered_miss(key) {
                Some(miss) => drop(answers.insert(*key, Ok(miss))),
                None => waiting.push(*key),
            }
        }
        while waiting.len() > 1 && self.backend.max_batch_keys() > 1 {
            let asked = waiting.len();
            let outcomes = self.fetch_batch(std::mem::take(&mut waiting)).await;
            for (key, outcome) in outcomes {
                match outcome {
                    Outcome::Answered(answer) => drop(answers.insert(key, answer)),
                    Outcome::LeftOut => waiting.push(key),
                    Outcome::AskAlone => {}
                }
            }
            if waiting.len() == asked {
                break;
            }
        }
        answers
    }

    /// One call, as a task.
    async fn fetch_batch(
        self: &Arc<Self>,
        keys: Vec<PipelineFingerprint>,
    ) -> Vec<(PipelineFingerprint, Outcome)> {
        let tier = Arc::clone(self);
        as_task(|caller| async move {
            let Some(first) = keys.first().copied() else {
                return Some(Vec::new());
            };
            let lookups: Vec<_> = keys.iter().map(|key| tier.begin_lookup(key)).collect();
            let batch = Batch::new(keys);
            let download = |credentials, answer: AnswerProgress| {
                let (tier, batch) = (&tier, &batch);
                let stop_at = after(tier.policy.limits.attempt_timeout / 2);
                async move {
                    let backend = &tier.backend;
                    backend
                        .download_many(batch, credentials, &answer, stop_at)
                        .await
                }
            };
            let result = tier.call(&caller, StoreOperation::GetMany, &first, download);
            let result = result.await?;
            // A server that turns out to have no batches has failed none of these keys.
            let failed = result.err().filter(|_| tier.backend.max_batch_keys() > 1);
            let mut outcomes = Vec::with_capacity(lookups.len());
            for ((key, answer), lookup) in batch.answers().into_iter().zip(lookups) {
                let settled = |fetched| Outcome::Answered(tier.settle(&key, fetched, lookup));
                let outcome = match (answer, &failed) {
                    (Some(BatchAnswer::Fetched(fetched)), _) => settled(Ok(fetched)),
                    (Some(BatchAnswer::AskAlone), _) => Outcome::AskAlone,
                    (None, Some(error)) => settled(Err(error.clone())),
                    (None, None) => Outcome::LeftOut,
                };
                outcomes.push((key, outcome));
                blocking::consume_budget(0).await;
            }
            Some(outcomes)
        })
        .await
    }
}
