//! SIGHUP: the certificate, its key and the tokens are read again. All of them replace the old ones,
//! or none does. Connections go on; each request is judged by the tokens that hold when it comes.

use anyhow::Result;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::access::Tokens;
use crate::args::Args;
use crate::http_server::console::say;
use crate::site::Site;
use crate::tls::Tls;
use crate::tokens;

/// How long the files may take to be read before the next signal counts.
const READ: Duration = Duration::from_secs(10);

const KEPT: &str = "reloaded nothing, and the old certificate, key and tokens stay in use";

/// What was read.
struct Fresh {
    tokens: Option<Tokens>,
    acceptor: Option<TlsAcceptor>,
}

pub(crate) struct Reload {
    pub(crate) args: Arc<Args>,
    pub(crate) site: Arc<Site>,
    pub(crate) tls: Option<Tls>,
}

impl Reload {
    /// Reloads at each signal, until it is dropped.
    pub(crate) async fn at_each(self, mut hangups: Hangups) {
        let this = Arc::new(self);
        loop {
            hangups.next().await;
            let reload = Arc::clone(&this);
            let read = timeout(READ, spawn_blocking(move || reload.read())).await;
            match read {
                Ok(Ok(Ok(fresh))) => say(format_args!("SIGHUP: {}", this.replace(fresh))),
                Ok(Ok(Err(error))) => say(format_args!("SIGHUP: {KEPT}: {error:#}")),
                // A panic, which was told when it happened.
                Ok(Err(_)) => {}
                // What is read in the end is dropped: a later signal may have brought newer ones.
                Err(_) => say(format_args!(
                    "SIGHUP: {KEPT}: the files are not read after {READ:?}"
                )),
            }
        }
    }

    fn read(&self) -> Result<Fresh> {
        let tokens = match &self.args.tokens {
            Some(_) => Some(self.site.access.parse(&tokens(&self.args)?)?),
            None => None,
        };
        let acceptor = self.tls.as_ref().map(Tls::read).transpose()?;
        Ok(Fresh { tokens, acceptor })
    }

    /// What was reloaded.
    fn replace(&self, fresh: Fresh) -> String {
        let mut reloaded = Vec::new();
        if let (Some(file), Some(tokens)) = (&self.args.tokens, fresh.tokens) {
            let (file, number) = (file.display(), tokens.len());
            reloaded.push(format!("the tokens of {file} (now {number})"));
            self.site.access.replace(tokens);
        }
        if let (Some(tls), Some(acceptor)) = (&self.tls, fresh.acceptor) {
            tls.replace(acceptor);
            reloaded.push(tls.describe());
        }
        match reloaded.as_slice() {
            [] => "there is nothing to reload without --tokens and --tls-cert".to_owned(),
            reloaded => format!("reloaded {}", reloaded.join(", ")),
        }
    }
}

/// From the first value of this type on, SIGHUP does not end the process.
pub(crate) struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangups {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        self.signal.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}
