//! Tables, as text.

use std::fmt;

use crate::outcome::Outcome;

pub(crate) struct Table<'a>(pub(crate) &'a [Outcome]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>8}  {:<12}  {:<16}  {:>9}  {:>8}  {:>9}  {:>8}  {:>8}  {:>10}  {:>9}  {:>10}  {:>7}",
            "machines",
            "remote",
            "with",
            "requests",
            "compiles",
            "/ program",
            "p50 ms",
            "p99 ms",
            "remote req",
            "peak /s",
            "peak MB/s",
            "missing"
        )?;
        for outcome in self.0 {
            row(outcome, f)?;
        }
        for outcome in self
            .0
            .iter()
            .filter(|outcome| outcome.failed + outcome.wrong > 0)
        {
            let Outcome {
                machines,
                failed,
                wrong,
                ..
            } = outcome;
            writeln!(
                f,
                "{machines} machines: {failed} requests failed, {wrong} got a wrong artifact"
            )?;
        }
        Ok(())
    }
}

fn row(outcome: &Outcome, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "{:>8}  {:<12}  {:<16}  {:>9}  {:>8}  {:>9.2}  {:>8.1}  {:>8.0}  {:>10}  {:>9}  {:>10.1}  {:>7}",
        outcome.machines,
        outcome.remote,
        outcome.setup(),
        outcome.requests,
        outcome.compiles,
        outcome.compiles_per_program,
        outcome.p50_ms,
        outcome.p99_ms,
        outcome.remote_requests,
        outcome.peak_requests,
        outcome.peak_bytes_out as f64 / 1e6,
        outcome.missing,
    )
}
