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

/// The most answers of one source that are timed in one window. The others are counted.
const TIMED: usize = 1 << 16;

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

/// The answers of one source in one window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Times {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// What was answered in one window.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Window {
    pub(crate) answers: BTreeMap<String, Times>,
    /// Compile requests that got no artifact.
    pub(crate) errors: u64,
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
    windows: VecDeque<Window>,
    open: Open,
    requests: VecDeque<(Instant, Answered)>,
}

/// The window that is not over.
#[derive(Debug)]
struct Open {
    began: Instant,
    answers: BTreeMap<String, Timed>,
    errors: u64,
}

#[derive(Debug, Default)]
struct Timed {
    count: u64,
    times: Vec<Duration>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Lately {
            windows: VecDeque::new(),
            open: Open::new(Instant::now()),
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

    /// The windows that are over, the oldest first, and the last requests, the newest first.
    pub(crate) fn recent(&self) -> (Vec<Window>, Vec<Past>) {
        let now = Instant::now();
        let lately = self.current(now);
        let requests = lately.requests.iter().map(|(at, answered)| Past {
            seconds_ago: (now - *at).as_secs_f64(),
            target: answered.target.clone(),
            status: answered.status,
            source: answered.source.clone(),
            key: answered.key.clone(),
            timing: answered.timing.clone(),
            millis: millis(answered.elapsed),
        });
        (lately.windows.iter().cloned().collect(), requests.collect())
    }

    /// With the window of this moment open.
    fn current(&self, now: Instant) -> MutexGuard<'_, Lately> {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (now - lately.open.began).div_duration_f64(WINDOW) as usize;
        // After a long silence all that is kept is empty.
        for _ in 0..over.min(WINDOWS + 1) {
            let next = Open::new(lately.open.began + WINDOW);
            let window = std::mem::replace(&mut lately.open, next).close();
            lately.windows.push_back(window);
        }
        if over > WINDOWS + 1 {
            lately.open.began = now;
        }
        let too_many = lately.windows.len().saturating_sub(WINDOWS);
        lately.windows.drain(..too_many);
        lately
    }
}

impl Open {
    fn new(began: Instant) -> Self {
        Self {
            began,
            answers: BTreeMap::new(),
            errors: 0,
        }
    }

    fn add(&mut self, answered: &Answered) {
        let Some(source) = &answered.source else {
            self.errors += 1;
            return;
        };
        let timed = self.answers.entry(source.clone()).or_default();
        timed.count += 1;
        if timed.times.len() < TIMED {
            timed.times.push(answered.elapsed);
        }
    }

    fn close(self) -> Window {
        let answers = self.answers.into_iter();
        Window {
            answers: answers
                .map(|(source, timed)| (source, timed.summary()))
                .collect(),
            errors: self.errors,
        }
    }
}

impl Timed {
    fn summary(mut self) -> Times {
        self.times.sort_unstable();
        let percentile = |hundredths: usize| {
            let rank = (self.times.len() * hundredths).div_ceil(100).max(1);
            self.times.get(rank - 1).copied().unwrap_or_default()
        };
        Times {
            count: self.count,
            p50_ms: millis(percentile(50)),
            p99_ms: millis(percentile(99)),
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
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
        assert_eq!(activity.recent().0, []);

        advance(WINDOW).await;
        let (windows, requests) = activity.recent();
        let [window] = &windows[..] else {
            panic!("{windows:?}");
        };
        let memory = window.answers["memory"];
        assert_eq!(
            (memory.count, memory.p50_ms, memory.p99_ms),
            (100, 50.0, 99.0)
        );
        assert_eq!(window.answers["compiled"].count, 1);
        assert_eq!(window.errors, 1);
        assert_eq!(requests.len(), REQUESTS);
        assert_eq!(requests[0].seconds_ago, 2.0);
        assert_eq!(requests[1].source.as_deref(), Some("compiled"));
    }

    #[tokio::test(start_paused = true)]
    async fn windows_without_answers_are_empty_and_old_ones_are_gone() {
        let activity = Activity::new();
        activity.add(answered(Some("disk"), 1));
        advance(3 * WINDOW).await;
        activity.add(answered(Some("disk"), 1));
        let (windows, _) = activity.recent();
        let answers: Vec<_> = windows.iter().map(|window| window.answers.len()).collect();
        assert_eq!(answers, [1, 0, 0]);

        advance(WINDOW * u32::try_from(WINDOWS).unwrap()).await;
        let (windows, _) = activity.recent();
        assert_eq!(windows.len(), WINDOWS);
        assert_eq!(windows[0].answers["disk"].count, 1);

        advance(Duration::from_secs(1 << 20)).await;
        let (windows, requests) = activity.recent();
        assert_eq!(windows, vec![Window::default(); WINDOWS]);
        assert_eq!(requests.len(), 2);
        activity.add(answered(Some("disk"), 1));
        advance(WINDOW).await;
        assert_eq!(activity.recent().0[WINDOWS - 1].answers["disk"].count, 1);
    }
}
