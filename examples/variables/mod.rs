//! Environment variables that look like settings of a program and are none: most are misspelt.

use clap::Command;
use std::collections::BTreeSet;

/// Names that are less alike than this are taken for different words. The limit of clap for flags.
const ALIKE: f64 = 0.7;

/// A warning for each variable that begins with the prefix and is neither one of a flag nor among
/// the others. It shows no value, which may be a secret.
pub(crate) fn warnings(command: &Command, prefix: &str, others: &[&str]) -> Vec<String> {
    let set = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let set: BTreeSet<String> = set.filter(|name| name.starts_with(prefix)).collect();
    let mut known: BTreeSet<String> = others.iter().map(|&name| name.to_owned()).collect();
    add_flags(command, &mut known);
    let unknown = set.difference(&known);
    let unknown = unknown.filter(|name| !is_of_kubernetes(&set, prefix, name));
    unknown.map(|name| warning(name, prefix, &known)).collect()
}

fn add_flags(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|flag| flag.get_env());
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    for command in command.get_subcommands() {
        add_flags(command, known);
    }
}

/// For a service named `cache-server`, Kubernetes gives each container variables such as
/// `CACHE_SERVER_SERVICE_HOST` and `CACHE_SERVER_PORT_8420_TCP`.
fn is_of_kubernetes(set: &BTreeSet<String>, prefix: &str, name: &str) -> bool {
    let rest = &name[prefix.len()..];
    set.contains(&format!("{prefix}SERVICE_HOST"))
        && (rest.starts_with("SERVICE_") || rest == "PORT" || rest.starts_with("PORT_"))
}

fn warning(name: &str, prefix: &str, known: &BTreeSet<String>) -> String {
    // All names have the prefix, which would make any two of them alike.
    let likeness = |known: &str| strsim::jaro(&name[prefix.len()..], &known[prefix.len()..]);
    let known = known.iter().map(|known| (likeness(known), known));
    let nearest = known.max_by(|(one, _), (other, _)| one.total_cmp(other));
    let hint = match nearest {
        Some((likeness, nearest)) if likeness > ALIKE => format!("did you mean {nearest}?"),
        _ => "see --help for those that are".to_owned(),
    };
    format!("the environment variable {name} is not known and is ignored: {hint}")
}
