//! The circuit breaker of a client, with the defaults of the library's
//! `pipeline_cache::network::BreakerPolicy`.

use std::sync::Mutex;
use std::time::Duration;

use crate::network::lock;

const WINDOW: Duration = Duration::from_secs(60);
const MIN_CALLS: u32 = 5;
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// While it is open: when the next probe is due.
    probe_at: Option<Duration>,
    /// The calls of this window, and of the one before.
    calls: [Calls; 2],
    window_began: Duration,
    failures_in_a_row: u32,
}

#[derive(Debug, Default, Clone, Copy)]
struct Calls {
    all: u32,
    failed: u32,
}

impl Breaker {
    pub(crate) fn is_open(&self) -> bool {
        lock(&self.0).probe_at.is_some()
    }

    /// Whether a call is sent. While the breaker is open, one at a time is sent as a probe.
    pub(crate) fn admits(&self, now: Duration) -> bool {
        match &mut lock(&self.0).probe_at {
            None => true,
            Some(due) if *due <= now => {
                *due = now + PROBE_INTERVAL;
                true
            }
            Some(_) => false,
        }
    }

    /// Learns from a call. Whether the breaker opens by it.
    pub(crate) fn learn(&self, now: Duration, has_failed: bool) -> bool {
        let mut state = lock(&self.0);
        if state.probe_at.is_some() {
            match has_failed {
                true => state.probe_at = Some(now + PROBE_INTERVAL),
                false => {
                    *state = State {
                        window_began: now,
                        ..State::default()
                    }
                }
            }
            return false;
        }
        let opens = state.count(now, has_failed);
        if opens {
            state.probe_at = Some(now + PROBE_INTERVAL);
        }
        opens
    }
}

impl State {
    /// Counts a call. Whether too many have failed.
    fn count(&mut self, now: Duration, has_failed: bool) -> bool {
        if now >= self.window_began + WINDOW / 2 {
            self.calls = [Calls::default(), self.calls[0]];
            self.window_began = now;
        }
        self.calls[0].all += 1;
        if !has_failed {
            self.failures_in_a_row = 0;
            return false;
        }
        self.calls[0].failed += 1;
        self.failures_in_a_row += 1;
        let [all, failed] = [|calls: &Calls| calls.all, |calls: &Calls| calls.failed]
            .map(|of| self.calls.iter().map(of).sum::<u32>());
        self.failures_in_a_row >= 2 * MIN_CALLS || (all >= MIN_CALLS && failed * 2 >= all)
    }
}
