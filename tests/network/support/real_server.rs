//! Real servers are tested where they are installed, and must be where the tests are the gate.

use std::path::{Path, PathBuf};

/// Where a program is. Where it is not installed the test is to pass over it, except under
/// `CI=true`: there it fails.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are often not on the path of those who do not administer the machine.
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate: &PathBuf| Path::is_file(candidate));
    if found.is_none() {
        let gate = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!gate, "{program} is not installed, and CI=true demands it");
        println!("skipped: {program} is not installed");
    }
    found
}
