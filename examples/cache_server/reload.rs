//! SIGHUP: the certificate, its key and the tokens are read again. All of them replace the old ones,
//! or none does. Connections go on; each request is judged by the tokens that hold when it comes.

use anyhow::Result;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::args::Args;
use crate::http_server::console::say;
use crate::site::Site;
use crate::tls::Tls;
use crate::tokens;

/// How long the files may take to be read before the next signal counts.
const READ: Duration = Duration::from_secs(10);

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
            // It reads files.
            match timeout(READ, spawn_blocking(move || reload.run())).await {
                Ok(Ok(Ok(done))) => say(format_args!("SIGHUP: {done}")),
                Ok(Ok(Err(error))) => say(format_args!(
                    "SIGHUP: reloaded nothing, and the old certificate, key and tokens stay in use: \
                     {error:#}"
                )),
                // A panic, which was told when it happened.
                Ok(Err(_)) => {}
                Err(_) => say(format_args!(
                    "SIGHUP: the files are not read after {READ:?}; the old certificate, key and tokens \
                     stay in use until they are"
                )),
            }
        }
    }

    /// What was reloaded.
    fn run(&self) -> Result<String> {
        let access = &self.site.access;
        let tokens = match &self.args.tokens {
            Some(file) => Some((file, access.parse(&tokens(&self.args)?)?)),
            None => None,
        };
        let acceptor = self.tls.as_ref().map(Tls::read).transpose()?;
        // Nothing fails from here on.
        let mut reloaded = Vec::new();
        if let Some((file, tokens)) = tokens {
            let (file, number) = (file.display(), tokens.len());
            reloaded.push(format!("the tokens of {file} (now {number})"));
            access.replace(tokens);
        }
        if let (Some(tls), Some(acceptor)) = (&self.tls, acceptor) {
            tls.replace(acceptor);
            reloaded.push(tls.describe());
        }
        Ok(match reloaded.as_slice() {
            [] => "there is nothing to reload without --tokens and --tls-cert".to_owned(),
            reloaded => format!("reloaded {}", reloaded.join(", ")),
        })
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
