//! The other servers that redirects lead to.
//!
//! A connection that is kept for the next request is one more to whoever counts them, and a server
//! could redirect each lookup to another. So connections are kept to the first few only.

use reqwest::Url;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::answer::Server;

/// To how many other servers connections are kept.
const KEPT: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Others(Mutex<HashSet<String>>);

impl Others {
    /// What the server of this URL is.
    pub(super) fn server(&self, url: &Url) -> Server {
        let origin = url.origin().ascii_serialization();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.contains(&origin) {
            return Server::Other;
        }
        if kept.len() == KEPT {
            return Server::Stranger;
        }
        kept.insert(origin);
        Server::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_kept_in_mind() {
        let others = Others::default();
        let server = |host: usize| {
            let url = Url::parse(&format!("http://host{host}/entry")).unwrap();
            others.server(&url)
        };
        for _ in 0..2 {
            assert!((0..KEPT).all(|host| server(host) == Server::Other));
            assert!((KEPT..100).all(|host| server(host) == Server::Stranger));
        }
    }
}
