//! The time of the model, on tokio's paused clock: it moves when every task waits.
//!
//! tokio's timer counts whole milliseconds, and a request in a data centre takes less. The model is
//! stretched: one second of it is `STRETCH` seconds of tokio's clock, so that its grain is 50 us.
//! The settings of the library are stretched with it, see `machine.rs`.

use std::time::Duration;
use tokio::time::Instant;

const STRETCH: u32 = 20;

/// Counts from the start of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    stretch: u32,
}

impl Clock {
    /// Of the model, on a paused clock.
    pub(crate) fn modelled() -> Self {
        Self {
            start: Instant::now(),
            stretch: STRETCH,
        }
    }

    /// Of a real run.
    pub(crate) fn real() -> Self {
        Self {
            start: Instant::now(),
            stretch: 1,
        }
    }

    pub(crate) fn now(self) -> Duration {
        self.start.elapsed() / self.stretch
    }

    pub(crate) async fn sleep(self, time: Duration) {
        tokio::time::sleep(self.stretched(time)).await;
    }

    pub(crate) async fn sleep_until(self, time: Duration) {
        tokio::time::sleep_until(self.start + self.stretched(time)).await;
    }

    /// A time of the model on tokio's clock.
    pub(crate) fn stretched(self, time: Duration) -> Duration {
        time * self.stretch
    }
}
