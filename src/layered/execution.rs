//! One run of a compile: its place in the pool, whom it works for, and how long its parts take.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::admission::PriorityBoost;
use super::interest::Interest;
use super::permits::{Permit, Permits, Urgency};
use super::running::RunningKey;
use super::waits::Node;
use crate::key::CompileScope;
use crate::sync::lock::lock;

tokio::task_local! {
    /// The run that a request is made from, if it is made from one.
    pub(super) static CURRENT: Arc<Run>;
}

/// What a run of a compile knows of itself.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) node: Node,
    pub(super) scope: CompileScope,
    pub(super) interest: Arc<Interest>,
    pub(super) place: Arc<Place>,
    times: Mutex<RunTimes>,
}

/// How long the parts of a run took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RunTimes {
    pub(super) parse: Duration,
    pub(super) key: Duration,
    pub(super) compile: Duration,
}

impl Run {
    pub(super) fn new(
        node: Node,
        scope: CompileScope,
        interest: Arc<Interest>,
        place: Arc<Place>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            scope,
            interest,
            place,
            times: Mutex::default(),
        })
    }

    pub(super) fn times(&self) -> RunTimes {
        *lock(&self.times)
    }

    pub(super) fn set_times(&self, set: impl FnOnce(&mut RunTimes)) {
        set(&mut lock(&self.times));
    }
}

/// Held by whatever executes the run. Its drop is the end of the run: the place in the pool and the
/// key are free.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) run: Arc<Run>,
    /// `None` for a compile without a key.
    pub(super) running: Option<RunningKey>,
}

impl Drop for Execution {
    fn drop(&mut self) {
        // Before the permit: whoever gets that may look for the key.
        self.running = None;
        self.run.place.end();
    }
}

/// The place of a run in the pool, which it gives back while it waits for another compile.
#[derive(Debug)]
pub(super) struct Place {
    permits: Arc<Permits>,
    state: Mutex<PlaceState>,
}

#[derive(Debug)]
struct PlaceState {
    permit: Option<Permit>,
    /// Nested requests that wait.
    lent: usize,
    ended: bool,
}

impl Place {
    pub(super) fn new(permits: Arc<Permits>, permit: Permit) -> Arc<Self> {
        Arc::new(Self {
            permits,
            state: Mutex::new(PlaceState {
                permit: Some(permit),
                lent: 0,
                ended: false,
            }),
        })
    }

    /// Gives the place back until the wait is over.
    pub(super) fn lend(self: &Arc<Self>) -> Lent {
        let permit = {
            let mut state = lock(&self.state);
            state.lent += 1;
            state.permit.take()
        };
        drop(permit);
        Lent(Some(Arc::clone(self)))
    }

    /// Gives the place back for good.
    pub(super) fn end(&self) {
        let permit = {
            let mut state = lock(&self.state);
            state.ended = true;
            state.permit.take()
        };
        drop(permit);
    }

    /// Whether the end of one wait means that the run goes on, and needs its place.
    fn is_needed_by_one(&self) -> bool {
        let state = lock(&self.state);
        state.lent == 1 && !state.ended
    }

    fn end_wait(&self, permit: Option<Permit>) {
        let unused = {
            let mut state = lock(&self.state);
            state.lent -= 1;
            if state.lent == 0 && !state.ended && state.permit.is_none() {
                // A wait that was dropped does not queue: its run goes on already.
                state.permit = Some(permit.unwrap_or_else(|| self.permits.force()));
                None
            } else {
                permit
            }
        };
        drop(unused);
    }
}

/// A place that is given back for as long as this lives.
#[derive(Debug)]
pub(super) struct Lent(Option<Arc<Place>>);

impl Lent {
    /// Waits for a place again, before all compiles that have not begun.
    pub(super) async fn take_back(mut self) {
        let Some(place) = self.0.clone() else { return };
        let permit = match place.is_needed_by_one() {
            false => None,
            true => {
                let permits = &place.permits;
                let boost = PriorityBoost::default();
                let permit = permits.acquire(Urgency::Resumed, &boost);
                // That queue has no bound.
                permit.await.ok()
            }
        };
        self.0 = None;
        place.end_wait(permit);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(place) = self.0.take() {
            place.end_wait(None);
        }
    }
}
