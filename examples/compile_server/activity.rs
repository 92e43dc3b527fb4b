//! What was answered lately: counts and times by source, window by window, and the last requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// How long one window is.
pub(crate) const WINDOW: Duration = Duration::from_secs(2);

/// How many windows are kept: five minutes.
const WINDOWS: usize = 150;

/// How many requests are kept.
const REQUESTS: usize = 50;

/// Buckets of times: four for each power of two of microseconds, up to 2^32 (71 minutes).
const BUCKETS: usize = 4 * 32;

/// What one request came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered {
    pub(crate) target: String,
    /// 499 if the client left before the answer.
    pub(crate) status: u16,
    /// Where its artifact came from, if it got one.
    pub(crate) source: Option<String>,
    pub(crate) key: Option<String>,
    /// As `Server-Timing` has it.
    pub(crate) timing: Option<String>,
    pub(crate) elapsed: Duration,
}

/// The answers of one source. The times are exact to a quarter of their size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Times {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// What was answered in some time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Window {
    /// By source.
    pub(crate) answers: BTreeMap<String, Times>,
    /// Compile requests that got no artifact.
    pub(crate) errors: u64,
}

/// What was answered lately.
#[derive(Debug)]
pub(crate) struct Recent {
    /// The windows that are over, the oldest first.
    pub(crate) windows: Vec<Window>,
    /// All of these windows together.
    pub(crate) total: Window,
    /// The newest first.
    pub(crate) requests: Vec<Past>,
}

/// One of the last requests.
#[derive(Debug, Serialize)]
pub(crate) struct Past {
    seconds_ago: f64,
    target: String,
    status: u16,
    source: Option<String>,
    key: Option<String>,
    timing: Option<String>,
    millis: f64,
}

#[derive(Debug)]
pub(crate) struct Activity(Mutex<Lately>);

#[derive(Debug)]
struct Lately {
    /// Those that are over, the oldest first.
    windows: VecDeque<Counts>,
    open: Counts,
    opened: Instant,
    requests: VecDeque<(Instant, Answered)>,
}

/// What is counted in one window.
#[derive(Debug, Default)]
struct Counts {
    answers: BTreeMap<String, Histogram>,
    errors: u64,
}

#[derive(Debug)]
struct Histogram(Box<[u64; BUCKETS]>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Lately {
            windows: VecDeque::new(),
            open: Counts::default(),
            opened: Instant::now(),
            requests: VecDeque::new(),
        }))
    }

    /// Counts a compile request that is over.
    pub(crate) fn add(&self, answered: Answered) {
        let now = Instant::now();
        let mut lately = self.current(now);
        lately.open.add(&answered);
        lately.requests.push_front((now, answered));
        lately.requests.truncate(REQUESTS);
    }

    pub(crate) fn recent(&self) -> Recent {
        let now = Instant::now();
        let lately = self.current(now);
        let mut total = Counts::default();
        for window in &lately.windows {
            total.merge(window);
        }
        let requests = lately.requests.iter().map(|(at, answered)| Past {
            seconds_ago: (now - *at).as_secs_f64(),
            target: answered.target.clone(),
            status: answered.status,
            source: answered.source.clone(),
            // Enough to tell keys apart, and too little to ask for the artifact.
            key: answered
                .key
                .as_deref()
                .map(|key| key.chars().take(16).collect()),
            timing: answered.timing.clone(),
            millis: answered.elapsed.as_secs_f64() * 1e3,
        });
        Recent {
            windows: lately.windows.iter().map(Counts::summary).collect(),
            total: total.summary(),
            requests: requests.collect(),
        }
    }

    /// With the window of this moment open.
    fn current(&self, now: Instant) -> MutexGuard<'_, Lately> {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (now - lately.opened).div_duration_f64(WINDOW) as usize;
        // After a long silence all that is kept is empty.
        for _ in 0..over.min(WINDOWS + 1) {
            let window = std::mem::take(&mut lately.open);
            lately.windows.push_back(window);
            lately.opened += WINDOW;
        }
        if over > WINDOWS + 1 {
            lately.opened = now;
        }
        let too_many = lately.windows.len().saturating_sub(WINDOWS);
        lately.windows.drain(..too_many);
        lately
    }
}

