//! Gives the programs their version: that of the package, and the commit of the checkout that it is
//! built from, if there is one.

use std::path::Path;
use std::process::Command;

fn main() {
    let package = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match commit() {
        Some(commit) => format!("{package} ({commit})"),
        None => package,
    };
    println!("cargo:rustc-env=TOOLS_VERSION={version}");
    println!("cargo:rerun-if-changed=build.rs");
    for path in moved_with_head() {
        println!("cargo:rerun-if-changed={path}");
    }
}

/// The commit and its date. None where the sources lie in no checkout, or in one of something else.
fn commit() -> Option<String> {
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    let plain = "log.showSignature=false";
    git(&["-c", plain, "log", "-1", "--abbrev=10", "--format=%h %cs"])
}

/// The files of git that change when another commit is checked out or made. Cargo takes one that is
/// missing for changed at each build.
fn moved_with_head() -> Vec<String> {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let names = ["HEAD".to_owned(), "logs/HEAD".to_owned()];
    names
        .into_iter()
        .chain(branch)
        .filter_map(|name| git(&["rev-parse", "--git-path", &name]))
        .filter(|path| Path::new(path).exists())
        .collect()
}

/// What git prints. None where git is missing or fails, as outside of a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
