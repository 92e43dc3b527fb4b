//! One line for each request, on the standard output.
//!
//! A thread of its own writes them. Where it cannot keep up, as with a pipe that nobody reads,
//! lines are lost and counted: no request waits for its line.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// How many lines may wait.
const WAITING: usize = 4096;

#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    lines: Option<SyncSender<String>>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// The log, and what is told once the last handle of the log is dropped and the last line
    /// written.
    pub(crate) fn start(metrics: Arc<Metrics>) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (sender, lines) = sync_channel::<String>(WAITING);
        let (written, all_written) = oneshot::channel();
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        thread.spawn(move || {
            let mut out = std::io::stdout();
            for mut line in lines {
                line.push('\n');
                // A reader that left wants no more of it.
                let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            }
            let _ = written.send(());
        })?;
        let log = Self {
            lines: Some(sender),
            metrics,
        };
        Ok((log, all_written))
    }

    pub(crate) const fn off(metrics: Arc<Metrics>) -> Self {
        Self {
            lines: None,
            metrics,
        }
    }

    pub(crate) fn line(&self, line: impl FnOnce() -> String) {
        let Some(lines) = &self.lines else { return };
        if lines.try_send(line()).is_err() {
            self.metrics.log_lines_lost.increment();
        }
    }
}
