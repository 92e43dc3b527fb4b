//! The oldest Rust that each feature needs is said once, and the manifest and the README agree.

use std::collections::BTreeMap;

const MANIFEST: &str = include_str!("../../Cargo.toml");
const README: &str = include_str!("../../README.md");
const PAGE: &str = include_str!("../../src/guide/compatibility.md");

/// From each feature to its Rust, as the table in the guide says. `none` is the library itself.
fn table() -> BTreeMap<&'static str, &'static str> {
    let (_, table) = PAGE.split_once("# The oldest Rust").unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    let rows = rows.flat_map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, features, rust, _] = cells[..] else {
            panic!("{row}")
        };
        features
            .split(", ")
            .map(move |feature| (feature.trim_matches('`'), rust))
    });
    rows.collect()
}

#[test]
fn every_feature_has_its_oldest_rust_and_the_readme_agrees() {
    let table = table();
    let base = table["none"];
    assert!(MANIFEST.contains(&format!("rust-version = \"{base}\"")));
    assert!(README.contains(&format!("The library needs Rust {base}.")));
    let (_, features) = MANIFEST.split_once("[features]").unwrap();
    let (features, _) = features.split_once("\n[").unwrap();
    let features = features.lines().filter(|line| !line.starts_with('#'));
    let features = features.filter_map(|line| line.split_once(" = "));
    let mut found = 0;
    for (feature, _) in features.filter(|(feature, _)| *feature != "default") {
        let rust = table.get(feature);
        let rust =
            rust.unwrap_or_else(|| panic!("the guide does not say which Rust {feature} needs"));
        let row = format!("| `{feature}` |");
        let row = README.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("the README does not describe {feature}"));
        let is_said = row.contains(&format!("({rust}")) && row.contains("Needs the Rust");
        assert_eq!(is_said, *rust != base, "{feature}: the README says: {row}");
        found += 1;
    }
    assert_eq!(found, table.len() - 1, "{table:?}");
}
