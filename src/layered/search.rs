//! The search of the tiers: one at a time for each key, shared by all who look the key up.
//!
//! [`Search`] is what a cache has; a [`RunningSearch`] is one search, as its flight runs it.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use super::admission::{Admission, Admitted, LookupPriority, PriorityBoost};
use super::background::{BackgroundWrites, Presence};
use super::group::{self, Member};
use super::lookup::{
    Found, Lookup, LookupOptions, LookupPolicy, LookupSource, Promotion, TierOutcome, TierReport,
    TierSelection,
};
use super::metrics::LookupCounters;
use super::progress::Progress;
use super::recorded_run::RecordedKind;
use super::run_recorder::{Cost, RunRecorder};
use super::tier::{Tier, stack_name};
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::answer;
use crate::store::runtime::require_runtime;
use crate::store::urgency;
use crate::store::{Fetched, Locality, StoreError, StoreErrorKind, StoreOperation};
use crate::sync::lock::lock;
use crate::sync::single_flight::{Outcome, SingleFlight};

/// How much longer than the search a caller waits, so that the search times out first and reports
/// what each tier did.
const GRACE: Duration = Duration::from_millis(10);

/// How a cache looks artifacts up.
#[derive(Debug)]
pub(super) struct Search {
    tiers: Arc<[Tier]>,
    policy: LookupPolicy,
    /// For all tiers of a search together.
    pub(super) deadline: Duration,
    admission: Admission,
    background: Arc<BackgroundWrites>,
    flights: SingleFlight<(PipelineFingerprint, TierSelection), Arc<SearchState>, Lookup>,
    pub(super) counters: LookupCounters,
    /// Where the run is recorded.
    pub(super) recorder: Option<RunRecorder>,
}

/// What those who wait for a search can see of it, and tell it.
#[derive(Debug)]
struct SearchState {
    progress: Progress,
    boost: PriorityBoost,
    /// Whether a caller has joined who wants the artifact in all faster tiers.
    promotes_to_all: AtomicBool,
}

impl Search {
    pub(super) fn new(
        tiers: Arc<[Tier]>,
        background: Arc<BackgroundWrites>,
        policy: LookupPolicy,
        deadline: Duration,
        max_searches: usize,
        recorder: Option<RunRecorder>,
    ) -> Self {
        Self {
            tiers,
            policy,
            deadline,
            admission: Admission::new(max_searches),
            background,
            flights: SingleFlight::new(),
            counters: LookupCounters::default(),
            recorder,
        }
    }

    /// A request for this key was answered, where the run is recorded: with this artifact, or with none.
    #[inline]
    pub(super) fn record(&self, key: &PipelineFingerprint, artifact: Option<&Artifact>) {
        if let Some(recorder) = &self.recorder {
            let cost = artifact.map_or_else(Cost::default, Cost::of);
            recorder.used(key, RecordedKind::Artifact, cost);
        }
    }

    /// A request for a source was answered, where the run is recorded, and the parse took so long.
    pub(super) fn record_alias(&self, key: &PipelineFingerprint, parse: Duration) {
        if let Some(recorder) = &self.recorder {
            let cost = Cost {
                bytes: Some(PipelineFingerprint::LEN as u64),
                compile_time: Some(parse).filter(|time| !time.is_zero()),
            };
            recorder.used(key, RecordedKind::SourceAlias, cost);
        }
    }

    /// What can be had without waiting: from a tier that answers at once, or from a write on its
    /// way. A hit is counted.
    #[inline]
    pub(super) fn peek(&self, key: &PipelineFingerprint) -> Option<Found> {
        let mut tiers = self.tiers.iter().enumerate();
        let in_tier = tiers.find_map(|(index, tier)| {
            let artifact = tier.peek(key)?;
            Some((artifact, LookupSource::Tier(index)))
        });
        let found = in_tier.or_else(|| self.background.peek(key))?;
        self.counters.hits.increment();
        self.record(key, Some(&found.0));
        Some(found)
    }

    /// As [`peek`](Self::peek), and a hit in a lower tier is promoted where there is a runtime.
    pub(super) fn peek_and_promote(&self, key: &PipelineFingerprint) -> Option<Found> {
        let first = self.tiers.first()?;
        if let Some(artifact) = first.peek(key) {
            self.counters.hits.increment();
            self.record(key, Some(&artifact));
            return Some((artifact, LookupSource::Tier(0)));
        }
        // Before the look, so that nothing is promoted that is removed after it.
        let generation = self.background.generation(key);
        let mut lower = self.tiers.iter().enumerate().skip(1);
        let in_lower = lower.find_map(|(index, tier)| Some((index, tier.peek(key)?)));
        let found = match in_lower {
            Some((tier, artifact)) => {
                if Handle::try_current().is_ok() {
                    self.background.promote(
                        key,
                        &artifact,
                        tier,
                        generation,
                        Promotion::ToAll,
                        |_| Presence::Unknown,
                    );
                }
                (artifact, LookupSource::Tier(tier))
            }
            None => self.background.peek(key)?,
        };
        self.counters.hits.increment();
        self.record(key, Some(&found.0));
        Some(found)
    }

