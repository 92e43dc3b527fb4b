//! How a table of faults is measured: the times of lookups before, during and after each.

use std::time::{Duration, Instant};

/// What a loaded machine may add to a deadline.
pub(crate) const SLACK: Duration = Duration::from_secs(2);

pub(crate) struct Scale {
    pub(crate) lookups: u64,
    /// The floor of the breaker.
    pub(crate) min_calls: u64,
    /// For a whole lookup with its retries, and for one attempt of it.
    pub(crate) deadline: Duration,
    pub(crate) attempt: Duration,
    pub(crate) probe_interval: Duration,
}

pub(crate) fn scale() -> Scale {
    if std::env::var_os("PIPELINE_CACHE_LONG_TESTS").is_some() {
        Scale {
            lookups: 1000,
            min_calls: 5,
            deadline: Duration::from_secs(3),
            attempt: Duration::from_secs(1),
            probe_interval: Duration::from_secs(2),
        }
    } else {
        Scale {
            lookups: 100,
            min_calls: 3,
            deadline: Duration::from_secs(1),
            attempt: Duration::from_millis(600),
            probe_interval: Duration::from_millis(100),
        }
    }
}

/// Times, of which the worst and the median are told.
#[derive(Default)]
pub(crate) struct Times(pub(crate) Vec<Duration>);

impl Times {
    pub(crate) async fn take<T: Send>(&mut self, work: impl Future<Output = T> + Send) -> T {
        let began = Instant::now();
        let result = work.await;
        self.0.push(began.elapsed());
        result
    }

    pub(crate) fn worst(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    pub(crate) fn told(&self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        format!("{:.3} / {:.3}", ms(self.median()), ms(self.worst()))
    }
}
