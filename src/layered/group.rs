//! Lookups of many keys at a time: their searches ask a network tier together, in one call.
//!
//! Each key has a search of its own, as any lookup has. A search that comes to a network tier waits here
//! until all of its group have come to that tier or have ended; then one call asks for all that still
//! wait. A member that is held up elsewhere holds up nobody: the call is made as well once nothing has
//! happened in the group for [`QUIET`].

use futures::future::{join_all, select_all};
use std::future::Future;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::tier::Tier;
use crate::key::PipelineFingerprint;
use crate::store::answer::{self, OnAnswer};
use crate::store::urgency;
use crate::store::{Fetched, StoreError, StoreErrorKind, StoreOperation};
use crate::sync::lock::lock;

/// The most members of a group.
pub(super) const MAX_MEMBERS: usize = 1024;

/// How long nothing may happen in a group before those that wait do not wait for the others any more.
const QUIET: Duration = Duration::from_millis(2);

type Answer = Result<Fetched, StoreError>;

#[derive(Debug)]
struct Group {
    tiers: Arc<[Tier]>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// For each tier.
    gatherings: Vec<Gathering>,
    /// When a member last had an answer of a tier that is asked for each key alone.
    last_answer: Instant,
    /// When something last happened.
    last: Instant,
}

/// Those who have come to a tier.
#[derive(Debug)]
struct Gathering {
    /// Members that may still come.
    expected: usize,
    waiting: Vec<Waiting>,
}

struct Waiting {
    key: PipelineFingerprint,
    answer: oneshot::Sender<Answer>,
    on_answer: OnAnswer,
    /// Cancelled when a user waits for it after all; `None` if one does already.
    urgent: Option<CancellationToken>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiting({})", self.key)
    }
}

/// One lookup of a group. It leaves the group with its drop.
#[derive(Debug)]
pub(super) struct Member {
    group: Arc<Group>,
    /// The tiers that it has come to.
    came_to: Mutex<Vec<bool>>,
}

/// A group of so many.
pub(super) fn members(tiers: &Arc<[Tier]>, count: usize) -> Vec<Member> {
    let gathering = || Gathering {
        expected: count,
        waiting: Vec::new(),
    };
    let now = Instant::now();
    let group = Arc::new(Group {
        tiers: Arc::clone(tiers),
        state: Mutex::new(State {
            gatherings: tiers.iter().map(|_| gathering()).collect(),
            last_answer: now,
            last: now,
        }),
    });
    let member = || Member {
        group: Arc::clone(&group),
        came_to: Mutex::new(vec![false; tiers.len()]),
    };
    (0..count).map(|_| member()).collect()
}

