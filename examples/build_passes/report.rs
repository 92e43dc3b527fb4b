//! What the user is shown: the table and what it means, or the same as JSON.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde::Serialize;

use super::compiler::Compiler;
use super::pass::{Figures, Pass};
use super::passes::Passes;
use super::programs::Rejected;
use super::tiers::Promotion;
use super::times::TimesMs;

const HEADINGS: [&str; 9] = [
    "pass", "parsed", "compiled", "memory", "disk", "remote", "median", "total", "speed-up",
];

const TIMES: [&str; 6] = ["where it went", "hash", "parse", "key", "lookup", "compile"];

/// The programs that do not compile, with the compiler's own words.
pub(crate) fn rejected(out: &mut impl Write, rejected: &[Rejected], all: usize) -> io::Result<()> {
    for Rejected { name: _, message } in rejected {
        writeln!(out, "{}\n", message.trim_end())?;
    }
    let names: Vec<_> = rejected
        .iter()
        .map(|program| program.name.as_str())
        .collect();
    writeln!(
        out,
        "{} of {all} programs not compiled, and nothing cached for them: {}",
        names.len(),
        names.join(", ")
    )
}

/// What went wrong in the passes, and what may make the next ones slower. Each once, though it
/// may have happened in all passes.
pub(crate) fn complaints(out: &mut impl Write, passes: &[Pass]) -> io::Result<()> {
    let warnings: BTreeSet<_> = passes.iter().flat_map(|pass| &pass.warnings).collect();
    for warning in warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for pass in passes {
        for fault in &pass.faults {
            writeln!(out, "error: pass {}: {fault}", pass.figures.name)?;
        }
    }
    Ok(())
}

/// One JSON object, on one line.
pub(crate) fn json(out: &mut impl Write, programs: usize, passes: &Passes) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'a> {
        programs: usize,
        passes: Vec<&'a Figures>,
        promotion: &'a Promotion,
    }
    let report = Report {
        programs,
        passes: passes.passes.iter().map(|pass| &pass.figures).collect(),
        promotion: &passes.promotion,
    };
    serde_json::to_writer(&mut *out, &report)?;
    writeln!(out)
}

/// The table, and below it what the figures do not say.
pub(crate) fn table<C: Compiler>(
    out: &mut impl Write,
    of: &str,
    compiler: &C,
    passes: &Passes,
) -> io::Result<()> {
    writeln!(
        out,
        "{of}: {} to {} by {}\n",
        C::LANGUAGE,
        compiler.scope().target(),
        compiler.toolchain()
    )?;
    write_rows(out, HEADINGS, &rows(&passes.passes))?;
    writeln!(out)?;
    write_rows(out, TIMES, &times(&passes.passes))?;
    writeln!(out)?;
    for note in notes(C::RESPELLED, passes) {
        writeln!(out, "{note}")?;
    }
    Ok(())
}

fn rows(passes: &[Pass]) -> Vec<[String; 9]> {
    let row = |pass: &Pass| {
        let figures = &pass.figures;
        [
            figures.name.clone(),
            count(figures.parsed),
            count(figures.compiled),
            count(figures.memory),
            count(figures.disk),
            count(figures.remote),
            milliseconds(figures.median_us / 1e3),
            milliseconds(figures.total_ms),
            format!("{:.1}x", figures.speed_up),
        ]
    };
    passes.iter().map(row).collect()
}

/// A dash leaves the eye with the cells that count something.
fn count(programs: usize) -> String {
    match programs {
        0 => "-".to_owned(),
        some => some.to_string(),
    }
}

fn times(passes: &[Pass]) -> Vec<[String; 6]> {
    let row = |Pass { figures, .. }: &Pass| {
        let TimesMs {
            hash,
            parse,
            key,
            lookup,
            compile,
        } = figures.times_ms;
        let name = figures.name.clone();
        let [hash, parse, key, lookup, compile] =
            [hash, parse, key, lookup, compile].map(milliseconds);
        [name, hash, parse, key, lookup, compile]
    };
    passes.iter().map(row).collect()
}

fn milliseconds(ms: f64) -> String {
    if ms == 0.0 {
        return "-".to_owned();
    }
    let digits = match ms {
        ..10.0 => 3,
        ..100.0 => 2,
        _ => 1,
    };
    format!("{ms:.digits$} ms")
}

/// Names to the left, figures to the right.
fn write_rows<const N: usize>(
    out: &mut impl Write,
    headings: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.fold(headings[column].len(), usize::max)
    });
    let line = |cells: [&str; N]| {
        let mut line = format!("{:<width$}", cells[0], width = widths[0]);
        for (cell, width) in cells.iter().zip(widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        line
    };
    writeln!(out, "{}", line(headings))?;
    for row in rows {
        writeln!(out, "{}", line(row.each_ref().map(String::as_str)))?;
    }
    Ok(())
}

fn notes(spelling: &str, passes: &Passes) -> Vec<String> {
    let mut notes = Vec::new();
    for pass in &passes.passes {
        if pass.figures.name == "respelled" {
            notes.extend(respelled(spelling, pass, &passes.not_respelled));
        }
    }
    for pass in &passes.passes {
        if pass.figures.name == "another machine" {
            notes.push(promotion(&pass.figures, &passes.promotion));
        }
    }
    notes.extend(passes.notes.iter().cloned());
    if passes.passes.iter().all(|pass| pass.faults.is_empty()) {
        notes.push(
            "Every artifact of the cache is, byte for byte, what a fresh compile of its program gives."
                .to_owned(),
        );
    }
    notes.push("Times are from source to artifact, one program after the other.".to_owned());
    notes.extend(losses(&passes.passes));
    notes
}

/// Where a compiler is better off without the cache.
fn losses(passes: &[Pass]) -> Option<String> {
    let slower = |pass: &&Pass| pass.figures.speed_up < 1.0;
    let names: Vec<_> = passes
        .iter()
        .filter(slower)
        .map(|pass| format!("{} ({:.2}x)", pass.figures.name, pass.figures.speed_up))
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "The cache loses here: {}. A new spelling costs its parse and its key, also where no \
             compile follows.",
            names.join(", ")
        )
    })
}

fn respelled(spelling: &str, pass: &Pass, not_respelled: &[Rejected]) -> Vec<String> {
    let programs = pass.figures.programs;
    let united = programs - pass.compiled.len();
    let mut notes = vec![format!(
        "Respelled, {spelling}, {united} of {programs} have the key they had."
    )];
    if !pass.compiled.is_empty() {
        notes.push(format!(
            "  Another key, and compiled anew: {}",
            pass.compiled.join(", ")
        ));
    }
    for Rejected { name, message } in not_respelled {
        notes.push(format!("  Not respelled: {name}: {}", message.trim_end()));
    }
    notes
}

fn promotion(last: &Figures, promotion: &Promotion) -> String {
    let Figures {
        programs, remote, ..
    } = last;
    let Promotion {
        now_in_memory,
        now_on_disk,
        ..
    } = promotion;
    format!(
        "On the other machine {remote} of {programs} came over HTTP; promotion has since put \
         {now_in_memory} in memory and {now_on_disk} on disk."
    )
}
