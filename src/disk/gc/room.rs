//! Room: puts wait where they outrun the evictions, the longer the further the folder is over its
//! bounds.
//!
//! A put reserves what it is about to store, so that those under way count as well. It is let through
//! while the stored and the reserved are within the bounds.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

use super::bounds::Bounds;
use super::usage::Usage;
use crate::disk::shared::Shared;

/// How long a put waits for each thousandth by which the bounds are exceeded: at least this, and at
/// most [`MAX_PATIENCE`].
const PATIENCE: Duration = Duration::from_millis(100);
const MAX_PATIENCE: Duration = Duration::from_secs(10);

/// What a put has reserved. Given back when the put is over; by then its entry is counted itself.
#[derive(Debug)]
pub(in crate::disk) struct Room(Option<(Arc<Usage>, u64)>);

impl Drop for Room {
    fn drop(&mut self) {
        if let Some((usage, bytes)) = &self.0 {
            usage.release(*bytes);
        }
    }
}

/// Lets puts through as there is room.
#[derive(Debug)]
pub(in crate::disk) struct Throttle {
    shared: Arc<Shared>,
    usage: Arc<Usage>,
    bounds: Bounds,
    /// How many puts wait.
    waiting: AtomicUsize,
    /// Held by the put that is let through next. Those behind it wait for this, in their order.
    turn: tokio::sync::Mutex<()>,
}

/// Counts a put that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn start(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Throttle {
    pub(in crate::disk) fn new(shared: &Arc<Shared>, usage: &Arc<Usage>, bounds: Bounds) -> Self {
        Self {
            shared: Arc::clone(shared),
            usage: Arc::clone(usage),
            bounds,
            waiting: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until there is room for an entry of so many bytes, or patience ends: a put is slowed down
    /// and never refused. Those that wait are let through in the order in which they came. `evict`
    /// sees to it that entries are evicted if that is due.
    pub(in crate::disk) async fn room(&self, bytes: u64, evict: impl Fn()) -> Room {
        if !self.bounds.is_any() {
            return Room(None);
        }
        let nobody_waits = self.waiting.load(Ordering::SeqCst) == 0;
        let admit = |total: &_| nobody_waits && self.bounds.admit(total);
        if !self.usage.reserve(bytes, admit) {
            self.wait(bytes, evict).await;
        }
        Room(Some((Arc::clone(&self.usage), bytes)))
    }

    async fn wait(&self, bytes: u64, evict: impl Fn()) {
        let start = Instant::now();
        let _waiting = Waiting::start(&self.waiting);
        let reserved = tokio::select! {
            biased;
            () = self.reserve_in_turn(bytes, evict) => true,
            () = self.end_of_patience(start) => false,
        };
        if !reserved {
            self.usage.reserve(bytes, |_| true);
        }
        let counters = &self.shared.counters;
        counters.throttled_puts.increment();
        let micros = u64::try_from(start.elapsed().as_micros());
        counters.throttled_micros.add(micros.unwrap_or(u64::MAX));
    }

    async fn reserve_in_turn(&self, bytes: u64, evict: impl Fn()) {
        let _turn = self.turn.lock().await;
        loop {
            let mut changed = pin!(self.usage.changed.notified());
            // Registered before the look, so that no change falls between the two.
            changed.as_mut().enable();
            if self.usage.reserve(bytes, |total| self.bounds.admit(total)) {
                return;
            }
            evict();
            // An eviction that is paused starts again only when it is asked for.
            match self.usage.paused_until() {
                Some(until) => drop(timeout_at(until, changed).await),
                None => changed.await,
            }
        }
    }

    /// Patience changes with what is stored meanwhile.
    async fn end_of_patience(&self, start: Instant) {
        loop {
            let left = self.patience().saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            sleep(left.min(PATIENCE)).await;
        }
    }

    /// How long a put waits, by how things stand now.
    fn patience(&self) -> Duration {
        if self.shared.is_closed() {
            return Duration::ZERO;
        }
        // After a failure nothing makes room for a while.
        if self.usage.is_paused() {
            return PATIENCE;
        }
        let excess = self.bounds.excess(&self.usage.held());
        let excess = u32::try_from(excess).unwrap_or(u32::MAX);
        PATIENCE
            .saturating_mul(excess)
            .clamp(PATIENCE, MAX_PATIENCE)
    }
}
