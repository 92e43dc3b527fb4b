//! What the user is shown: the table and what it means, or the same as JSON.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde::Serialize;

use crate::compiler;
use crate::pass::{Figures, Pass};
use crate::passes::Passes;
use crate::programs::Rejected;
use crate::tiers::Promotion;

const HEADINGS: [&str; 9] = [
    "pass", "programs", "compiled", "memory", "disk", "remote", "median", "total", "speed-up",
];

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
pub(crate) fn table(out: &mut impl Write, of: &str, passes: &Passes) -> io::Result<()> {
    writeln!(
        out,
        "{of}: WGSL to {} by {}\n",
        compiler::TARGET,
        compiler::toolchain()
    )?;
    write_rows(out, &rows(&passes.passes))?;
    writeln!(out)?;
    for note in notes(passes) {
        writeln!(out, "{note}")?;
    }
    Ok(())
}

fn rows(passes: &[Pass]) -> Vec<[String; 9]> {
    let first = passes.first().map_or(0.0, |pass| pass.figures.total_ms);
    let row = |pass: &Pass| {
        let figures = &pass.figures;
        [
            figures.name.clone(),
            figures.programs.to_string(),
            count(figures.compiled),
            count(figures.memory),
            count(figures.disk),
            count(figures.remote),
            milliseconds(figures.median_us / 1e3),
            milliseconds(figures.total_ms),
            speed_up(first, figures.total_ms),
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

fn milliseconds(ms: f64) -> String {
    let digits = match ms {
        ..10.0 => 3,
        ..100.0 => 2,
        _ => 1,
    };
    format!("{ms:.digits$} ms")
}

fn speed_up(first: f64, this: f64) -> String {
    if this > 0.0 {
        format!("{:.1}x", first / this)
    } else {
        "-".to_owned()
    }
}

/// Names to the left, figures to the right.
fn write_rows(out: &mut impl Write, rows: &[[String; 9]]) -> io::Result<()> {
    let widths: [usize; 9] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.fold(HEADINGS[column].len(), usize::max)
    });
    let line = |cells: [&str; 9]| {
        let mut line = format!("{:<width$}", cells[0], width = widths[0]);
        for (cell, width) in cells.iter().zip(widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        line
    };
    writeln!(out, "{}", line(HEADINGS))?;
    for row in rows {
        writeln!(out, "{}", line(row.each_ref().map(String::as_str)))?;
    }
    Ok(())
}

fn notes(passes: &Passes) -> Vec<String> {
    let mut notes = Vec::new();
    for pass in &passes.passes {
        if pass.figures.name == "respelled" {
            notes.extend(respelled(pass, &passes.not_respelled));
        }
    }
    if let Some(last) = passes.passes.last() {
        notes.push(promotion(&last.figures, &passes.promotion));
    }
    if passes.passes.iter().all(|pass| pass.faults.is_empty()) {
        notes.push(
            "Every artifact is, byte for byte, what a fresh compile of its program gives."
                .to_owned(),
        );
    }
    notes.push(format!(
        "Times are of the cached call, from a parsed module to its artifact: the key, the lookup, \
         and the compile\nwhere there is one. The keys alone, canonical form and hash, take {} of \
         each total.",
        milliseconds(passes.key_time.as_secs_f64() * 1e3)
    ));
    notes
}

fn respelled(pass: &Pass, not_respelled: &[Rejected]) -> Vec<String> {
    let programs = pass.figures.programs;
    let united = programs - pass.compiled.len();
    let mut notes = vec![format!(
        "Respelled, with other names and in another order, {united} of {programs} have the key they had."
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
