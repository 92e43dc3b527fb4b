//! How long a connection may do nothing of use: no request is under way on it, or a response on it
//! is not read.
//!
//! Neither HTTP/1.1 nor HTTP/2, as they are served here, tells these apart from a connection that
//! is merely slow, and while a client does not read, nothing polls the body of its response. So the
//! requests of a connection report to it, and the task that serves the connection asks it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a connection stays open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// Until the handshake of TLS is over, and then until the head of its first request is complete.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// While a response does not move on.
    pub(crate) inactivity: Duration,
}

/// A connection, as its requests see it.
#[derive(Debug)]
pub(crate) struct Connection {
    requests: Mutex<Requests>,
    timeouts: Timeouts,
    /// The connection is closed at once.
    aborted: Notify,
    /// It takes no more requests.
    ended: Notify,
    /// Some connection of the server has become idle.
    became_idle: Arc<Notify>,
}

#[derive(Debug)]
struct Requests {
    under_way: usize,
    /// Whether there has been any.
    any: bool,
    /// When the last one ended, or the connection began.
    since: Instant,
    /// Nothing may begin on it any more.
    aborted: bool,
}

impl Connection {
    pub(crate) fn new(timeouts: Timeouts, became_idle: Arc<Notify>) -> Self {
        Self {
            requests: Mutex::new(Requests {
                under_way: 0,
                any: false,
                since: Instant::now(),
                aborted: false,
            }),
            timeouts,
            aborted: Notify::new(),
            ended: Notify::new(),
            became_idle,
        }
    }

    /// The time for its first head begins now, since the handshake of TLS is over.
    pub(crate) fn is_secured(&self) {
        self.update(|requests| requests.since = Instant::now());
    }

    /// A request on it, until the value is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> UnderWay {
        self.update(|requests| {
            requests.under_way += 1;
            requests.any = true;
        });
        UnderWay(Arc::clone(self))
    }

    /// Since when no request is under way; `None` while one is, and once it is aborted.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.update(|requests| {
            let idle = requests.under_way == 0 && !requests.aborted;
            idle.then_some(requests.since)
        })
    }

    /// Closes it at once if no request is under way; whether it does.
    pub(crate) fn abort_if_idle(&self) -> bool {
        let aborts = self.update(|requests| {
            let aborts = requests.under_way == 0 && !requests.aborted;
            requests.aborted |= aborts;
            aborts
        });
        if aborts {
            self.aborted.notify_one();
        }
        aborts
    }

    /// Ends once there was no request for too long.
    pub(crate) async fn is_idle(&self) {
        let Timeouts { head, idle, .. } = self.timeouts;
        self.is_idle_for(|any| if any { idle } else { head.min(idle) })
            .await;
    }

    /// Ends once there was no request for so long, which may depend on whether there was any.
    pub(crate) async fn is_idle_for(&self, limit: impl Fn(bool) -> Duration) {
        loop {
            let now = Instant::now();
            let (since, any) = self.update(|requests| {
                let idle = requests.under_way == 0;
                (if idle { requests.since } else { now }, requests.any)
            });
            let deadline = since + limit(any);
            if deadline <= now {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    /// Ends once it is to be closed at once: a response stood still for too long, or another
    /// connection needs the room.
    pub(crate) async fn is_aborted(&self) {
        self.aborted.notified().await;
    }

    /// It takes no more requests from now on.
    pub(crate) fn end(&self) {
        self.ended.notify_one();
    }

    /// Ends once it takes no more requests.
    pub(crate) async fn is_ended(&self) {
        self.ended.notified().await;
    }

    fn update<T>(&self, with: impl FnOnce(&mut Requests) -> T) -> T {
        with(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Connection>);

impl UnderWay {
    /// Watches a response from now on.
    pub(crate) fn watch(&self) -> Watch {
        let connection = Arc::clone(&self.0);
        let moved = Arc::new(Notify::new());
        let progress = Arc::clone(&moved);
        let task = tokio::spawn(async move {
            let inactivity = connection.timeouts.inactivity;
            while timeout(inactivity, progress.notified()).await.is_ok() {}
            connection.aborted.notify_one();
        });
        Watch { moved, task }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let idle = self.0.update(|requests| {
            requests.under_way -= 1;
            requests.since = Instant::now();
            requests.under_way == 0
        });
        if idle {
            self.0.became_idle.notify_one();
        }
    }
}

/// Closes the connection unless the response moves on time and again until this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    moved: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn moved(&self) {
        self.moved.notify_one();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
