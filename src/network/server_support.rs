//! Whether a server has what not every server has, such as compile leases, as far as it is known.

use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

use crate::sync::lock::lock;

/// How long a server that does not have it is not asked for it.
pub(crate) const ASK_AGAIN: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(crate) struct ServerSupport(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// It is not asked before this.
    ask_again: Option<Instant>,
    /// Whether it was said.
    is_said: bool,
}

impl ServerSupport {
    /// Whether it is not to be asked.
    pub(crate) fn is_missing(&self) -> bool {
        let ask_again = lock(&self.0).ask_again;
        ask_again.is_some_and(|at| Instant::now() < at)
    }

    pub(crate) fn is_there(&self) {
        lock(&self.0).ask_again = None;
    }

    /// It does not have it. Whether that is to be said, which it is once.
    #[must_use]
    pub(crate) fn missing(&self) -> bool {
        let mut state = lock(&self.0);
        state.ask_again = Some(Instant::now() + ASK_AGAIN);
        !std::mem::replace(&mut state.is_said, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_have_it_is_asked_again_and_it_is_said_once() {
        let support = ServerSupport::default();
        assert!(!support.is_missing());
        assert!(support.missing());
        assert!(support.is_missing());
        advance(ASK_AGAIN).await;
        assert!(!support.is_missing());
        assert!(!support.missing());
        support.is_there();
        assert!(!support.is_missing());
    }
}
