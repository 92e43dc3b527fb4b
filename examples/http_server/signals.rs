//! The signals that stop the server.

use std::io;
use std::time::Duration;
#[cfg(unix)]
use tokio::signal::unix::SignalKind;

use super::console::{self, say};

/// How long the last log line may take to be written before the process exits.
const LOG_FLUSH: Duration = Duration::from_secs(1);

/// Ends with the first signal to stop. The second ends the process, with this code.
pub(crate) fn stop(code: u8) -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::new()?;
    Ok(async move {
        signals.next().await;
        say("stopping");
        tokio::spawn(async move {
            signals.next().await;
            say("stopping at once");
            console::finish(LOG_FLUSH).await;
            std::process::exit(code.into());
        });
    })
}

/// From the first value of this type on, the signals do nothing but end `next`.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
