//! The last requests, and the last of them that failed, for the status page.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many of each are kept.
pub(crate) const KEPT: usize = 50;

/// As much of a path is kept: more than that of an artifact.
const PATH: usize = 120;

/// What the access log says of a request, but for the address of its client.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    pub(crate) ended: Instant,
    pub(crate) client: String,
    pub(crate) method: String,
    pub(crate) path: String,
    /// 0 where the client left before there was an answer.
    pub(crate) status: u16,
    /// Whether the client left before it had all of the answer.
    pub(crate) left: bool,
    pub(crate) sent: u64,
    pub(crate) elapsed: Duration,
}

#[derive(Debug)]
pub(crate) struct Recent {
    /// When the server was started.
    pub(crate) began: Instant,
    kept: Mutex<Kept>,
}

/// The newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) all: VecDeque<Past>,
    pub(crate) failed: VecDeque<Past>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            kept: Mutex::default(),
        }
    }
}

impl Recent {
    pub(crate) fn add(&self, mut past: Past) {
        if let Some((end, _)) = past.path.char_indices().nth(PATH) {
            past.path.truncate(end);
            past.path.push('…');
        }
        let mut kept = self.lock();
        if past.failed() {
            push(&mut kept.failed, past.clone());
        }
        push(&mut kept.all, past);
    }

    pub(crate) fn kept(&self) -> Kept {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    /// A miss is no failure.
    pub(crate) const fn failed(&self) -> bool {
        self.left || (self.status >= 400 && self.status != 404)
    }
}

fn push(list: &mut VecDeque<Past>, past: Past) {
    list.truncate(KEPT - 1);
    list.push_front(past);
}
