//! The leave to make what no tier has.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The leave to make the artifact of a key, as
/// [`PipelineCacheStore::lead`](crate::PipelineCacheStore::lead) gives it. It ends when the last
/// clone is dropped.
///
/// ```
/// use pipeline_cache::Lead;
/// use std::sync::Arc;
///
/// let leads = Arc::new(tokio::sync::Mutex::new(()));
/// let lead = Lead::new(leads.clone().try_lock_owned().unwrap());
/// assert!(leads.try_lock().is_err());
/// drop(lead);
/// assert!(leads.try_lock().is_ok());
/// ```
#[derive(Clone)]
#[must_use = "the leave ends when it is dropped"]
pub struct Lead {
    _hold: Arc<dyn Any + Send + Sync>,
}

impl Lead {
    /// A leave that lasts as long as `hold` is not dropped.
    pub fn new(hold: impl Any + Send + Sync) -> Self {
        Self {
            _hold: Arc::new(hold),
        }
    }
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lead")
    }
}
