//! Lines on their way out of the server.
//!
//! A thread of its own writes them. Where it cannot keep up, as with a pipe that nobody reads,
//! lines are lost: no request waits for its line.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::sync::oneshot;

#[derive(Debug, Clone)]
pub(crate) struct LineWriter(SyncSender<String>);

impl LineWriter {
    /// What takes lines, of which so many may wait, and what is told once the last handle of it is
    /// dropped and the last line written.
    pub(crate) fn start(
        name: &str,
        waiting: usize,
        mut out: impl Write + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (sender, lines) = sync_channel::<String>(waiting);
        let (written, all_written) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            for mut line in lines {
                line.push('\n');
                // A reader that left wants no more of it.
                let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            }
            let _ = written.send(());
        })?;
        Ok((Self(sender), all_written))
    }

    /// Whether there was room for it.
    pub(crate) fn put(&self, line: String) -> bool {
        self.0.try_send(line).is_ok()
    }
}
