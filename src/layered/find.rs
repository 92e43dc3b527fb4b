//! How a caller comes by an answer: at hand, or from the search for the key.

use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::Inner;
use super::admission::LookupPriority;
use super::lookup::{Lookup, LookupOptions, LookupSource, TierOutcome, TierSelection};
use super::search::{Search, SearchState, peek_all, promote};
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::sync::single_flight::Outcome;

/// By how much a caller outwaits the search, so that it is the search whose time is up first, and
/// which then says what each tier did.
const GRACE: Duration = Duration::from_millis(10);

impl Inner {
    /// What needs no waiting: the tiers that answer at once, and writes on their way.
    pub(super) fn at_hand(&self, key: &PipelineFingerprint) -> Option<(Artifact, LookupSource)> {
        peek_all(&self.tiers, key).or_else(|| self.background.peek(key))
    }

    /// As [`at_hand`](Self::at_hand), and what was at hand in a lower tier is promoted, where
    /// there is a runtime to do it.
    pub(super) fn take_at_hand(
        &self,
        key: &PipelineFingerprint,
    ) -> Option<(Artifact, LookupSource)> {
        let (first, lower) = self.tiers.split_first()?;
        if let Some(artifact) = first.peek(key) {
            return Some((artifact, LookupSource::Tier(0)));
        }
        // Taken before the look, so that nothing is promoted that was removed since.
        let generation = self.background.generation(key);
        let mut peeked = (1..).zip(lower);
        let found = peeked.find_map(|(index, tier)| Some((index, tier.peek(key)?)));
        let Some((tier, artifact)) = found else {
            return self.background.peek(key);
        };
        if Handle::try_current().is_ok() {
            let tiers = &self.tiers;
            promote(
                &self.background,
                tiers,
                key,
                &artifact,
                generation,
                tier,
                |_| false,
            );
        }
        Some((artifact, LookupSource::Tier(tier)))
    }

    pub(super) async fn lookup(
        &self,
        key: &PipelineFingerprint,
        options: &LookupOptions,
    ) -> Lookup {
        let lookup = match self.take_at_hand(key) {
            Some(found) => Lookup {
                found: Some(found),
                asked: None,
                tiers: self.tiers.len(),
            },
            None => self.search(key, options).await,
        };
        self.count(&lookup);
        lookup
    }

    /// Joins the search for this key or starts it, and waits as long as the options allow.
    pub(super) async fn search(
        &self,
        key: &PipelineFingerprint,
        options: &LookupOptions,
    ) -> Lookup {
        let longest = self.lookup_deadline.saturating_add(GRACE);
        let patience = options
            .deadline
            .map_or(longest, |deadline| deadline.min(longest));
        let mut state = None;
        let answered = {
            let search = self.search_patiently(key, options, &mut state);
            timeout(patience, search).await
        };
        if let Ok(Some(lookup)) = answered {
            return lookup;
        }
        let state = state.unwrap_or_else(|| self.new_state(options.tiers));
        Lookup {
            found: None,
            asked: Some(state.progress.reports(&TierOutcome::TimedOut)),
            tiers: self.tiers.len(),
        }
    }

    /// The search's answer, or `None` if it came to no end. `state` is set as soon as there is
    /// something to be said of it.
    async fn search_patiently(
        &self,
        key: &PipelineFingerprint,
        options: &LookupOptions,
        state: &mut Option<Arc<SearchState>>,
    ) -> Option<Lookup> {
        loop {
            let flight = (*key, options.tiers);
            let start = || self.new_search(key, options);
            let waiter = self.searches.join_inline(flight, start);
            let progress = Arc::clone(waiter.progress());
            let leads = waiter.is_leader;
            if !leads {
                self.counters.joins.increment();
                if options.priority == LookupPriority::Interactive {
                    progress.boost.up();
                }
            }
            *state = Some(progress);
            match waiter.await {
                Outcome::Done(lookup) => return Some(lookup),
                // The runtime of another caller was shut down, and this caller's was not.
                Outcome::Aborted if !leads => {}
                Outcome::Aborted => return None,
                Outcome::Panicked(message) => {
                    tracing::error!(%key, %message, "a lookup panicked");
                    return None;
                }
            }
        }
    }

    fn new_state(&self, selection: TierSelection) -> Arc<SearchState> {
        Arc::new(SearchState::new(&self.tiers, selection))
    }

    fn new_search(
        &self,
        key: &PipelineFingerprint,
        options: &LookupOptions,
    ) -> (Arc<SearchState>, impl Future<Output = Lookup> + use<>) {
        let state = self.new_state(options.tiers);
        let search = Search {
            key: *key,
            selection: options.tiers,
            policy: self.lookup_policy,
            deadline: self.lookup_deadline,
            tiers: Arc::clone(&self.tiers),
            background: Arc::clone(&self.background),
            counters: Arc::clone(&self.counters),
            admission: Arc::clone(&self.admission),
            priority: options.priority,
            state: Arc::clone(&state),
        };
        // The span is made in the work: nothing foreign runs while the flights are locked.
        let run = async move {
            let span = tracing::debug_span!("search", key = %search.key, tiers = ?search.selection);
            search.run().instrument(span).await
        };
        (state, run)
    }

    pub(super) fn count(&self, lookup: &Lookup) {
        if lookup.found.is_some() {
            self.counters.hits.increment();
        } else if lookup.is_degraded() {
            self.counters.degraded_misses.increment();
        } else {
            self.counters.misses.increment();
        }
        // A hit at hand asked nobody, and raises no counter that all threads share.
        if let Some(asked) = &lookup.asked {
            let corrupt = asked
                .iter()
                .filter(|tier| matches!(tier.outcome, TierOutcome::Corrupt(_)));
            self.counters.corrupt.add(corrupt.count() as u64);
        }
    }
}
