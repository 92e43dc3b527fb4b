//! One question to the server and its answer: the client, credentials, redirects and the limits
//! on time that belong to a single request.
//!
//! Redirects are followed here and not by the client, because credentials of every form, not
//! only the well-known headers, must stay with the server they were given for.

use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Method, StatusCode, Url, redirect};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OnceCell};
use tokio::time::sleep;

use super::answer::{Answer, Server};
use super::base_url::{self, BaseUrl};
use super::connections::{self, Connections};
use super::credentials::CredentialHeaders;
use super::download;
use super::others::Others;
use super::places::Places;
use super::upload;
use crate::network::{Failure, Upload};
use crate::off_worker;
use crate::{PipelineFingerprint, StoreErrorKind};

/// Below the 60 to 75 seconds after which most servers close an idle connection, so that no
/// request runs into one that is just closing.
const IDLE_CONNECTION: Duration = Duration::from_secs(50);

/// HTTP/2 connections are probed, idle or not: nothing else tells a dead one from a quiet one.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a client is built from.
#[derive(Clone)]
pub(super) struct ClientSettings {
    pub(super) connections: Connections,
    pub(super) is_plain_http: bool,
    pub(super) proxy_from_environment: bool,
    pub(super) http2_prior_knowledge: bool,
    pub(super) extra_roots: Vec<Certificate>,
    pub(super) identity: Option<Identity>,
}

impl ClientSettings {
    /// Builds a client that keeps up to so many idle connections to each server. It reads the
    /// platform's root certificates.
    ///
    /// A machine without any can still ask a plain HTTP server.
    pub(super) fn build(&self, idle: usize) -> Result<Client, reqwest::Error> {
        match self.prepare(idle).build() {
            Err(_) if self.is_plain_http => self.prepare(idle).tls_certs_only([]).build(),
            built => built,
        }
    }

    fn prepare(&self, idle: usize) -> ClientBuilder {
        let client = Client::builder()
            .user_agent(concat!("pipeline-cache/", env!("CARGO_PKG_VERSION")))
            .default_headers(default_headers())
            .redirect(redirect::Policy::none())
            .connector_layer(self.connections.clone())
            .pool_max_idle_per_host(idle)
            .pool_idle_timeout(IDLE_CONNECTION)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .tls_certs_merge(self.extra_roots.iter().cloned());
        let client = match &self.identity {
            Some(identity) => client.identity(identity.clone()),
            None => client,
        };
        let client = if self.http2_prior_knowledge {
            client.http2_prior_knowledge()
        } else {
            client
        };
        if self.proxy_from_environment {
            client
        } else {
            client.no_proxy()
        }
    }
}

/// Of every request.
fn default_headers() -> HeaderMap {
    // The frame is verified as stored, so nobody is to transform it on the way.
    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}

pub(super) struct Transport {
    pub(super) client: Client,
    pub(super) settings: ClientSettings,
    /// As the other, but keeps no connections. There seldom is a need for it.
    pub(super) passing: OnceCell<Client>,
    pub(super) others: Others,
    pub(super) connections: Connections,
    /// To the base's own server.
    pub(super) home: Arc<Places>,
    pub(super) base: BaseUrl,
    /// Sent to the base's own server and no other.
    pub(super) credentials: CredentialHeaders,
    /// Whether the client shows a certificate, which it does to whatever server it talks to.
    pub(super) has_certificate: bool,
    pub(super) inactivity_timeout: Duration,
    pub(super) max_redirects: usize,
}

impl Transport {
    /// The answer to one question about a key, after redirects. Its body is still to be read.
    pub(super) async fn ask(
        &self,
        method: Method,
        key: &PipelineFingerprint,
        upload: Option<&Upload>,
    ) -> Result<Answer, Failure> {
        let mut url = self.base.entry(key);
        let mut places = Arc::clone(&self.home);
        // Whoever is asked after another server was is asked without credentials, even where
        // that server points back: the question is no longer ours.
        let mut at_home = true;
        for _ in 0..=self.max_redirects {
            let server = match at_home {
                true => Server::Home,
                false => self.others.server(&url),
            };
            let answer = self.ask_at(&method, url, places, upload, server).await?;
            match redirect_target(&method, &answer)? {
                None => return Ok(answer),
                Some(target) => url = target,
            }
            download::drain(answer).await;
            places = self.connections.places(&url);
            at_home &= self.base.same_origin(&url);
            if self.has_certificate && !at_home {
                return Err(Failure::new(
                    StoreErrorKind::Protocol,
                    "a redirect to another server, which must not be shown the client certificate",
                ));
            }
        }
        Err(Failure::new(
            StoreErrorKind::Protocol,
            format!("more than {} redirects", self.max_redirects),
        ))
    }

    async fn client(&self, server: Server) -> Result<&Client, Failure> {
        if server != Server::Stranger {
            return Ok(&self.client);
        }
        let build = || async {
            let settings = self.settings.clone();
            off_worker::blocking(move || settings.build(0)).await
        };
        Ok(self.passing.get_or_try_init(build).await?)
    }

