//! What the server says to whoever runs it, apart from the access log.

use std::fmt::Display;
use std::io::Write as _;

/// A line on the standard error. One that nobody reads any more is no reason to fail, let alone to
/// panic, as the macro of the standard library does.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "cache_server: {line}");
}

/// A line on the standard output, likewise.
pub(crate) fn announce(line: impl Display) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
