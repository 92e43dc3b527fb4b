//! Signals to the servers that the tests start.

use std::process::{Child, Command};

/// Sends a process a signal: `STOP` freezes a server, `CONT` thaws it.
pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.unwrap().success());
}
