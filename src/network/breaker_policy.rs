//! When a circuit breaker opens, and the states it is in.

use std::fmt;
use std::time::Duration;

/// Whether requests are sent to a tier across a network.
///
/// A tier tells it. Reads and writes have a breaker each:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "remote-cache")] {
/// use pipeline_cache::RemoteCache;
/// use pipeline_cache::network::BreakerState;
///
/// let remote = RemoteCache::new("http://cache.example.com:8420/artifacts")?;
/// assert_eq!(remote.breaker_state(), BreakerState::Closed);
/// assert_eq!(remote.write_breaker_state(), BreakerState::Closed);
///
/// // A status line that follows each change.
/// let (mut reads, mut writes) = (remote.watch_breaker(), remote.watch_write_breaker());
/// tokio::spawn(async move {
///     loop {
///         println!("reads {}, writes {}", *reads.borrow_and_update(), *writes.borrow_and_update());
///         let changed = tokio::select! {
///             changed = reads.changed() => changed,
///             changed = writes.changed() => changed,
///         };
///         if changed.is_err() {
///             break; // the tier is gone
///         }
///     }
/// });
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// Requests are sent.
    Closed,
    /// Too many calls failed, or the server asked for a pause, and no requests are sent. Each call
    /// fails at once, with [`BreakerOpen`](crate::StoreErrorKind::BreakerOpen).
    Open,
    /// As [`Open`](Self::Open) to callers, while one request finds out whether the tier works
    /// again.
    HalfOpen,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

/// When a circuit breaker of a tier across a network opens, and when the tier is probed.
///
/// Reads and writes have a breaker each, with the same policy. Neither looks at the other: a server
/// that fails writes is still read, and one that fails reads is still written to. Where a server
/// cannot be reached at all, each breaker learns so from its own calls.
///
/// The breaker of the reads is probed in the background. The breaker of the writes lets the first
/// write through that comes when a probe is due, and closes if that succeeds.
///
/// A call fails where the server cannot be reached, does not answer in time, says that it is
/// overloaded, out of service or full, or sends something that is not valid HTTP. Misses are
/// successes, and so are rejected credentials and every other status of 400 to 499 but 408, 425 and
/// 429: it is about the one entry. A call that sent no request counts as nothing.
///
/// ```
/// use pipeline_cache::network::BreakerPolicy;
/// use std::time::Duration;
///
/// let impatient = BreakerPolicy::default()
///     .min_calls(3)
///     .probe_interval(Duration::from_secs(1));
///
/// // For batch jobs: a server that answers one call in three still saves minutes of compiles.
/// let patient = BreakerPolicy::default()
///     .window(Duration::from_secs(300)) // slow calls need a long one
///     .failure_percent(80)
///     .abandoned_after(Duration::from_secs(10)) // callers are patient as well
///     .max_pause(Duration::from_secs(60));
/// # let _ = (impatient, patient);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct BreakerPolicy {
    pub(super) window: Duration,
    pub(super) min_calls: u64,
    pub(super) failure_percent: u8,
    pub(super) probe_interval: Duration,
    pub(super) abandoned_after: Duration,
    pub(super) max_pause: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            min_calls: 5,
            failure_percent: 50,
            probe_interval: Duration::from_secs(5),
            abandoned_after: Duration::from_secs(1),
            max_pause: Duration::from_secs(300),
        }
    }
}

impl BreakerPolicy {
    /// The time over which the rate of failures is taken. Slow calls need a long window.
    /// Default: 60 seconds.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Minimum calls in the window before the failure rate is evaluated, at least 1.
    /// `2 × min_calls` consecutive failures also open the breaker, whatever the rate: a server that
    /// has just died may have answered thousands of calls in the window. Default: 5.
    #[must_use]
    pub const fn min_calls(mut self, calls: u64) -> Self {
        self.min_calls = calls;
        self
    }

    /// The part of the calls within the window, in percent, whose failure opens the breaker; above
    /// 100 it never opens. Default: 50.
    #[must_use]
    pub const fn failure_percent(mut self, percent: u8) -> Self {
        self.failure_percent = percent;
        self
    }

    /// The time from the opening of the breaker to the first probe, and from one probe to the next.
    /// A probe of the reads reads the entry that was looked up last. Their breaker closes within
    /// this time after the server works again, or within the timeout of an attempt where a probe
    /// hangs, whichever is longer. The breaker of the writes closes at the first write after that.
    /// Default: 5 seconds.
    #[must_use]
    pub const fn probe_interval(mut self, interval: Duration) -> Self {
        self.probe_interval = interval;
        self
    }

    /// When a call that was dropped by its caller counts as failed, measured from its first request, or
    /// from the last part of its answer that came. Otherwise lookups with short deadlines would never
    /// open the breaker.
    ///
    /// A request whose caller leaves sooner runs on until the next part of its answer comes, which
    /// counts as a success, or it fails, or this time is over. How many such requests there are at a time is
    /// bounded by `max_abandoned_requests` of the tier's builder. A call that is dropped while it
    /// still waits for a request permit counts as nothing. Default: 1 second.
    #[must_use]
    pub const fn abandoned_after(mut self, time: Duration) -> Self {
        self.abandoned_after = time;
        self
    }

    /// How long nothing must fail before a success for a trouble to be over.
    pub(super) fn quiet(&self) -> Duration {
        self.probe_interval / 2
    }

    /// The longest pause of writes that a server gets by a `Retry-After` on a write. A pause is an
    /// open breaker: writes fail at once. It begins where a call does not wait so long itself, see
    /// [`RetryPolicy::max_retry_after`](super::RetryPolicy::max_retry_after). Reads are not paused.
    /// Default: 5 minutes.
    #[must_use]
    pub const fn max_pause(mut self, pause: Duration) -> Self {
        self.max_pause = pause;
        self
    }
}
