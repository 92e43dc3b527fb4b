//! Every public struct, enum, trait and free function has an example, or says which item has one.
//! Every public method is used in some example of the library or its guide. Methods are known by name
//! alone: one example of a name stands for all types that share it, also with the standard library.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::sources::texts;

/// Public to the compiler alone: no path leads to them.
const HIDDEN: [&str; 7] = [
    "InputStop",
    "IntoInput",
    "Located",
    "NotLocked",
    "Prepared",
    "Site",
    "Unchecked",
];

/// The kind and the name of a public item that is declared on a line of its own.
fn declared(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ")?;
    let rest = rest.strip_prefix("async ").unwrap_or(rest);
    let rest = rest
        .strip_prefix("const fn")
        .map_or(rest, |_| &rest["const ".len()..]);
    let (kind, rest) = rest.split_once(' ')?;
    let name = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    ["struct", "enum", "trait", "fn", "union"]
        .contains(&kind)
        .then(|| name.into_iter().next())?
}

/// Whether documentation has an example, or leads to one.
fn has_example(docs: &str) -> bool {
    docs.contains("```")
        || (docs.contains("for an example") || docs.contains("for a whole example"))
}

/// The items of a file that have no example.
fn without_example(text: &str) -> Vec<&str> {
    let mut docs = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push_str(doc);
            continue;
        }
        if let Some(name) = declared(line) {
            if !has_example(&docs) && !HIDDEN.contains(&name) {
                found.push(name);
            }
        }
        // Attributes may stand between the documentation and the item.
        if !line.starts_with(['#', ' ', ')']) {
            docs.clear();
        }
    }
    found
}

#[test]
fn every_public_item_has_an_example_or_leads_to_one() {
    let files = texts();
    let items = files
        .iter()
        .flat_map(|(_, text)| text.lines().filter_map(declared));
    assert!(items.count() > 120);
    let lacking: Vec<_> = files
        .iter()
        .flat_map(|(file, text)| {
            without_example(text)
                .into_iter()
                .map(move |name| (file, name))
        })
        .collect();
    assert!(lacking.is_empty(), "without an example: {lacking:#?}");
}

#[test]
fn an_item_without_an_example_is_found() {
    let text = "
/// A thing. See [`Other`] for an example.
#[derive(
    Debug,
)]
pub struct Leads;

/// Another.
pub const fn constant() {}

/// One more.
#[must_use]
pub async fn lacks() {}
pub(crate) struct Private;
pub enum Bare {}
";
    assert_eq!(without_example(text), ["constant", "lacks", "Bare"]);
}

/// The name of a function that is declared on this line, with `pub` or without.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("const ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// The public methods of a file, those that a macro declares included.
fn methods(text: &str) -> Vec<&str> {
    let (mut in_trait, mut hidden) = (false, false);
    let mut found = Vec::new();
    for line in text.lines() {
        if !line.is_empty() && !line.starts_with(' ') {
            let name = declared(line).filter(|_| line.starts_with("pub trait "));
            in_trait = name.is_some_and(|name| !HIDDEN.contains(&name));
        }
        hidden |= line.trim_start() == "#[doc(hidden)]";
        // A body is indented further than the methods of its trait.
        let is_public = match line.strip_prefix("    ") {
            Some(line) if in_trait => !line.starts_with(' '),
            Some(line) => line.trim_start().starts_with("pub "),
            None => false,
        };
        found.extend(function(line).filter(|_| is_public && !hidden));
        hidden &= !line.ends_with([';', '{', '}']);
    }
    found
}

/// The names that the examples in these lines of documentation use as methods: after a `.`, a `::`
/// or, where a trait is implemented, `fn`. Comments and imports use nothing.
fn used<'a>(docs: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    let mut language = None;
    for line in docs.map(str::trim_start) {
        if let Some(fence) = line.strip_prefix("```") {
            language = language.is_none().then_some(fence);
            continue;
        }
        let line = line.strip_prefix("# ").unwrap_or(line).trim_start();
        let is_rust = language.is_some_and(|name| ["", "no_run"].contains(&name));
        if !is_rust || line.starts_with("use ") || line.starts_with("//") {
            continue;
        }
        names.extend(function(line));
        let code = line.split(" // ").next().unwrap_or(line);
        let calls = code.split(['.', ':']).skip(1);
        let is_no_word = |letter: char| !letter.is_alphanumeric() && letter != '_';
        names.extend(calls.filter_map(|call| call.split(is_no_word).next()));
    }
    names
}

/// The documentation in a source file.
fn docs(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("///").or(line.strip_prefix("//!"))
    })
}

#[test]
fn every_public_method_is_used_in_an_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let pages = fs::read_dir(folder).unwrap();
    let pages: Vec<_> = pages
        .map(|page| fs::read_to_string(page.unwrap().path()).unwrap())
        .collect();
    let files = texts();
    let in_source = files.iter().flat_map(|(_, text)| used(docs(text)));
    let in_guide = pages.iter().flat_map(|page| used(page.lines()));
    let examples: HashSet<_> = in_source.chain(in_guide).collect();

    let methods = files
        .iter()
        .flat_map(|(file, text)| methods(text).into_iter().map(move |name| (file, name)));
    let methods: Vec<_> = methods.collect();
    assert!(methods.len() > 350);
    let unused = methods.iter().filter(|(_, name)| !examples.contains(name));
    let unused: Vec<_> = unused.collect();
    assert!(unused.is_empty(), "in no example: {unused:#?}");
}

#[test]
fn a_method_without_an_example_is_found() {
    let text = "
/// ```
/// use pipeline_cache::lacks;
/// // A comment names .lacks() as well.
/// # let name = name::<u8>();
/// let thing = Thing::new(name)?.set(1); // and not .lacks()
/// impl Seen for Thing {
///     fn required(&self) {}
/// }
/// ```
/// Text names .lacks() and `.lacks_too()`.
/// ```text
/// .lacks()
/// ```
impl Thing {
    pub const fn new(name: &str) -> Self {}
    pub fn set<T>(self, value: T) -> Self {}
    #[doc(hidden)]
    #[must_use]
    pub fn hidden() {}
    pub async fn lacks(&self) {}
    pub(crate) fn private() {}
    fn private_too() {}
}

pub trait Seen {
    fn required(&self);

    async fn lacks_too(&self) {
        fn inner() {}
    }
}

pub trait IntoInput {
    fn for_the_compiler();
}

macro_rules! settings {
    () => {
        pub fn lacks_three(&self) {}
    };
}
";
    let examples = used(docs(text));
    let mut lacking = methods(text);
    lacking.retain(|name| !examples.contains(name));
    assert_eq!(lacking, ["lacks", "lacks_too", "lacks_three"]);
}