    /// One request, given up when nothing moves for a while.
    async fn ask_at(
        &self,
        method: &Method,
        url: Url,
        places: Arc<Places>,
        upload: Option<&Upload>,
        server: Server,
    ) -> Result<Answer, Failure> {
        let client = self.client(server).await?;
        let mut request = client.request(method.clone(), url);
        if server == Server::Home {
            request = request.headers(self.credentials.current()?.0);
        }
        let mut progress = None;
        if let Some(upload) = upload {
            let progress = progress.insert(Arc::new(Notify::new()));
            request = request
                .header(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/octet-stream"),
                )
                .body(upload::body(upload, progress));
        }
        let moves = || async {
            match &progress {
                Some(progress) => progress.notified().await,
                None => pending().await,
            }
        };
        let answer = connections::ask(places, request.send());
        tokio::pin!(answer);
        loop {
            tokio::select! {
                // A runtime that was held up finds everything ready at once: what came counts
                // before the time it took.
                biased;
                answer = &mut answer => {
                    let (response, lease) = answer?;
                    return Ok(Answer::new(response, lease, server));
                }
                () = moves() => {}
                () = sleep(self.inactivity_timeout) => {
                    return Err(Failure::timed_out("no answer came", self.inactivity_timeout));
                }
            }
        }
    }
}

/// Where an answer sends the question, if it does and may.
fn redirect_target(method: &Method, answer: &Answer) -> Result<Option<Url>, Failure> {
    let location = answer.headers().get(LOCATION);
    target(method, answer.status(), answer.url(), location)
}

fn target(
    method: &Method,
    status: StatusCode,
    from: &Url,
    location: Option<&HeaderValue>,
) -> Result<Option<Url>, Failure> {
    let follows = match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        // These may turn another method into a GET: only a read is repeated.
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            matches!(*method, Method::GET | Method::HEAD)
        }
        _ => false,
    };
    if !follows {
        return Ok(None);
    }
    let refused = |reason| Failure::new(StoreErrorKind::Protocol, reason);
    let target = location
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| refused("a redirect without a usable location"))?;
    if !base_url::is_http(&target) {
        return Err(refused("a redirect to what is neither http nor https"));
    }
    if from.scheme() == "https" && target.scheme() != "https" {
        return Err(refused("a redirect from https to http"));
    }
    if base_url::has_credentials(&target) {
        return Err(refused("a redirect to a URL with credentials in it"));
    }
    Ok(Some(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(method: Method, status: u16, from: &str, to: &'static str) -> Result<String, String> {
        let status = StatusCode::from_u16(status).unwrap();
        let from = Url::parse(from).unwrap();
        let location = HeaderValue::from_static(to);
        match target(&method, status, &from, Some(&location)) {
            Ok(target) => Ok(target.map(String::from).unwrap_or_default()),
            Err(failure) => Err(failure.to_string()),
        }
    }

    #[test]
    fn a_redirect_goes_where_it_says_and_never_to_less_safety() {
        let get = |from, to| follow(Method::GET, 302, from, to);
        assert_eq!(get("http://a/b/c", "d").unwrap(), "http://a/b/d");
        assert_eq!(get("http://a/b", "//c/d").unwrap(), "http://c/d");
        assert_eq!(get("http://a/", "https://a/").unwrap(), "https://a/");
        assert_eq!(get("https://a/", "https://b/").unwrap(), "https://b/");

        let refused = |from, to| get(from, to).unwrap_err();
        assert!(refused("https://a/", "http://a/").contains("https to http"));
        assert!(refused("https://a/", "http://b/").contains("https to http"));
        assert!(refused("http://a/", "file:///etc/passwd").contains("neither"));
        assert!(refused("http://a/", "javascript:alert(1)").contains("neither"));
        assert!(refused("http://a/", "http://user:pw@b/").contains("credentials"));
        assert!(refused("http://a/", "http://[").contains("usable"));
    }

    #[test]
    fn a_write_is_only_repeated_where_it_stays_a_write() {
        for (method, status, follows) in [
            (Method::GET, 301, true),
            (Method::HEAD, 303, true),
            (Method::GET, 307, true),
            (Method::GET, 300, false),
            (Method::GET, 304, false),
            (Method::GET, 200, false),
            (Method::PUT, 301, false),
            (Method::PUT, 302, false),
            (Method::DELETE, 303, false),
            (Method::PUT, 307, true),
            (Method::DELETE, 308, true),
        ] {
            let target = follow(method.clone(), status, "http://a/", "/b").unwrap();
            assert_eq!(!target.is_empty(), follows, "{method} {status}");
        }
    }

    #[test]
    fn a_redirect_to_nowhere_is_an_error() {
        let from = Url::parse("http://a/").unwrap();
        let garbage = HeaderValue::from_bytes(b"\xff\xfe").unwrap();
        for location in [None, Some(&garbage)] {
            let target = target(&Method::GET, StatusCode::FOUND, &from, location);
            assert!(target.unwrap_err().to_string().contains("usable"));
        }
    }
}
