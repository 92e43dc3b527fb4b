//! How many requests are served at once.
//!
//! Requests for many keys have half of the permits at most: where an object store is slow they take
//! long, and what the folder has is not to wait for them.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http_error::HttpError;

pub(crate) struct Permits {
    requests: Arc<Semaphore>,
    batches: Arc<Semaphore>,
    /// How long a request waits for a permit.
    wait: Duration,
}

/// A request may be served as long as this is held.
#[derive(Debug)]
pub(crate) struct Permit {
    _batch: Option<OwnedSemaphorePermit>,
    _request: OwnedSemaphorePermit,
}

impl Permits {
    pub(crate) fn new(requests: usize, wait: Duration) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            batches: Arc::new(Semaphore::new(requests.div_ceil(2))),
            wait,
        }
    }

    pub(crate) async fn acquire(&self, is_batch: bool) -> Result<Permit, HttpError> {
        let acquire = async {
            let batch = match is_batch {
                true => Some(Arc::clone(&self.batches).acquire_owned().await.ok()?),
                false => None,
            };
            let request = Arc::clone(&self.requests).acquire_owned().await.ok()?;
            Some(Permit {
                _batch: batch,
                _request: request,
            })
        };
        let acquired = timeout(self.wait, acquire).await;
        acquired.ok().flatten().ok_or(HttpError::Busy)
    }
}
