//! Every public struct, enum, trait and free function has an example, or says which item has one. A
//! method stands in the example of its type; a setting stands on the page `guide::defaults`.

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
