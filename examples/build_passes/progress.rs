//! The progress bar: on stderr, and only where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for one stage of the work. Gone from the screen when dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(stage: &str, steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64).with_prefix(stage.to_owned());
        // The default style shows no text; it is better than none should this one be wrong.
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>16} [{bar:32}] {pos:>3}/{len} {wide_msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    /// Shows what is being worked on, and counts it.
    pub(crate) fn start(&self, name: &str) {
        self.bar.set_message(name.to_owned());
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
