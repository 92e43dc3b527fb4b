//! Which connections are kept, and when none is.
//!
//! A kept connection fails in two ways that a new one does not. The server may close it while the
//! next request is on its way: that request is made again over a new connection. Or it may deliver
//! the response to another request: then no connection is kept for a second, and all that were are
//! closed.

use reqwest::Client;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use super::client_settings::ClientSettings;
use crate::store::metrics::Counter;
use crate::sync::blocking;

/// For how long no connection is kept after one delivered the response to another request.
const SUSPENDED: Duration = Duration::from_secs(1);

pub(super) struct Connections {
    settings: ClientSettings,
    /// Closes each connection after its request.
    pub(super) unpooled: Client,
    kept: Mutex<Kept>,
    /// Times that all kept connections were given up.
    pub(super) replaced: Counter,
    /// Requests made again because a kept connection was closed under them.
    pub(super) repeated: Counter,
    /// How many more requests may be made again for that reason: one for each that was answered,
    /// up to the number of connections that are kept. A server that answers nothing is not asked
    /// twice as often.
    repeatable: AtomicUsize,
}

struct Kept {
    client: Client,
    /// While this is set, `client` keeps no connections.
    suspended: Option<Instant>,
}

impl Connections {
    pub(super) fn new(settings: ClientSettings) -> Result<Arc<Self>, reqwest::Error> {
        Ok(Arc::new(Self {
            unpooled: settings.unpooled()?,
            kept: Mutex::new(Kept {
                client: settings.pooled()?,
                suspended: None,
            }),
            settings,
            replaced: Counter::default(),
            repeated: Counter::default(),
            repeatable: AtomicUsize::new(0),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client that keeps connections, and whether it does so now.
    pub(super) fn pooled(self: &Arc<Self>) -> (Client, bool) {
        let mut kept = self.lock();
        if kept.suspended.is_some_and(|at| at.elapsed() >= SUSPENDED) {
            // If the runtime ends before the new client is built, the next one tries again.
            kept.suspended = Some(Instant::now());
            let connections = Arc::clone(self);
            blocking::detach(move || connections.resume());
        }
        (kept.client.clone(), kept.suspended.is_none())
    }

    /// Reads the platform's root certificates, which takes some tens of milliseconds.
    fn resume(&self) {
        match self.settings.pooled() {
            Ok(client) => {
                *self.lock() = Kept {
                    client,
                    suspended: None,
                }
            }
            Err(error) => {
                let reason = error.without_url();
                tracing::debug!(%reason, "HTTP client not built: connections are not kept");
            }
        }
    }

    /// Gives up all kept connections: one of them delivered the response to another request.
    /// Returns whether that was not done already.
    pub(super) fn replace(&self) -> bool {
        let mut kept = self.lock();
        let is_first = kept.suspended.is_none();
        if is_first {
            *kept = Kept {
                client: self.unpooled.clone(),
                suspended: Some(Instant::now()),
            };
            self.replaced.increment();
        }
        is_first
    }

    /// A request was answered.
    pub(super) fn answered(&self) {
        let most = self.settings.max_idle;
        let more = |requests| (requests < most).then_some(requests + 1);
        let _ = self
            .repeatable
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether a request whose connection was lost may be made again at once.
    pub(super) fn may_repeat(&self) -> bool {
        let fewer = |requests: usize| requests.checked_sub(1);
        let taken = self
            .repeatable
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        if taken.is_ok() {
            self.repeated.increment();
        }
        taken.is_ok()
    }
}
