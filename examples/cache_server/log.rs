//! What the library logs of an object store: failures, once until it works again. The lines go the way
//! of those to the operator.

use std::io;

use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::http_server::console;

pub(crate) fn start() -> Result<(), TryInitError> {
    // Errors of the folder are told where they are answered.
    let of_store = Targets::new()
        .with_target("pipeline_cache::network", Level::INFO)
        .with_target("pipeline_cache::layered", Level::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_writer(|| Lines)
        .with_filter(of_store);
    tracing_subscriber::registry().with(lines).try_init()
}

/// Takes one line a call.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        console::say(String::from_utf8_lossy(line).trim());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
