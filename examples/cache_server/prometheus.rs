//! The text form that Prometheus reads.

use std::fmt::{Display, Write as _};

#[derive(Default)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP cache_server_{name} {help}"));
        self.line(format_args!("# TYPE cache_server_{name} {kind}"));
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &str, value: u64) {
        if labels.is_empty() {
            self.line(format_args!("cache_server_{name} {value}"));
        } else {
            self.line(format_args!("cache_server_{name}{{{labels}}} {value}"));
        }
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, line: impl Display) {
        // A string takes all that is written to it.
        let _ = writeln!(self.0, "{line}");
    }
}
