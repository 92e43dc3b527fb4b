//! The time of the model, on tokio's paused clock: it moves when every task waits.
//!
//! tokio's timer counts whole milliseconds, and a request in a data centre takes less. The model is
//! stretched: one second of it is [`STRETCH`] seconds of tokio's clock, so that its grain is 50 us.
//! The settings of the library are stretched with it, see `machine.rs`.

use std::time::Duration;
use tokio::time::Instant;

const STRETCH: u32 = 20;

/// Counts from the start of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Duration {
        self.0.elapsed() / STRETCH
    }

    pub(crate) async fn sleep(self, time: Duration) {
        tokio::time::sleep(stretched(time)).await;
    }

    pub(crate) async fn sleep_until(self, time: Duration) {
        tokio::time::sleep_until(self.0 + stretched(time)).await;
    }
}

/// A time of the model on tokio's clock.
pub(crate) fn stretched(time: Duration) -> Duration {
    time * STRETCH
}
