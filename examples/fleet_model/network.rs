//! What a request waits for: links that carry so many bytes a second, and servers that work on so
//! many requests at once. Both serve in the order of arrival.
//!
//! A wait is computed, not queued for: whoever comes is told when its turn is over.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One direction of a cable.
#[derive(Debug)]
pub(crate) struct Link {
    bytes_per_second: f64,
    free_at: Mutex<Duration>,
}

impl Link {
    pub(crate) fn new(gigabits: f64) -> Self {
        Self {
            bytes_per_second: gigabits * 1e9 / 8.0,
            free_at: Mutex::default(),
        }
    }

    /// When the last of these bytes has left, if they come now.
    pub(crate) fn send(&self, now: Duration, bytes: u64) -> Duration {
        let mut free_at = lock(&self.free_at);
        let time = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        *free_at = (*free_at).max(now) + time;
        *free_at
    }
}

/// The way from a client to a server and back.
#[derive(Debug)]
pub(crate) struct Wire {
    /// One way.
    pub(crate) latency: Duration,
    pub(crate) up: Link,
    pub(crate) down: Link,
}

impl Wire {
    pub(crate) fn new(latency: Duration, gigabits: f64) -> Self {
        Self {
            latency,
            up: Link::new(gigabits),
            down: Link::new(gigabits),
        }
    }
}

/// The workers of a server, or the commands that a disk executes at once.
#[derive(Debug)]
pub(crate) struct Workers {
    free_at: Mutex<BinaryHeap<Reverse<Duration>>>,
    max_wait: Duration,
}

impl Workers {
    pub(crate) fn new(count: usize, max_wait: Duration) -> Self {
        Self {
            free_at: Mutex::new((0..count).map(|_| Reverse(Duration::ZERO)).collect()),
            max_wait,
        }
    }

    /// When this work is done, if it comes now. `None` if it would wait too long.
    pub(crate) fn serve(&self, now: Duration, work: Duration) -> Option<Duration> {
        let mut free_at = lock(&self.free_at);
        let mut first = free_at.peek_mut()?;
        let begins = first.0.max(now);
        if begins - now > self.max_wait {
            return None;
        }
        first.0 = begins + work;
        Some(first.0)
    }
}

/// A panic elsewhere ends the model anyway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