impl Member {
    /// What the tier has under the key of this member.
    pub(super) async fn fetch(
        &self,
        tier: usize,
        key: &PipelineFingerprint,
        on_answer: OnAnswer,
    ) -> Answer {
        let group = &self.group;
        let (sender, mut answer) = oneshot::channel();
        lock(&self.came_to)[tier] = true;
        group.update(|state| {
            let gathering = &mut state.gatherings[tier];
            gathering.expected -= 1;
            gathering.waiting.push(Waiting {
                key: *key,
                answer: sender,
                on_answer,
                urgent: urgency::background(),
            });
        });
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = self.is_quiet(QUIET, |state| state.last) => {
                group.ask(tier);
                answer.await
            }
        };
        answer.unwrap_or_else(|_| {
            let error = group.tiers[tier].error(StoreErrorKind::Other, StoreOperation::GetMany);
            Err(error.with_source("the tier gave no answer for this key"))
        })
    }

    /// A tier that is asked for each key alone has answered.
    pub(super) fn has_answer(&self) {
        let mut state = lock(&self.group.state);
        state.last = Instant::now();
        state.last_answer = state.last;
    }

    /// Waits until no such tier has answered any member for this long.
    pub(super) async fn hears_no_answer(&self, time: Duration) {
        self.is_quiet(time, |state| state.last_answer).await;
    }

    async fn is_quiet(&self, time: Duration, last: impl Fn(&State) -> Instant) {
        loop {
            let last = last(&lock(&self.group.state));
            let Some(until) = last.checked_add(time) else {
                return std::future::pending().await;
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let came_to = mem::take(&mut *lock(&self.came_to));
        self.group.update(|state| {
            for (gathering, came) in state.gatherings.iter_mut().zip(came_to) {
                gathering.expected -= usize::from(!came);
            }
        });
    }
}

impl Group {
    /// Something has happened, after which nobody may be left to wait for.
    fn update(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let complete: Vec<_> = {
            let mut state = lock(&self.state);
            change(&mut state);
            state.last = Instant::now();
            let gatherings = state.gatherings.iter().enumerate();
            gatherings
                .filter(|(_, gathering)| gathering.expected == 0 && !gathering.waiting.is_empty())
                .map(|(tier, _)| tier)
                .collect()
        };
        for tier in complete {
            self.ask(tier);
        }
    }

    /// Asks a tier for the keys of all that wait for it.
    fn ask(self: &Arc<Self>, tier: usize) {
        // Outside of a runtime a member has left with it. The next that is quiet asks.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut waiting = mem::take(&mut lock(&self.state).gatherings[tier].waiting);
        waiting.retain(|waiting| !waiting.answer.is_closed());
        if !waiting.is_empty() {
            let group = Arc::clone(self);
            let call = async move { group.call(tier, waiting).await };
            runtime.spawn(call.in_current_span());
        }
    }

    /// One call, which ends when nobody waits for it any more.
    async fn call(&self, tier: usize, mut waiting: Vec<Waiting>) {
        let tier = &self.tiers[tier];
        let keys: Vec<_> = waiting.iter().map(|waiting| waiting.key).collect();
        let told: Vec<_> = waiting.iter().map(|w| Arc::clone(&w.on_answer)).collect();
        let on_answer = Arc::new(move || told.iter().for_each(|on_answer| on_answer()));
        let fetch = async {
            match &keys[..] {
                [key] => vec![tier.fetch(key).await],
                keys => tier.fetch_many(keys).await,
            }
        };
        let urgent = waiting.iter().map(|waiting| waiting.urgent.clone());
        let fetch = as_urgent_as(urgent.collect(), fetch);
        let all_left = join_all(waiting.iter_mut().map(|waiting| waiting.answer.closed()));
        let answers = tokio::select! {
            biased;
            answers = answer::observed(on_answer, fetch) => answers,
            _ = all_left => return,
        };
        for (waiting, answer) in waiting.into_iter().zip(answers) {
            // One that has left needs none.
            let _ = waiting.answer.send(answer);
        }
    }
}

/// Runs a call that no user waits for if that is so of all whom it is for, and until it is not: each has
/// what is cancelled then, or `None`.
async fn as_urgent_as<T>(
    urgent: Option<Vec<CancellationToken>>,
    call: impl Future<Output = T>,
) -> T {
    let Some(each) = urgent else {
        return call.await;
    };
    let of_call = CancellationToken::new();
    let each = each.into_iter().map(CancellationToken::cancelled_owned);
    let mut urgent = pin!(select_all(each.map(Box::pin)));
    let mut call = pin!(urgency::in_background(of_call.clone(), call));
    tokio::select! {
        biased;
        answer = &mut call => return answer,
        _ = &mut urgent => of_call.cancel(),
    }
    call.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;

    #[tokio::test]
    async fn a_call_is_as_urgent_as_the_most_urgent_of_its_members() {
        let each = [CancellationToken::new(), CancellationToken::new()];
        let call = async {
            let urgent = urgency::background().unwrap();
            urgent.cancelled().await;
            urgency::background().is_none()
        };
        let mut call = pin!(as_urgent_as(Some(each.to_vec()), call));
        assert!(poll!(&mut call).is_pending());
        each[1].cancel();
        assert!(call.await);
        assert!(as_urgent_as(None, async { urgency::background().is_none() }).await);
    }
}
