//! One line for each request, on the standard output. Those that are lost are counted.

use std::sync::Arc;
use tokio::sync::oneshot;

use crate::http_server::line_writer::LineWriter;
use crate::metrics::Metrics;

/// How many lines may wait.
const WAITING: usize = 4096;

#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    lines: Option<LineWriter>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// The log, and what is told once the last handle of the log is dropped and the last line
    /// written.
    pub(crate) fn start(metrics: Arc<Metrics>) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (lines, all_written) = LineWriter::start("access-log", WAITING, std::io::stdout())?;
        let log = Self {
            lines: Some(lines),
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
        if !lines.put(line()) {
            self.metrics.log_lines_lost.increment();
        }
    }
}
