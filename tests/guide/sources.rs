//! The library's own source text.

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file of the library, by its path below `src`, without its comments.
pub(crate) fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        (name.replace('\\', "/"), code_of(&path))
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

fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
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