    /// Looks a key up: without waiting if that is possible, or else in the tiers. With others, if it is
    /// a member of a group.
    pub(super) async fn lookup(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        options: &LookupOptions,
        member: Option<Member>,
    ) -> Lookup {
        if let Some(found) = self.peek_and_promote(key) {
            return Lookup::without_search(found, self.tiers.len());
        }
        let lookup = self.search(key, options, member).await;
        self.counters.count(&lookup);
        self.record(key, lookup.artifact());
        lookup
    }

    /// Fetches a key that no user waits for into the last local tier that takes it. Not counted as a
    /// lookup of the cache, and not recorded.
    pub(super) async fn prefetch(self: &Arc<Self>, key: &PipelineFingerprint) -> Lookup {
        let mut options = LookupOptions::new().priority(LookupPriority::Background);
        options.promotion = Promotion::ToLastLocal;
        self.search(key, &options, None).await
    }

    /// Waits until no interactive search runs.
    pub(super) async fn no_user_waits(&self) {
        self.admission.no_user_waits().await;
    }

    /// Whether a tier is asked for many keys in one call: a network tier is.
    pub(super) fn asks_for_many(&self, options: &LookupOptions) -> bool {
        let mut localities = self.tiers.iter().map(|tier| tier.locality);
        options.tiers.allows(Locality::Network)
            && localities.any(|locality| locality == Locality::Network)
    }

    /// A group of so many lookups, where that is of use.
    pub(super) fn members(&self, count: usize, options: &LookupOptions) -> Vec<Option<Member>> {
        match self.asks_for_many(options) {
            true => {
                let members = group::members(&self.tiers, count).into_iter();
                members.map(Some).collect()
            }
            false => (0..count).map(|_| None).collect(),
        }
    }

