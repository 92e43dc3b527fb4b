//! Permits to compile, given out in the order of urgency.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

use super::admission::{LookupPriority, PriorityBoost};
use super::shim::{Mutex, MutexGuard};

/// A bounded number of permits, and the bounded queue of those who wait for one.
#[derive(Debug)]
pub(super) struct Permits {
    state: Mutex<State>,
    limit: usize,
    /// For each urgency.
    max_waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    /// More than the limit after [`Permits::force`].
    taken: usize,
    waiting: BTreeMap<Ticket, oneshot::Sender<Permit>>,
    next_number: u64,
}

/// A place in the queue. The least is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    urgency: Urgency,
    number: u64,
}

/// Who is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Work that has begun, and waited for other work meanwhile.
    Resumed,
    Interactive,
    Background,
}

impl From<LookupPriority> for Urgency {
    fn from(priority: LookupPriority) -> Self {
        match priority {
            LookupPriority::Interactive => Self::Interactive,
            LookupPriority::Background => Self::Background,
        }
    }
}

/// The queue was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueFull;

/// One permit. Its drop hands it to the first who waits.
#[derive(Debug)]
pub(super) struct Permit {
    /// `None` once it has been given back.
    permits: Option<Arc<Permits>>,
}

impl Permits {
    pub(super) fn new(limit: usize, max_waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            limit: limit.max(1),
            max_waiting,
        })
    }

    /// How many permits are taken, and how many callers wait for one.
    pub(super) fn taken_and_waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.taken, state.waiting.len())
    }

    /// Waits for a permit. A caller of background urgency moves up when it is boosted.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        urgency: Urgency,
        boost: &PriorityBoost,
    ) -> Result<Permit, QueueFull> {
        let mut waiting = match self.take_or_wait(urgency)? {
            Ok(permit) => return Ok(permit),
            Err(waiting) => waiting,
        };
        if urgency == Urgency::Background {
            tokio::select! {
                biased;
                permit = &mut waiting => return Ok(permit),
                () = boost.boosted() => waiting.move_up(),
            }
        }
        Ok(waiting.await)
    }

    /// Takes a permit beyond the limit, if there is none left: for work that is under way and
    /// cannot wait.
    pub(super) fn force(self: &Arc<Self>) -> Permit {
        self.lock().taken += 1;
        self.permit()
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            permits: Some(Arc::clone(self)),
        }
    }

    fn take_or_wait(
        self: &Arc<Self>,
        urgency: Urgency,
    ) -> Result<Result<Permit, Waiting>, QueueFull> {
        let mut state = self.lock();
        if state.taken < self.limit {
            state.taken += 1;
            return Ok(Ok(self.permit()));
        }
        let of_urgency = |ticket: &&Ticket| ticket.urgency == urgency;
        // Without a bound there is nothing to count.
        let is_bounded = urgency != Urgency::Resumed && self.max_waiting < usize::MAX;
        if is_bounded && state.waiting.keys().filter(of_urgency).count() >= self.max_waiting {
            return Err(QueueFull);
        }
        let (sender, permit) = oneshot::channel();
        let ticket = Ticket {
            urgency,
            number: state.next_number,
        };
        state.next_number += 1;
        state.waiting.insert(ticket, sender);
        Ok(Err(Waiting {
            permits: Arc::clone(self),
            ticket,
            permit,
        }))
    }

    /// Takes a permit back and hands out what is free.
    fn release(self: &Arc<Self>) {
        self.lock().taken -= 1;
        while let Some(first) = self.next_to_serve() {
            if let Err(mut permit) = first.send(self.permit()) {
                // Its caller has gone. Not by its drop, which would come back here.
                permit.permits = None;
                self.lock().taken -= 1;
            }
        }
    }

    /// The first in the queue, with a permit taken for it.
    fn next_to_serve(&self) -> Option<oneshot::Sender<Permit>> {
        let mut state = self.lock();
        if state.taken >= self.limit {
            return None;
        }
        let (_, first) = state.waiting.pop_first()?;
        state.taken += 1;
        Some(first)
    }

    /// No code panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = self.permits.take() {
            permits.release();
        }
    }
}

/// A caller in the queue. Its drop takes it out.
struct Waiting {
    permits: Arc<Permits>,
    ticket: Ticket,
    permit: oneshot::Receiver<Permit>,
}

impl Waiting {
    /// Goes behind the interactive callers that wait now.
    fn move_up(&mut self) {
        let mut state = self.permits.lock();
        // It is not there if its permit is on the way.
        if let Some(sender) = state.waiting.remove(&self.ticket) {
            self.ticket = Ticket {
                urgency: Urgency::Interactive,
                number: state.next_number,
            };
            state.next_number += 1;
            state.waiting.insert(self.ticket, sender);
        }
    }
}

impl Future for Waiting {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        match Pin::new(&mut self.permit).poll(context) {
            Poll::Ready(Ok(permit)) => Poll::Ready(permit),
            // The sender is dropped by this caller alone.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let sender = self.permits.lock().waiting.remove(&self.ticket);
        drop(sender);
    }
}
