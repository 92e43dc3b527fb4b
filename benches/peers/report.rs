//! The tables for people, and the object for programs.

use serde_json::{Map, Value, json};

use crate::measure::Figures;

/// What a case must reach: at most so many times the median of a peer.
pub(crate) type Goal = (&'static str, f64);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form {
    Text,
    Json,
    /// One table of all cases, as in the README.
    Markdown,
}

#[derive(Debug)]
pub(crate) struct Report {
    form: Form,
    cases: Vec<Value>,
    missed: Vec<String>,
}

impl Report {
    pub(crate) fn new(form: Form) -> Self {
        if form == Form::Markdown {
            println!("| case | median (spread) | beside its peers, and the goal |");
            println!("|---|---|---|");
        }
        Self {
            form,
            cases: Vec::new(),
            missed: Vec::new(),
        }
    }

    /// A case of figures, ours first.
    pub(crate) fn case(&mut self, case: &str, figures: &[Figures], goals: &[Goal]) {
        let Some((ours, peers)) = figures.split_first() else {
            return;
        };
        self.line(&format!("\n{case}"));
        self.line(&format!(
            "  {:<38} {:>12}  {:>25}  {:>6}",
            "", "median", "least to greatest", "ratio"
        ));
        self.row(case, ours, peers, goals);
        for figures in figures {
            let ratio = ours.median / figures.median;
            let verdict = match goal(goals, figures) {
                Some(most) if ratio <= most => format!("  at most {most}: met"),
                Some(most) => format!("  at most {most}: MISSED"),
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
        if let (Form::Markdown, Some(most)) = (self.form, most) {
            let beside = beside(ours <= most, &format!("at most {most}"));
            println!("| {case} | {what}: {ours:.3} | {beside} |");
        }
        if verdict.ends_with("MISSED") {
            self.missed.push(format!("{case}: {what} {ours:.3}"));
        }
        self.cases
            .push(json!({ "case": case, "what": what, "ours": ours, "most": most }));
    }

    fn row(&self, case: &str, ours: &Figures, peers: &[Figures], goals: &[Goal]) {
        if self.form != Form::Markdown {
            return;
        }
        let ratios = peers.iter().map(|peer| {
            let ratio = ours.median / peer.median;
            let text = format!("{ratio:.2} x {}", peer.name);
            match goal(goals, peer) {
                Some(most) => beside(ratio <= most, &format!("{text}, at most {most}")),
                None => text,
            }
        });
        let ratios: Vec<_> = ratios.collect();
        println!(
            "| {case} | {} ({} to {}) | {} |",
            time(ours.median),
            time(ours.least),
            time(ours.greatest),
            ratios.join("; ")
        );
    }

    /// Prints a line of the table for people at a terminal.
    pub(crate) fn line(&self, line: &str) {
        if self.form == Form::Text {
            println!("{line}");
        }
    }

    pub(crate) fn finish(self) {
        match self.form {
            Form::Json => println!("{}", json!({ "cases": self.cases })),
            Form::Markdown => {}
            Form::Text => {
                println!("\n{} goals missed", self.missed.len());
                for missed in self.missed {
                    println!("  {missed}");
                }
            }
        }
    }
}

/// The goal that was set beside a peer.
fn goal(goals: &[Goal], peer: &Figures) -> Option<f64> {
    let goal = goals.iter().find(|(name, _)| *name == peer.name);
    goal.map(|(_, most)| *most)
}

/// What was reached, and in bold where that was not the goal.
fn beside(met: bool, text: &str) -> String {
    match met {
        true => text.to_owned(),
        false => format!("**{text}**"),
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
