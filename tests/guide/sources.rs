//! The library's own source text.

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file of the library, by its path below `src`, without its comments.
pub(crate) fn sources() -> Vec<(String, String)> {
    let without_comments = |(name, text): (String, String)| {
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        (name, lines.collect::<Vec<_>>().join("\n"))
    };
    texts().into_iter().map(without_comments).collect()
}

/// The same, with its comments.
pub(crate) fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        (name.replace('\\', "/"), fs::read_to_string(&path).unwrap())
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The names of the methods that take a value and return it changed: those of a builder.
pub(crate) fn setters(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["pub fn ", "pub const fn "] {
        for (at, _) in code.match_indices(start) {
            let signature = &code[at + start.len()..];
            let signature = &signature[..signature.find('{').unwrap_or(signature.len())];
            let signature: String = signature.split_whitespace().collect();
            let takes_self = signature.contains("(self") || signature.contains("(mutself");
            if takes_self && (signature.ends_with("->Self") || signature.contains("->Selfwhere")) {
                let name = signature.split(['(', '<']).next().unwrap();
                found.push(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn setters_are_found_in_each_form() {
    let code = "
        pub fn one(mut self) -> Self { }
        pub const fn two(self, value: u8) -> Self {
        pub fn three<I>(
            mut self,
            items: I,
        ) -> Self
        where
            I: Iterator,
        {
        pub fn build(self) -> Cache {
        pub fn new() -> Self {
        pub fn get(&self) -> Self {
        pub(crate) fn hidden(self) -> Self {
    ";
    assert_eq!(setters(code), ["one", "three", "two"]);
}

/// A `tracing` event.
#[derive(Debug)]
pub(crate) struct LogLine {
    pub(crate) level: String,
    pub(crate) text: String,
}

/// The events in a source file. The text of an event is the last string in its macro.
pub(crate) fn log_lines((_, code): &(String, String)) -> Vec<LogLine> {
    let mut lines = Vec::new();
    for (at, start) in code.match_indices("tracing::") {
        let rest = &code[at + start.len()..];
        let Some((level, rest)) = rest.split_once("!(") else {
            continue;
        };
        if !["error", "warn", "info", "debug"].contains(&level) {
            continue;
        }
        let strings = strings(arguments(rest));
        for text in strings
            .last()
            .map(|text| spelled_out(text, code))
            .unwrap_or_default()
        {
            let level = level.to_owned();
            lines.push(LogLine { level, text });
        }
    }
    lines
}

/// What stands before the parenthesis that closes a call.
fn arguments(code: &str) -> &str {
    let (mut depth, mut in_string) = (1, false);
    for (at, letter) in code.char_indices() {
        match letter {
            '"' => in_string = !in_string,
            '(' if !in_string => depth += 1,
            ')' if !in_string => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &code[..at];
        }
    }
    code
}

/// The strings in a piece of code, each without its line breaks.
fn strings(code: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let mut rest = code;
    while let Some((_, after)) = rest.split_once('"') {
        let Some((string, after)) = after.split_once('"') else {
            break;
        };
        let lines = string.split("\\\n").map(str::trim_start);
        strings.push(lines.collect());
        rest = after;
    }
    strings
}

/// A text that begins with another, such as `{MESSAGE}; further ones`, with each that this may be.
fn spelled_out(text: &str, code: &str) -> Vec<String> {
    let Some((name, rest)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) else {
        return vec![text.to_owned()];
    };
    let definition = ["const ", "let "]
        .iter()
        .find_map(|kind| code.split_once(&format!("{kind}{name}")))
        .unwrap_or_else(|| panic!("{name} is not defined where it is logged"))
        .1;
    let definition = &definition[..definition.find(';').unwrap()];
    let begins = strings(definition).into_iter();
    begins.map(|begin| format!("{begin}{rest}")).collect()
}

#[test]
fn log_lines_are_found_in_each_form() {
    let code = r#"
        const MESSAGE: &str = "left: alone";
        tracing::warn!(%key, error = %format_args!("{error:#}"), "one line");
        tracing::info!(
            tier,
            "in two \
             lines"
        );
        tracing::debug!(tier, "{MESSAGE}; further ones");
        _ => tracing::error!(tier, "in an arm"),
    "#;
    let lines = log_lines(&(String::new(), code.to_owned()));
    let lines: Vec<_> = lines
        .iter()
        .map(|line| (&*line.level, &*line.text))
        .collect();
    assert_eq!(
        lines,
        [
            ("warn", "one line"),
            ("info", "in two lines"),
            ("debug", "left: alone; further ones"),
            ("error", "in an arm"),
        ]
    );
}
