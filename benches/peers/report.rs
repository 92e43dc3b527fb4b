//! The table for people, and the object for programs.

use serde_json::{Map, Value, json};

use crate::measure::Figures;

/// What a case must reach: at most so many times the median of a peer.
pub(crate) type Goal = (&'static str, f64);

#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    cases: Vec<Value>,
    missed: Vec<String>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            cases: Vec::new(),
            missed: Vec::new(),
        }
    }

    /// A case of figures, ours first.
    pub(crate) fn case(&mut self, case: &str, figures: &[Figures], goals: &[Goal]) {
        let Some((ours, peers)) = figures.split_first() else {
            return;
        };
        let goal = |peer: &Figures| goals.iter().find(|(name, _)| *name == peer.name);
        self.line(&format!("\n{case}"));
        self.line(&format!(
            "  {:<38} {:>12}  {:>25}  {:>6}",
            "", "median", "least to greatest", "ratio"
        ));
        for figures in figures {
            let ratio = ours.median / figures.median;
            let verdict = match goal(figures) {
                Some((_, most)) if ratio <= *most => format!("  at most {most}: met"),
                Some((_, most)) => format!("  at most {most}: MISSED"),
                None => String::new(),
            };
            let Figures {
                name,
                median,
                least,
                greatest,
            } = figures;
            let spread = format!("{} to {}", time(*least), time(*greatest));
            self.line(&format!(
                "  {name:<38} {:>12}  {spread:>25}  {ratio:>6.2}{verdict}",
                time(*median)
            ));
            if verdict.ends_with("MISSED") {
                self.missed.push(format!("{case}: {ratio:.2} x {name}"));
            }
        }
        let map = |value: &dyn Fn(&Figures) -> f64| -> Map<String, Value> {
            let pairs = peers
                .iter()
                .map(|peer| (peer.name.clone(), json!(value(peer))));
            pairs.collect()
        };
        self.cases.push(json!({
            "case": case,
            "ours_ns": ours.median,
            "ours_spread_ns": [ours.least, ours.greatest],
            "peers": map(&|peer| peer.median),
            "ratios": map(&|peer| ours.median / peer.median),
            "goals": goals.iter().map(|(peer, most)| ((*peer).to_owned(), json!(most)))
                .collect::<Map<_, _>>(),
        }));
    }

    /// A case that is held to a bound of its own and not to a peer.
    pub(crate) fn bound(&mut self, case: &str, what: &str, ours: f64, most: Option<f64>) {
        let verdict = match most {
            Some(most) if ours <= most => format!("at most {most}: met"),
            Some(most) => format!("at most {most}: MISSED"),
            None => String::new(),
        };
        self.line(&format!("\n{case}\n  {what}: {ours:.3}  {verdict}"));
        if verdict.ends_with("MISSED") {
            self.missed.push(format!("{case}: {what} {ours:.3}"));
        }
        self.cases
            .push(json!({ "case": case, "what": what, "ours": ours, "most": most }));
    }

    /// Prints a line of the table, and nothing where the output is an object.
    pub(crate) fn line(&self, line: &str) {
        if !self.json {
            println!("{line}");
        }
    }

    pub(crate) fn finish(self) {
        if self.json {
            println!("{}", json!({ "cases": self.cases }));
            return;
        }
        println!("\n{} goals missed", self.missed.len());
        for missed in self.missed {
            println!("  {missed}");
        }
    }
}

/// Nanoseconds for people.
pub(crate) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}
