//! The open connections, of which there is a bound. Where it is reached, the one that has been idle
//! for the longest time makes room for the next: silent connections lock nobody out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::connection::{Connection, Timeouts};
use super::counters::{Counted, Counter, Gauge};

#[derive(Debug)]
pub(crate) struct Connections {
    permits: Arc<Semaphore>,
    timeouts: Timeouts,
    became_idle: Arc<Notify>,
    open: Mutex<Open>,
    metrics: Arc<ConnectionMetrics>,
}

#[derive(Debug, Default)]
pub(crate) struct ConnectionMetrics {
    pub(crate) open: Gauge,
    /// Idle connections closed to make room for others.
    pub(crate) displaced: Counter,
    /// Connections that ended in the handshake of TLS.
    pub(crate) failed_handshakes: Counter,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    connections: HashMap<u64, Arc<Connection>>,
}

impl Connections {
    pub(crate) fn new(most: usize, timeouts: Timeouts, metrics: Arc<ConnectionMetrics>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(most)),
            timeouts,
            became_idle: Arc::new(Notify::new()),
            open: Mutex::default(),
            metrics,
        }
    }

    /// Counts one more. At the bound this closes an idle one; where all are busy, it waits.
    pub(crate) async fn open(self: &Arc<Self>) -> OpenConnection {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                break permit;
            }
            self.close_longest_idle();
            tokio::select! {
                // The semaphore is never closed.
                Ok(permit) = Arc::clone(&self.permits).acquire_owned() => break permit,
                () = self.became_idle.notified() => {}
            }
        };
        let state = Connection::new(self.timeouts, Arc::clone(&self.became_idle));
        let state = Arc::new(state);
        let mut open = self.lock();
        let id = open.next_id;
        open.next_id += 1;
        open.connections.insert(id, Arc::clone(&state));
        OpenConnection {
            id,
            state,
            all: Arc::clone(self),
            _permit: permit,
            _counted: self.metrics.open.enter(),
        }
    }

    /// Closes the connection that has been idle for the longest time, if any is idle.
    pub(crate) fn close_longest_idle(&self) {
        let open = self.lock();
        let idle = open
            .connections
            .values()
            .filter_map(|connection| Some((connection.idle_since()?, connection)));
        let longest = idle.min_by_key(|(since, _)| *since);
        // A request may begin in between. Then the caller asks again when a connection is idle.
        if longest.is_some_and(|(_, connection)| connection.abort_if_idle()) {
            self.metrics.displaced.increment();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the open connections, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    id: u64,
    pub(crate) state: Arc<Connection>,
    all: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

impl OpenConnection {
    /// Counts it among those that ended in the handshake of TLS.
    pub(crate) fn handshake_failed(&self) {
        self.all.metrics.failed_handshakes.increment();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.all.lock().connections.remove(&self.id);
    }
}
