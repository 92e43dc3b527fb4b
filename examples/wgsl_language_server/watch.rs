//! What the server looks at from time to time: the remote cache, and the process that started it.

use std::sync::Arc;
use std::time::Duration;

use lsp_types::MessageType;
use pipeline_cache::{PipelineCacheStore, RemoteCache};
use tokio::time::{MissedTickBehavior, interval};

use crate::server::Server;

/// How soon the user is told. A look costs less than a microsecond.
const REMOTE: Duration = Duration::from_millis(250);

#[cfg(unix)]
const CLIENT: Duration = Duration::from_secs(1);

/// Tells the user when the remote cache is out, and when it is back.
pub(crate) async fn watch_remote(server: Arc<Server>, remote: RemoteCache) {
    let mut ticks = interval(REMOTE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Known spellings are asked for apart from artifacts, and for more often.
    let aliases = remote.alias_stores();
    let mut was_out = false;
    loop {
        ticks.tick().await;
        let is_open = |store: &dyn PipelineCacheStore| store.metrics().breakers_open > 0;
        let is_out = is_open(&remote) || aliases.iter().any(|store| is_open(store));
        if is_out == was_out {
            continue;
        }
        was_out = is_out;
        let (kind, what) = match is_out {
            true => (
                MessageType::Warning,
                "is out: shaders are checked and compiled on this machine alone",
            ),
            false => (MessageType::Info, "is back"),
        };
        server.client.show(kind, format!("{remote} {what}")).await;
    }
}

/// Ends when the process with this number has ended: its pipes may outlive it in another process.
#[cfg(unix)]
pub(crate) async fn client_has_ended(process: Option<i32>) {
    let process = process.and_then(rustix::process::Pid::from_raw);
    let Some(process) = process else {
        return std::future::pending().await;
    };
    let mut ticks = interval(CLIENT);
    loop {
        ticks.tick().await;
        if rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH) {
            return;
        }
    }
}

#[cfg(not(unix))]
pub(crate) async fn client_has_ended(_process: Option<i32>) {
    std::future::pending().await
}
