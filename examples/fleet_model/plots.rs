//! What the plots show.

use anyhow::Result;
use std::fs;
use std::path::Path;

use crate::chart::{Chart, Line, Scale};
use crate::outage::Outage;
use crate::outcome::Outcome;
use crate::tally::Second;

/// The fleet whose seconds are drawn, where there is one.
const SHOWN_MACHINES: usize = 1000;
const SETUPS: [&str; 4] = ["neither", "edges", "leases", "leases and edges"];

/// Of the remote that was run first.
pub(crate) fn of_rollouts(outcomes: &[Outcome], folder: &Path) -> Result<()> {
    let Some(first) = outcomes.first() else {
        return Ok(());
    };
    fs::create_dir_all(folder)?;
    let of_first = outcomes
        .iter()
        .filter(|outcome| outcome.remote == first.remote);
    let outcomes: Vec<_> = of_first.collect();
    by_machines(&outcomes, folder)?;
    over_time(&outcomes, folder)
}

fn by_machines(outcomes: &[&Outcome], folder: &Path) -> Result<()> {
    let lines = |of: fn(&Outcome) -> f64| {
        let line = |setup: &&str| Line {
            name: (*setup).to_owned(),
            points: outcomes
                .iter()
                .filter(|outcome| outcome.setup() == *setup)
                .map(|outcome| (outcome.machines as f64, of(outcome)))
                .collect(),
        };
        SETUPS.iter().map(line).collect::<Vec<_>>()
    };
    let compiles = Chart {
        title: "Compiles per program in a rollout",
        x: ("machines", Scale::Log),
        y: ("compiles per program", Scale::Log),
        lines: lines(|outcome| outcome.compiles_per_program),
    };
    compiles.draw(&folder.join("compiles.svg"))?;
    let named = |quantile: &str, lines: Vec<Line>| {
        let name = |line: Line| Line {
            name: format!("{quantile}, {}", line.name),
            ..line
        };
        lines.into_iter().map(name).collect::<Vec<_>>()
    };
    let times = Chart {
        title: "Time to an artifact that is not in memory",
        x: ("machines", Scale::Log),
        y: ("milliseconds", Scale::Log),
        lines: [
            named("p99", lines(|outcome| outcome.p99_ms)),
            named("p50", lines(|outcome| outcome.p50_ms)),
        ]
        .concat(),
    };
    times.draw(&folder.join("times.svg"))
}

fn over_time(outcomes: &[&Outcome], folder: &Path) -> Result<()> {
    let shown = outcomes
        .iter()
        .filter(|outcome| outcome.machines == SHOWN_MACHINES);
    let shown: Vec<_> = shown.collect();
    let lines = |of: fn(&Second) -> f64| {
        let line = |outcome: &&&Outcome| Line {
            name: outcome.setup().to_owned(),
            points: points(outcome, of),
        };
        shown.iter().map(line).collect::<Vec<_>>()
    };
    if shown.is_empty() {
        return Ok(());
    }
    let requests = Chart {
        title: "Requests to the remote in a rollout of 1,000 machines",
        x: ("seconds", Scale::Linear),
        y: ("requests a second", Scale::Linear),
        lines: lines(|second| second.requests as f64),
    };
    requests.draw(&folder.join("requests.svg"))?;
    let bytes = Chart {
        title: "What the remote sends in a rollout of 1,000 machines",
        x: ("seconds", Scale::Linear),
        y: ("MB a second", Scale::Linear),
        lines: lines(|second| second.bytes_out as f64 / 1e6),
    };
    bytes.draw(&folder.join("bytes.svg"))
}

pub(crate) fn of_outages(outcomes: &[Outcome], outage: &Outage, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let until = (outage.ends().as_secs() + 20) as f64;
    let lines = |what: &'static str, of: fn(&Second) -> f64| {
        outcomes.iter().map(move |outcome| Line {
            name: match outcome.leases {
                true => format!("{what}, leases"),
                false => format!("{what}, no leases"),
            },
            points: points(outcome, of)
                .into_iter()
                .filter(|(second, _)| *second <= until)
                .collect(),
        })
    };
    let compiles = lines("compiles", |second| second.compiles as f64);
    let requests = lines("requests", |second| second.requests as f64);
    let chart = Chart {
        title: "A remote that does not answer for a while",
        x: ("seconds", Scale::Linear),
        y: (
            "compiles, and requests to the remote, a second",
            Scale::Linear,
        ),
        lines: compiles.chain(requests).collect(),
    };
    chart.draw(&folder.join("outage.svg"))
}

fn points(outcome: &Outcome, of: fn(&Second) -> f64) -> Vec<(f64, f64)> {
    let seconds = outcome.seconds.iter().enumerate();
    seconds
        .map(|(at, second)| (at as f64, of(second)))
        .collect()
}