    /// Whether a tier says that it has the key. The first that does ends the call.
    pub(super) async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        if self.background.peek(key).is_some() {
            return Ok(true);
        }
        require_runtime(|| stack_name(&self.tiers), StoreOperation::Contains)?;
        let answers = self.tiers.iter().map(|tier| async move {
            timeout(self.deadline, tier.contains(key))
                .await
                .unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::Contains)))
        });
        let mut answers: FuturesUnordered<_> = answers.collect();
        let mut failed = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(false), Err)
    }

    /// What these tiers have now, by a search of its own. Not counted as a lookup. `None` also when it
    /// waits for network tiers alone, and none of them has begun to answer within the budget.
    pub(super) async fn search_anew(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        tiers: TierSelection,
        network_budget: Duration,
    ) -> Option<Found> {
        self.detach(key);
        let options = LookupOptions::new().tiers(tiers);
        let search = WatchedSearch::new(self, *key, options);
        tokio::select! {
            biased;
            lookup = search.run_uncounted() => lookup.found,
            () = search.network_is_late(network_budget) => None,
        }
    }

    /// Makes later lookups of a key start a search of their own: the one under way may not see what
    /// was written or removed since it began.
    pub(super) fn detach(&self, key: &PipelineFingerprint) {
        for selection in [TierSelection::All, TierSelection::Local] {
            self.flights.detach(&(*key, selection));
        }
    }

    /// Joins the search for this key or starts it, and waits as long as the options allow.
    async fn search(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        options: &LookupOptions,
        member: Option<Member>,
    ) -> Lookup {
        let operation = StoreOperation::Get;
        if let Err(error) = require_runtime(|| stack_name(&self.tiers), operation) {
            return self.failed(options, error);
        }
        let longest = self.deadline.saturating_add(GRACE);
        let patience = options
            .deadline
            .map_or(longest, |deadline| deadline.min(longest));
        let state = watch::Sender::new(None);
        self.search_as(key, options, member, patience, &state).await
    }

    /// As [`search`](Self::search). `state` is set to that of the search as soon as it is joined.
    async fn search_as(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        options: &LookupOptions,
        member: Option<Member>,
        patience: Duration,
        state: &watch::Sender<Option<Arc<SearchState>>>,
    ) -> Lookup {
        let answer = timeout(patience, self.join(key, options, member, state)).await;
        if let Ok(Some(lookup)) = answer {
            return lookup;
        }
        let state = state.borrow().clone();
        let state = state.unwrap_or_else(|| self.new_state(options));
        self.unfound(&state)
    }

    /// A lookup in which every tier that may be asked fails with this error.
    fn failed(&self, options: &LookupOptions, error: StoreError) -> Lookup {
        let state = self.new_state(options);
        for (index, tier) in self.tiers.iter().enumerate() {
            if options.tiers.allows(tier.locality) {
                let failed = TierOutcome::Failed(error.clone());
                state.progress.answered(index, failed);
            }
        }
        self.unfound(&state)
    }

    /// A lookup without an artifact. Tiers that have not answered have timed out.
    fn unfound(&self, state: &SearchState) -> Lookup {
        Lookup {
            found: None,
            asked: Some(state.progress.reports(&TierOutcome::TimedOut)),
            tiers: self.tiers.len(),
        }
    }

    /// The answer of the search, or `None` if it has none. `state` is set to that of the search as
    /// soon as it is joined.
    async fn join(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        options: &LookupOptions,
        mut member: Option<Member>,
        state: &watch::Sender<Option<Arc<SearchState>>>,
    ) -> Option<Lookup> {
        let mut is_again = false;
        loop {
            let flight = (*key, options.tiers);
            let waiter = self
                .flights
                .join(flight, || self.start(key, options, member.take()));
            // The search of another key's caller is no member of this group.
            drop(member.take());
            let is_leader = waiter.is_leader;
            if !is_leader {
                self.counters.joins.increment();
                let state = waiter.progress();
                if options.priority == LookupPriority::Interactive {
                    state.boost.boost();
                }
                if options.promotion == Promotion::ToAll {
                    state.promotes_to_all.store(true, Ordering::Relaxed);
                }
            }
            state.send_replace(Some(Arc::clone(waiter.progress())));
            match waiter.await {
                Outcome::Done(lookup) if self.may_answer(&lookup) => return Some(lookup),
                // This caller may have come after the revocation: the tiers are asked anew, once.
                Outcome::Done(lookup) if is_again => return Some(lookup.without_artifact()),
                Outcome::Done(_) => is_again = true,
                // The runtime of the leader was shut down, and that of this caller was not.
                Outcome::Aborted if !is_leader => {}
                Outcome::Aborted => return None,
                Outcome::Panicked(message) => {
                    tracing::error!(%key, %message, "search panicked; the lookup is a degraded miss");
                    return None;
                }
            }
        }
    }

    /// Whether what a search found may still be served.
    fn may_answer(&self, lookup: &Lookup) -> bool {
        let found = lookup.found.as_ref();
        found.is_none_or(|(artifact, source)| self.may_serve(artifact, *source))
    }

    /// As [`BackgroundWrites::may_serve`].
    pub(super) fn may_serve(&self, artifact: &Artifact, source: LookupSource) -> bool {
        self.background.may_serve(artifact, source)
    }

    fn new_state(&self, options: &LookupOptions) -> Arc<SearchState> {
        let allowed = self
            .tiers
            .iter()
            .map(|tier| (options.tiers.allows(tier.locality), tier.locality));
        Arc::new(SearchState {
            progress: Progress::new(allowed),
            boost: PriorityBoost::default(),
            promotes_to_all: AtomicBool::new(options.promotion == Promotion::ToAll),
        })
    }

    fn start(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        options: &LookupOptions,
        member: Option<Member>,
    ) -> (Arc<SearchState>, impl Future<Output = Lookup> + use<>) {
        let state = self.new_state(options);
        let search = RunningSearch {
            search: Arc::clone(self),
            key: *key,
            selection: options.tiers,
            priority: options.priority,
            member,
            state: Arc::clone(&state),
        };
        // The span is made by the work, because a subscriber must not run under the flights' lock.
        let work = async move {
            let span = tracing::debug_span!("search", key = %search.key, tiers = ?search.selection);
            search.run().instrument(span).await
        };
        (state, work)
    }
}

/// The search of a compile request, which is watched while it runs.
#[derive(Debug)]
pub(super) struct WatchedSearch {
    search: Arc<Search>,
    key: PipelineFingerprint,
    options: LookupOptions,
    state: watch::Sender<Option<Arc<SearchState>>>,
    boost: PriorityBoost,
}

