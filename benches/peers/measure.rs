//! Interleaved rounds, and what they came to.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// What is to be measured, and how long.
#[derive(Debug)]
pub(crate) struct Plan {
    only: Option<String>,
    quick: bool,
}

impl Plan {
    pub(crate) fn new(only: Option<&str>, quick: bool) -> Self {
        Self {
            only: only.map(ToOwned::to_owned),
            quick,
        }
    }

    pub(crate) fn wants(&self, case: &str) -> bool {
        let only = self.only.as_deref();
        only.is_none_or(|only| case.contains(only))
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.quick
    }

    /// A number of things, or few where there is no time for more.
    pub(crate) fn count(&self, whole: usize) -> usize {
        if self.quick {
            (whole / 50).max(1)
        } else {
            whole
        }
    }

    fn rounds(&self) -> usize {
        if self.quick { 1 } else { 15 }
    }

    /// Lets all take turns, after one turn each to warm up.
    pub(crate) fn contend(&self, mut contenders: Vec<Contender<'_>>) -> Vec<Figures> {
        let mut times = vec![Vec::new(); contenders.len()];
        for contender in &mut contenders {
            (contender.round)();
        }
        for _ in 0..self.rounds() {
            for (contender, times) in contenders.iter_mut().zip(&mut times) {
                times.push((contender.round)());
            }
        }
        let all = contenders.into_iter().zip(times);
        all.map(|(contender, times)| Figures::new(contender.name, times))
            .collect()
    }
}

/// One that takes turns.
pub(crate) struct Contender<'a> {
    name: String,
    /// The time per operation of one round.
    round: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Contender<'a> {
    /// `round` does so many operations, and nothing else.
    pub(crate) fn new<T>(
        name: impl Into<String>,
        operations: usize,
        mut round: impl FnMut() -> T + 'a,
    ) -> Self {
        Self::timed(name, operations, move || {
            let start = Instant::now();
            black_box(round());
            start.elapsed()
        })
    }

    /// `round` does so many operations and says how long they took; what it does before and after
    /// is its own.
    pub(crate) fn timed(
        name: impl Into<String>,
        operations: usize,
        mut round: impl FnMut() -> Duration + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            round: Box::new(move || round().as_secs_f64() * 1e9 / operations as f64),
        }
    }
}

/// What the rounds of one contender came to, in nanoseconds per operation.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Figures {
    fn new(name: String, mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self {
            name,
            median: times[times.len() / 2],
            least: times[0],
            greatest: times[times.len() - 1],
        }
    }
}

/// The value below which a share of the sorted values lies.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let at = (sorted.len() as f64 * share) as usize;
    sorted[at.min(sorted.len() - 1)]
}
