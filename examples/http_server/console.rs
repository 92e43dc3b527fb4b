//! What the server says to whoever runs it, apart from the access log.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::counters::Counter;
use super::line_writer::LineWriter;

/// From `start` to `finish`.
static CONSOLE: Mutex<Option<Console>> = Mutex::new(None);

static LOST: Counter = Counter::new();

struct Console {
    program: &'static str,
    lines: LineWriter,
    all_written: oneshot::Receiver<()>,
}

fn console() -> MutexGuard<'static, Option<Console>> {
    CONSOLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on things can be said, panics among them. Each begins with the name of the program.
/// So many may wait to be written; what comes beyond them is lost.
pub(crate) fn start(program: &'static str, waiting: usize) -> io::Result<()> {
    let (lines, all_written) = LineWriter::start("console", waiting, io::stderr())?;
    *console() = Some(Console {
        program,
        lines,
        all_written,
    });
    std::panic::set_hook(Box::new(|panic| say(panic)));
    Ok(())
}

/// A line on the standard error. Nobody waits for it to be read.
pub(crate) fn say(line: impl Display) {
    let put = |said: &Console| said.lines.put(format!("{}: {line}", said.program));
    if !console().as_ref().is_some_and(put) {
        LOST.increment();
    }
}

/// How many lines could not be said.
pub(crate) fn lost() -> u64 {
    LOST.get()
}

/// Waits until all that was said is written, for as long as this at most. Nothing is said after it.
pub(crate) async fn finish(limit: Duration) {
    let said = console().take();
    if let Some(Console {
        lines, all_written, ..
    }) = said
    {
        drop(lines);
        let _ = timeout(limit, all_written).await;
    }
}

/// A line on the standard output, once the server is ready. One that nobody reads any more is no
/// reason to fail, let alone to panic, as the macro of the standard library does.
pub(crate) fn announce(line: impl Display) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