impl WatchedSearch {
    pub(super) fn new(
        search: &Arc<Search>,
        key: PipelineFingerprint,
        options: LookupOptions,
    ) -> Self {
        Self {
            search: Arc::clone(search),
            key,
            options,
            state: watch::Sender::new(None),
            boost: PriorityBoost::default(),
        }
    }

    /// Searches the tiers, and counts it as a lookup.
    pub(super) async fn run(&self) -> Lookup {
        let lookup = tokio::select! {
            biased;
            lookup = self.run_uncounted() => lookup,
            never = self.hand_on_boost() => match never {},
        };
        self.search.counters.count(&lookup);
        lookup
    }

    async fn run_uncounted(&self) -> Lookup {
        let (search, options) = (&self.search, &self.options);
        let patience = search.deadline.saturating_add(GRACE);
        search
            .search_as(&self.key, options, None, patience, &self.state)
            .await
    }

    /// Tells the search that an interactive caller waits for it, also before it has begun.
    pub(super) fn boost(&self) {
        self.boost.boost();
    }

    async fn hand_on_boost(&self) -> Infallible {
        self.boost.boosted().await;
        if let Some(state) = self.started().await {
            state.boost.boost();
        }
        std::future::pending().await
    }

    /// Waits until the search has begun.
    async fn started(&self) -> Option<Arc<SearchState>> {
        let mut state = self.state.subscribe();
        let started = state.wait_for(Option::is_some).await;
        started.ok().and_then(|state| state.clone())
    }

    /// Waits until no network tier has begun to answer within this time.
    pub(super) async fn network_is_late(&self, budget: Duration) {
        match self.started().await {
            Some(state) => state.progress.network_is_late(budget).await,
            None => std::future::pending().await,
        }
    }

    /// How long ago the search first waited for network tiers alone.
    pub(super) fn network_time(&self) -> Duration {
        let state = self.state.borrow();
        state
            .as_ref()
            .map_or(Duration::ZERO, |state| state.progress.network_time())
    }

    /// What each tier has done so far. A tier that has not answered is reported as timed out.
    pub(super) fn reports(&self) -> Option<Arc<[TierReport]>> {
        let state = self.state.borrow();
        Some(state.as_ref()?.progress.reports(&TierOutcome::TimedOut))
    }
}

/// One search under way.
struct RunningSearch {
    search: Arc<Search>,
    key: PipelineFingerprint,
    selection: TierSelection,
    priority: LookupPriority,
    /// Where it asks network tiers together with others.
    member: Option<Member>,
    state: Arc<SearchState>,
}

impl RunningSearch {
    async fn run(self) -> Lookup {
        let search = &self.search;
        // An earlier search may have ended since the caller looked. Its promotion began before it
        // left the table: it is still on its way, or in the tiers that are asked below.
        if let Some(found) = search.background.peek(&self.key) {
            return Lookup::without_search(found, search.tiers.len());
        }
        let generation = search.background.generation(&self.key);
        let start = Instant::now();
        let hit = timeout(search.deadline, async {
            let admitted = search
                .admission
                .acquire(self.priority, &self.state.boost)
                .await;
            self.ask_all(&Mutex::new(admitted)).await
        })
        .await;
        search.counters.latency.record(start.elapsed());
        let unanswered = match hit {
            Ok(_) => TierOutcome::Cancelled,
            Err(_) => TierOutcome::TimedOut,
        };
        let progress = &self.state.progress;
        progress.end(&unanswered);
        let found = hit.ok().flatten().map(|(tier, artifact)| {
            let presence = |tier| match () {
                () if progress.is_missing(tier) => Presence::Missing,
                () if progress.is_refused(tier) => Presence::Refused,
                () => Presence::Unknown,
            };
            let promotion = match self.state.promotes_to_all.load(Ordering::Relaxed) {
                true => Promotion::ToAll,
                false => Promotion::ToLastLocal,
            };
            // Before the flight ends, so that the next lookup finds the promotion.
            search
                .background
                .promote(&self.key, &artifact, tier, generation, promotion, presence);
            (artifact, LookupSource::Tier(tier))
        });
        Lookup {
            found,
            asked: Some(progress.reports(&unanswered)),
            tiers: search.tiers.len(),
        }
    }

    /// Asks the tiers, wave by wave, until one has the artifact.
    async fn ask_all(&self, admitted: &Mutex<Admitted<'_>>) -> Option<(usize, Artifact)> {
        let mut waves = self.waves().into_iter();
        let mut asked = FuturesUnordered::new();
        while let Some(wave) = waves.next() {
            asked.extend(wave.into_iter().map(|tier| self.ask(tier, admitted)));
            let head_start = self.head_start();
            tokio::pin!(head_start);
            loop {
                tokio::select! {
                    biased;
                    answer = asked.next() => match answer {
                        Some((tier, Some(artifact))) => return Some((tier, artifact)),
                        Some((_, None)) => {}
                        // No tier of the wave has it: the next need not wait.
                        None => break,
                    },
                    () = &mut head_start, if waves.len() > 0 => break,
                }
            }
        }
        None
    }

