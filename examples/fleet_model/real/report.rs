//! The model beside reality.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::member::Done;
use crate::outcome::Outcome;

#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    model: Figures,
    real: Figures,
    failed: u64,
    wrong: u64,
}

#[derive(Debug, Serialize)]
struct Figures {
    requests: u64,
    programs: usize,
    compiles: u64,
    compiles_per_program: f64,
    /// Lookups and writes, over the time in which there are requests.
    remote_requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Comparison {
    pub(super) fn new(model: &Outcome, done: &[Done], seconds: f64) -> Self {
        let sum = |of: fn(&Done) -> u64| done.iter().map(of).sum::<u64>();
        let programs: BTreeSet<_> = done.iter().flat_map(|done| &done.wanted).collect();
        let compiles = sum(|done| done.compiles);
        Self {
            model: Figures {
                requests: model.requests,
                programs: model.programs,
                compiles: model.compiles,
                compiles_per_program: model.compiles_per_program,
                remote_requests_per_second: model.gets_and_puts as f64 / seconds,
                p50_ms: model.p50_ms,
                p99_ms: model.p99_ms,
            },
            real: Figures {
                requests: sum(|done| done.requests),
                programs: programs.len(),
                compiles,
                compiles_per_program: compiles as f64 / programs.len().max(1) as f64,
                remote_requests_per_second: sum(|done| done.gets_and_puts) as f64 / seconds,
                p50_ms: quantile(done, 0.5),
                p99_ms: quantile(done, 0.99),
            },
            failed: sum(|done| done.failed),
            wrong: sum(|done| done.wrong),
        }
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.failed == 0 && self.wrong == 0
    }
}

/// Milliseconds, over all processes.
fn quantile(done: &[Done], quantile: f64) -> f64 {
    let mut times = BTreeMap::new();
    for (time, count) in done.iter().flat_map(|done| &done.times) {
        *times.entry(*time).or_insert(0) += count;
    }
    let all: u64 = times.values().sum();
    let wanted = (all as f64 * quantile).ceil() as u64;
    let mut seen = 0;
    let found = times.into_iter().find(|(_, count)| {
        seen += count;
        seen >= wanted
    });
    found.map_or(0.0, |(time, _)| time as f64 / 1e3)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, real, .. } = self;
        let rows = [
            ("requests", model.requests as f64, real.requests as f64),
            ("programs", model.programs as f64, real.programs as f64),
            ("compiles", model.compiles as f64, real.compiles as f64),
            (
                "compiles per program",
                model.compiles_per_program,
                real.compiles_per_program,
            ),
            (
                "remote lookups and writes a second",
                model.remote_requests_per_second,
                real.remote_requests_per_second,
            ),
            ("p50 of time to artifact, ms", model.p50_ms, real.p50_ms),
            ("p99 of time to artifact, ms", model.p99_ms, real.p99_ms),
        ];
        writeln!(
            f,
            "{:<36}{:>10}{:>10}{:>14}",
            "", "model", "real", "model / real"
        )?;
        for (name, model, real) in rows {
            writeln!(
                f,
                "{name:<36}{model:>10.2}{real:>10.2}{:>14.2}",
                model / real
            )?;
        }
        writeln!(
            f,
            "failed requests: {}, wrong artifacts: {}",
            self.failed, self.wrong
        )
    }
}
