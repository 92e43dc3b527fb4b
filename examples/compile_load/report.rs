//! What is printed: for people, or as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::args::Args;
use crate::tally::{self, Tally};

#[derive(Serialize)]
pub(crate) struct Report {
    clients: usize,
    servers: usize,
    shaders: usize,
    spellings: usize,
    zipf: f64,
    /// Requests a second that were asked for.
    rate: Option<u32>,
    seconds: f64,
    answers: u64,
    /// Requests of the rate that were not sent, because the clients waited for others.
    unsent: u64,
    answers_per_second: f64,
    bytes_per_second: f64,
    /// The answers that ended in each second.
    per_second: Vec<u64>,
    sources: BTreeMap<String, Times>,
    errors: BTreeMap<String, u64>,
    /// Answers whose artifact differs from another one under the same key.
    different: u64,
    /// Keys of all shaders that were asked for, in all spellings.
    keys: usize,
    /// Shaders that were asked for.
    asked: usize,
    compiles: Vec<Compiles>,
}

/// The times of the answers from one source, in milliseconds.
#[derive(Serialize)]
struct Times {
    answers: u64,
    p50: f64,
    p99: f64,
    max: f64,
}

/// What one server compiled.
#[derive(Serialize)]
struct Compiles {
    compiles: u64,
    keys: usize,
    /// Of the key that was compiled most often.
    most: u64,
}

impl Report {
    pub(crate) fn new(args: &Args, shaders: usize, tally: &Tally, elapsed: Duration) -> Self {
        let (answers, errors) = tally.counts();
        let due = args.rate.map_or(0, |rate| {
            let due = (f64::from(rate) * args.seconds.as_secs_f64()) as u64;
            due.min(args.requests.unwrap_or(u64::MAX))
        });
        let seconds = elapsed.as_secs_f64();
        let sources = tally.times.iter();
        let compiles = tally.compiles.iter().map(|keys| Compiles {
            compiles: keys.values().sum(),
            keys: keys.len(),
            most: keys.values().copied().max().unwrap_or_default(),
        });
        Self {
            clients: args.clients,
            servers: args.servers.len(),
            shaders,
            spellings: args.spellings,
            zipf: args.zipf,
            rate: args.rate,
            seconds,
            answers,
            unsent: due.saturating_sub(answers + errors),
            answers_per_second: answers as f64 / seconds,
            bytes_per_second: tally.bytes as f64 / seconds,
            per_second: tally.seconds.clone(),
            sources: sources
                .map(|(source, times)| (source.clone(), Times::of(times)))
                .collect(),
            errors: tally.errors.clone(),
            different: tally.different,
            keys: tally.keys.values().map(|keys| keys.len()).sum(),
            asked: tally.keys.len(),
            compiles: compiles.collect(),
        }
    }

    /// Whether every request was answered, and rightly.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.different == 0 && self.answers > 0
    }
}

impl Times {
    fn of(times: &tally::Times) -> Self {
        Self {
            answers: times.count(),
            p50: times.percentile(50.0),
            p99: times.percentile(99.0),
            max: times.percentile(100.0),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = match self.rate {
            Some(rate) => format!("{rate} requests a second"),
            None => "as fast as they are answered".to_owned(),
        };
        writeln!(
            f,
            "{} clients, {} servers, {} shaders in {} spellings, Zipf {}; {rate}\n",
            self.clients, self.servers, self.shaders, self.spellings, self.zipf
        )?;
        writeln!(
            f,
            "{:14} {:>9} {:>9} {:>9} {:>9}  (ms)",
            "from", "answers", "p50", "p99", "max"
        )?;
        for (source, times) in &self.sources {
            writeln!(
                f,
                "{source:14} {:>9} {:>9.2} {:>9.2} {:>9.2}",
                times.answers, times.p50, times.p99, times.max
            )?;
        }
        writeln!(
            f,
            "\n{} answers in {:.1} s: {:.0} and {:.1} MiB a second",
            self.answers,
            self.seconds,
            self.answers_per_second,
            self.bytes_per_second / f64::from(1 << 20)
        )?;
        writeln!(
            f,
            "{} shaders were asked for: {} keys",
            self.asked, self.keys
        )?;
        for (number, compiles) in self.compiles.iter().enumerate() {
            writeln!(
                f,
                "server {}: answered with {} compiles of {} keys, none more often than {} times",
                number + 1,
                compiles.compiles,
                compiles.keys,
                compiles.most
            )?;
        }
        if self.unsent > 0 {
            writeln!(f, "{} requests were not sent: too few clients", self.unsent)?;
        }
        for (error, times) in &self.errors {
            writeln!(f, "error, {times} times: {error}")?;
        }
        match self.different {
            0 => Ok(()),
            count => writeln!(
                f,
                "WRONG: {count} answers differ from others under their key"
            ),
        }
    }
}