impl Counts {
    fn add(&mut self, answered: &Answered) {
        match &answered.source {
            None => self.errors += 1,
            Some(source) => {
                let histogram = self.answers.entry(source.clone()).or_default();
                histogram.record(answered.elapsed);
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.errors += other.errors;
        for (source, histogram) in &other.answers {
            let own = self.answers.entry(source.clone()).or_default();
            for (count, more) in own.0.iter_mut().zip(&histogram.0[..]) {
                *count += more;
            }
        }
    }

    fn summary(&self) -> Window {
        let answers = self.answers.iter();
        Window {
            answers: answers
                .map(|(source, histogram)| (source.clone(), histogram.summary()))
                .collect(),
            errors: self.errors,
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Histogram {
    fn record(&mut self, time: Duration) {
        let micros = (time.as_secs_f64() * 1e6).max(1.0);
        let bucket = (micros.log2() * 4.0) as usize;
        self.0[bucket.min(BUCKETS - 1)] += 1;
    }

    fn summary(&self) -> Times {
        let count: u64 = self.0.iter().sum();
        let percentile = |hundredths: u64| {
            let rank = (count * hundredths).div_ceil(100).max(1);
            let mut seen = 0;
            let bucket = self.0.iter().position(|inside| {
                seen += inside;
                seen >= rank
            });
            // The middle of the bucket.
            bucket.map_or(0.0, |bucket| ((bucket as f64 + 0.5) / 4.0).exp2() / 1e3)
        };
        Times {
            count,
            p50_ms: percentile(50),
            p99_ms: percentile(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn answered(source: Option<&str>, millis: u64) -> Answered {
        Answered {
            source: source.map(str::to_owned),
            elapsed: Duration::from_millis(millis),
            ..Answered::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_has_counts_and_times_by_source_once_it_is_over() {
        let activity = Activity::new();
        for millis in 1..=100 {
            activity.add(answered(Some("memory"), millis));
        }
        activity.add(answered(Some("compiled"), 7));
        activity.add(answered(None, 1));
        assert_eq!(activity.recent().windows, []);

        advance(WINDOW).await;
        let recent = activity.recent();
        let [window] = &recent.windows[..] else {
            panic!("{recent:?}");
        };
        let memory = window.answers["memory"];
        assert_eq!(memory.count, 100);
        assert!((40.0..63.0).contains(&memory.p50_ms), "{memory:?}");
        assert!((80.0..125.0).contains(&memory.p99_ms), "{memory:?}");
        assert_eq!(window.answers["compiled"].count, 1);
        assert_eq!(window.errors, 1);
        assert_eq!(recent.requests.len(), REQUESTS);
        assert_eq!(recent.requests[0].seconds_ago, 2.0);
        assert_eq!(recent.requests[1].source.as_deref(), Some("compiled"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_total_is_that_of_all_answers_and_no_mean_of_windows() {
        let activity = Activity::new();
        for _ in 0..99 {
            activity.add(answered(Some("disk"), 1));
        }
        advance(WINDOW).await;
        activity.add(answered(Some("disk"), 1000));
        advance(WINDOW).await;
        let disk = activity.recent().total.answers["disk"];
        assert_eq!(disk.count, 100);
        assert!(disk.p50_ms < 1.3 && disk.p99_ms < 1.3, "{disk:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn windows_without_answers_are_empty_and_old_ones_are_gone() {
        let activity = Activity::new();
        activity.add(answered(Some("disk"), 1));
        advance(3 * WINDOW).await;
        activity.add(answered(Some("disk"), 1));
        let windows = activity.recent().windows;
        let answers: Vec<_> = windows.iter().map(|window| window.answers.len()).collect();
        assert_eq!(answers, [1, 0, 0]);

        advance(WINDOW * u32::try_from(WINDOWS).unwrap()).await;
        let windows = activity.recent().windows;
        assert_eq!(windows.len(), WINDOWS);
        assert_eq!(windows[0].answers["disk"].count, 1);

        advance(Duration::from_secs(1 << 20)).await;
        let recent = activity.recent();
        assert_eq!(recent.windows, vec![Window::default(); WINDOWS]);
        assert_eq!(recent.requests.len(), 2);
        activity.add(answered(Some("disk"), 1));
        advance(WINDOW).await;
        let windows = activity.recent().windows;
        assert_eq!(windows[WINDOWS - 1].answers["disk"].count, 1);
    }
}
