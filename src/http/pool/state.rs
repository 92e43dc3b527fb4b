//! Who has the connections to a server, and who waits for one: what changes when one comes or goes.
//!
//! Nothing here opens, closes or waits: that is done once the lock on it is free again.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::http::connection::Connection;
use crate::network::RequestError;

/// Below the 60 to 75 seconds after which most servers close an idle connection, so that no
/// request runs into one that is just closing.
pub(super) const IDLE: Duration = Duration::from_secs(50);

pub(super) type WaitResult = oneshot::Receiver<Result<Connection, RequestError>>;

#[derive(Debug, Default)]
pub(super) struct State {
    /// What nobody uses, and since when, the last one last.
    idle: Vec<(Connection, Instant)>,
    /// What all may use at once, and when it was last asked for.
    shared: Option<(Connection, Instant)>,
    /// In the order in which they came.
    pub(super) waiting: VecDeque<Waiter>,
    /// How many have waited.
    waited: u64,
    /// Connections that are being opened.
    opening: usize,
    /// All that there are, with those.
    pub(super) places: usize,
    /// Whether one is enough for all, as far as is known.
    shares: bool,
    /// Whether a task sees to what is idle for long.
    pub(super) is_swept: bool,
    /// What is to be closed, which is not done under the lock: it may come back here.
    pub(super) gone: Vec<Connection>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    /// Which of all it is.
    number: u64,
    /// Whether one is being opened for it.
    has_opening: bool,
    result: oneshot::Sender<Result<Connection, RequestError>>,
}

impl State {
    pub(super) fn new(shares: bool) -> Self {
        Self {
            shares,
            ..Self::default()
        }
    }

    /// A connection that takes a request now, or the wait for one.
    pub(super) fn take(&mut self) -> Result<Connection, WaitResult> {
        self.forget_old();
        if let Some((connection, used)) = &mut self.shared {
            *used = Instant::now();
            connection.is_used = true;
            if let Some(connection) = connection.share() {
                return Ok(connection);
            }
        }
        while let Some((mut connection, _)) = self.idle.pop() {
            connection.is_used = true;
            if connection.is_ready() {
                return Ok(connection);
            }
            self.gone.push(connection);
        }
        let (sender, result) = oneshot::channel();
        self.waited += 1;
        self.waiting.push_back(Waiter {
            number: self.waited,
            has_opening: false,
            result: sender,
        });
        Err(result)
    }

    /// Counts what is to be opened, no more than `most` in all, and says for whom.
    pub(super) fn begin(&mut self, most: usize) -> Vec<u64> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.waiting.retain(|waiter| !waiter.result.is_closed());
        let wanted = match self.shares {
            true => self.waiting.len().min(1),
            false => self.waiting.len(),
        };
        let openings = wanted.saturating_sub(self.opening).min(most - self.places);
        let without = self.waiting.iter_mut().filter(|waiter| !waiter.has_opening);
        let begun = without.take(openings).map(|waiter| {
            waiter.has_opening = true;
            waiter.number
        });
        let begun: Vec<_> = begun.collect();
        self.opening += begun.len();
        self.places += begun.len();
        begun
    }

    /// The opening for a waiter has ended.
    pub(super) fn end(
        &mut self,
        number: u64,
        outcome: Result<Connection, RequestError>,
        keeps: bool,
    ) {
        self.opening -= 1;
        let mut waiting = self.waiting.iter_mut();
        if let Some(waiter) = waiting.find(|waiter| waiter.number == number) {
            // What came of it may go to another, who came before.
            waiter.has_opening = false;
        }
        match outcome {
            Ok(connection) => {
                self.shares = connection.is_shared();
                self.put(connection, keeps);
            }
            // The others have openings of their own, or get them now.
            Err(failure) => {
                self.shares = false;
                let mut waiting = self.waiting.iter();
                let place = waiting.position(|waiter| waiter.number == number);
                if let Some(waiter) = place.and_then(|place| self.waiting.remove(place)) {
                    // Who has gone need not know.
                    let _ = waiter.result.send(Err(failure));
                }
            }
        }
    }

    /// Gives a connection to whoever waits for one, or keeps it.
    pub(super) fn put(&mut self, connection: Connection, keeps: bool) {
        if connection.is_shared() {
            return self.share(connection, keeps);
        }
        let mut left = Ok(connection);
        while let Some(waiter) = self.waiting.pop_front() {
            match waiter.result.send(left) {
                Ok(()) => return,
                Err(returned) => left = returned,
            }
        }
        match left {
            Ok(connection) if keeps => self.idle.push((connection, Instant::now())),
            Ok(connection) => self.gone.push(connection),
            Err(_) => {}
        }
    }

    /// Gives a connection to all who wait, and keeps it for others, unless there is one already.
    fn share(&mut self, connection: Connection, keeps: bool) {
        for waiter in self.waiting.drain(..) {
            if let Some(connection) = connection.share() {
                // Who has gone needs none.
                let _ = waiter.result.send(Ok(connection));
            }
        }
        self.forget_old();
        match self.shared {
            None if keeps => self.shared = Some((connection, Instant::now())),
            _ => self.gone.push(connection),
        }
    }

    /// Lets go of what was idle for too long, and of what all share once it is closed.
    pub(super) fn forget_old(&mut self) {
        let is_old = |since: Instant| since.elapsed() >= IDLE;
        let is_over = |(connection, used): &mut (Connection, Instant)| {
            is_old(*used) || !connection.is_ready()
        };
        let shared = self.shared.take_if(is_over);
        let old = self.idle.iter().take_while(|(_, since)| is_old(*since));
        let old = old.count();
        let idle = self.idle.drain(..old);
        self.gone.extend(
            shared
                .into_iter()
                .chain(idle)
                .map(|(connection, _)| connection),
        );
    }

    pub(super) fn is_unused(&self) -> bool {
        self.idle.is_empty() && self.shared.is_none()
    }

    /// Whether a task is to see to what is idle, which none does yet.
    pub(super) fn needs_a_sweep(&mut self) -> bool {
        !self.is_unused() && !mem::replace(&mut self.is_swept, true)
    }
}
