//! How long a connection may do nothing of use: nothing is asked on it, or an answer on it is not
//! read.
//!
//! Neither HTTP/1.1 nor HTTP/2, as they are served here, tells these apart from a connection that
//! is merely slow, and while a client does not read, nobody asks the body of its answer for more.
//! So the requests of a connection report to it, and whoever serves it asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// A connection, as its requests see it.
#[derive(Debug)]
pub(crate) struct Connection {
    requests: Mutex<Requests>,
    stuck: Notify,
    over: Notify,
    inactivity: Duration,
}

#[derive(Debug)]
struct Requests {
    under_way: usize,
    /// When the last one ended.
    since: Instant,
}

impl Connection {
    /// One that ends when an answer stands still for longer than this.
    pub(crate) fn new(inactivity: Duration) -> Self {
        Self {
            requests: Mutex::new(Requests {
                under_way: 0,
                since: Instant::now(),
            }),
            stuck: Notify::new(),
            over: Notify::new(),
            inactivity,
        }
    }

    /// A request on it, until the value is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> UnderWay {
        self.update(|requests| requests.under_way += 1);
        UnderWay(Arc::clone(self))
    }

    /// Ends once there was no request for so long.
    pub(crate) async fn is_idle(&self, limit: Duration) {
        let mut since = Instant::now();
        loop {
            sleep_until(since + limit).await;
            let now = Instant::now();
            let (under_way, ended) = self.update(|requests| (requests.under_way, requests.since));
            if under_way == 0 && ended + limit <= now {
                return;
            }
            since = if under_way == 0 { ended } else { now };
        }
    }

    /// Ends once an answer stood still for too long.
    pub(crate) async fn is_stuck(&self) {
        self.stuck.notified().await;
    }

    /// It takes no more requests from now on.
    pub(crate) fn end(&self) {
        self.over.notify_one();
    }

    /// Ends once it takes no more requests.
    pub(crate) async fn is_over(&self) {
        self.over.notified().await;
    }

    fn update<T>(&self, with: impl FnOnce(&mut Requests) -> T) -> T {
        with(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Connection>);

impl UnderWay {
    /// Watches over an answer from now on.
    pub(crate) fn watch(&self) -> Watch {
        let connection = Arc::clone(&self.0);
        let moved = Arc::new(Notify::new());
        let progress = Arc::clone(&moved);
        let task = tokio::spawn(async move {
            while timeout(connection.inactivity, progress.notified())
                .await
                .is_ok()
            {}
            connection.stuck.notify_one();
        });
        Watch { moved, task }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.update(|requests| {
            requests.under_way -= 1;
            requests.since = Instant::now();
        });
    }
}

/// Over an answer, which is to move on time and again until this is dropped.
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