    /// The tiers that may be asked, in waves. The tiers of a wave are asked at once.
    fn waves(&self) -> Vec<Vec<usize>> {
        let tiers = &self.search.tiers;
        let allowed = (0..tiers.len()).filter(|&tier| self.selection.allows(tiers[tier].locality));
        match self.search.policy {
            LookupPolicy::Concurrent
            | LookupPolicy::Hedged {
                delay: Duration::ZERO,
            } => vec![allowed.collect()],
            LookupPolicy::Sequential => allowed.map(|tier| vec![tier]).collect(),
            LookupPolicy::Hedged { .. } => {
                let (local, network): (Vec<_>, Vec<_>) =
                    allowed.partition(|&tier| tiers[tier].locality == Locality::Local);
                vec![local, network]
            }
        }
    }

    /// How long a wave has before the next is asked as well.
    async fn head_start(&self) {
        match self.search.policy {
            LookupPolicy::Hedged { delay } => match &self.member {
                // Local tiers that answer one key after the other are not late.
                Some(member) => member.hears_no_answer(delay).await,
                None => sleep(delay).await,
            },
            LookupPolicy::Concurrent | LookupPolicy::Sequential => std::future::pending().await,
        }
    }

    async fn ask(&self, index: usize, admitted: &Mutex<Admitted<'_>>) -> (usize, Option<Artifact>) {
        let tier = &self.search.tiers[index];
        self.state.progress.asked(index);
        let fetched = match self.priority {
            LookupPriority::Interactive => self.fetch(index, admitted).await,
            LookupPriority::Background => {
                let urgent = self.state.boost.token().clone();
                urgency::in_background(urgent, self.fetch(index, admitted)).await
            }
        };
        let (outcome, artifact) = match fetched {
            Ok(Fetched::Hit(artifact)) => (TierOutcome::Hit, Some(artifact)),
            Ok(Fetched::Miss) => (TierOutcome::Miss, None),
            Ok(Fetched::Refused) => (TierOutcome::Refused, None),
            Ok(Fetched::Corrupt(reason)) => {
                tracing::debug!(key = %self.key, tier = tier.name(), %reason, "corrupt entry");
                (TierOutcome::Corrupt(reason), None)
            }
            Err(error) => (self.failed(error), None),
        };
        self.state.progress.answered(index, outcome);
        (index, artifact)
    }

    /// Asks a tier: for this key alone, or a network tier together with the others of its group.
    async fn fetch(
        &self,
        index: usize,
        admitted: &Mutex<Admitted<'_>>,
    ) -> Result<Fetched, StoreError> {
        let tier = &self.search.tiers[index];
        if tier.locality == Locality::Local {
            let fetched = tier.fetch(&self.key).await;
            self.member.iter().for_each(Member::has_answer);
            return fetched;
        }
        let state = Arc::clone(&self.state);
        let on_answer = Arc::new(move || state.progress.answering(index));
        match &self.member {
            Some(member) => {
                // It may wait for members that have no permit yet, and is no call of its own.
                lock(admitted).release();
                member.fetch(index, &self.key, on_answer).await
            }
            None => answer::observed(on_answer, tier.fetch(&self.key)).await,
        }
    }

    fn failed(&self, error: StoreError) -> TierOutcome {
        match error.kind() {
            StoreErrorKind::Panicked => {
                tracing::warn!(key = %self.key, error = %format_args!("{error:#}"), "a tier panicked, which is a bug in it");
            }
            // The tier has logged its failure where it began.
            _ => {
                tracing::debug!(key = %self.key, error = %format_args!("{error:#}"), "lookup failed in a tier")
            }
        }
        match error.kind() {
            StoreErrorKind::BreakerOpen => TierOutcome::BreakerOpen,
            _ => TierOutcome::Failed(error),
        }
    }
}

impl Drop for RunningSearch {
    /// Counts what the tiers that were asked did, also in a search that was given up.
    fn drop(&mut self) {
        let reports = self.state.progress.of_asked(&TierOutcome::Cancelled);
        for (tier, report) in self.search.tiers.iter().zip(reports) {
            if let Some(report) = report {
                tier.counters.count(&report);
            }
        }
    }
}
