//! An answer to one request: its head, the body that is still to be read, and what becomes of the
//! connection that it came over.

use bytes::Bytes;
use reqwest::header::{CONNECTION, HeaderMap};
use reqwest::{Response, StatusCode, Url, Version};

use super::connections::Lease;
use super::places::End;
use crate::network::Refusal;

/// Until it is dropped it counts as under way. Read to its end, it leaves its connection to the
/// next request.
#[derive(Debug)]
pub(super) struct Answer {
    response: Response,
    lease: Lease,
    server: Server,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// The base's own, which was shown the credentials.
    Home,
    /// Another that a redirect leads to.
    Other,
    /// One of too many others for their connections to be kept.
    Stranger,
}

impl Answer {
    pub(super) fn new(response: Response, mut lease: Lease, server: Server) -> Self {
        if response.version() == Version::HTTP_2 {
            lease.ends(End::Shared);
        }
        Self {
            response,
            lease,
            server,
        }
    }

    /// What it is, if it is none to the question.
    pub(super) fn refusal(&self) -> Refusal {
        let refusal = Refusal::new(self.status(), self.headers());
        match self.server {
            Server::Home => refusal,
            Server::Other | Server::Stranger => refusal.by_another(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// That was asked.
    pub(super) fn url(&self) -> &Url {
        self.response.url()
    }

    /// Of the body, as far as it was announced.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next part of the body; none at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, reqwest::Error> {
        let chunk = self.response.chunk().await?;
        let is_kept = self.server != Server::Stranger;
        if chunk.is_none() && is_kept && comes_back(self.response.version(), self.headers()) {
            self.lease.ends(End::Returns);
        }
        Ok(chunk)
    }
}

/// Whether the connection of an answer is good for another, as it says or as is the rule: it was
/// not before HTTP/1.1. That of HTTP/2 never was away.
fn comes_back(version: Version, headers: &HeaderMap) -> bool {
    let says = |wanted: &str| {
        let how = headers.get_all(CONNECTION).iter();
        let mut how = how.filter_map(|how| how.to_str().ok());
        how.any(|how| {
            how.split(',')
                .any(|one| one.trim().eq_ignore_ascii_case(wanted))
        })
    };
    match version {
        Version::HTTP_11 => !says("close"),
        Version::HTTP_09 | Version::HTTP_10 => says("keep-alive") && !says("close"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn a_connection_comes_back_as_the_answer_says_or_as_is_the_rule() {
        let old = Version::HTTP_10;
        for (version, says, expected) in [
            (Version::HTTP_11, &[][..], true),
            (Version::HTTP_11, &["keep-alive"], true),
            (Version::HTTP_11, &["Close"], false),
            (Version::HTTP_11, &["upgrade, close"], false),
            (Version::HTTP_11, &["upgrade", "close"], false),
            (old, &[], false),
            (old, &["Keep-Alive"], true),
            (old, &["keep-alive, close"], false),
            (Version::HTTP_2, &[], false),
        ] {
            let mut headers = HeaderMap::new();
            for says in says {
                headers.append(CONNECTION, HeaderValue::from_static(says));
            }
            assert_eq!(
                comes_back(version, &headers),
                expected,
                "{version:?} {headers:?}"
            );
        }
    }
}
