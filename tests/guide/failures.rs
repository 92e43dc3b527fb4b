//! The page `guide::failures` quotes what the library logs, and counts what it counts.

use std::collections::BTreeSet;

use pipeline_cache::layered::{LayeredMetrics, TierMetrics};

use crate::sources::{LogLine, log_lines, sources};
use crate::table::{codes, rows};

const PAGE: &str = include_str!("../../src/guide/failures.md");

/// The column of log lines, and that of numbers.
const LOG: usize = 2;
const NUMBERS: usize = 3;

/// The log lines of the page, with their levels in small letters.
fn quoted() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for row in rows(PAGE).iter().filter(|row| row.cells.len() > NUMBERS) {
        let mut level = String::new();
        let mut pieces = row.cells[LOG].split('`');
        while let (Some(before), Some(text)) = (pieces.next(), pieces.next()) {
            let mut words = before.split(|letter: char| !letter.is_ascii_uppercase());
            if let Some(word) = words.rfind(|word| word.len() > 3) {
                level = word.to_lowercase();
            }
            if text.contains(' ') {
                lines.push((level.clone(), text.to_owned()));
            }
        }
    }
    lines
}

#[test]
fn every_quoted_line_is_logged_at_its_level() {
    let logged: Vec<LogLine> = sources().iter().flat_map(log_lines).collect();
    let quoted = quoted();
    assert!(quoted.len() > 40, "{quoted:?}");
    for (level, text) in quoted {
        let found = logged
            .iter()
            .any(|line| line.level == level && line.text.starts_with(&text));
        assert!(found, "no {level} line of the library begins with {text:?}");
    }
}

#[test]
fn every_line_that_an_operator_sees_is_on_the_page() {
    let quoted: BTreeSet<_> = quoted().into_iter().map(|(_, text)| text).collect();
    let logged = sources()
        .into_iter()
        .filter(|(file, _)| !file.starts_with("testing/"))
        .flat_map(|source| log_lines(&source));
    let missing: Vec<_> = logged
        .filter(|line| line.level != "debug")
        .filter(|line| !quoted.iter().any(|text| line.text.starts_with(&**text)))
        .collect();
    assert!(missing.is_empty(), "not on the page: {missing:#?}");
}

#[test]
fn every_number_on_the_page_is_counted() {
    let counted = format!(
        "{:?}{:?}",
        LayeredMetrics::default(),
        TierMetrics::default()
    );
    let mut named = BTreeSet::new();
    for row in rows(PAGE).iter().filter(|row| row.cells.len() > NUMBERS) {
        named.extend(codes(&row.cells[NUMBERS]).map(str::to_owned));
    }
    assert!(named.len() > 40, "{named:?}");
    let unknown: Vec<_> = named
        .iter()
        .filter(|name| !counted.contains(&format!("{name}: ")))
        .collect();
    assert!(unknown.is_empty(), "no such numbers: {unknown:?}");
}
