//! What is logged: one line for each request, and what the library has to say. The lines go the
//! way of those to the operator, where nobody waits for them to be read.

use std::io;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::http_server::console;

/// The layer takes what is for others than the log.
pub(crate) fn start(
    levels: Targets,
    layer: impl Layer<Registry> + Send + Sync,
) -> Result<(), TryInitError> {
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(|| Lines)
        .with_filter(levels);
    tracing_subscriber::registry()
        .with(layer)
        .with(lines)
        .try_init()
}

/// Takes one line a call.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        console::say(String::from_utf8_lossy(line).trim_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
