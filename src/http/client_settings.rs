//! From what the `reqwest` clients of one tier are built.
//!
//! They follow no redirects: `entries` does, because credentials of every form, not only the
//! well-known headers, must stay with the origin that they were given for.

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect};
use std::time::Duration;

const USER_AGENT: &str = concat!("pipeline-cache/", env!("CARGO_PKG_VERSION"));

/// Below the 60 to 75 seconds after which most servers close an idle connection, so that a request
/// rarely runs into a connection that is just closing.
pub(super) const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// HTTP/2 connections are pinged, idle or not: nothing else tells a dead one from a quiet one.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What the clients are built from.
pub(super) struct ClientSettings {
    pub(super) is_plain_http: bool,
    pub(super) proxy_from_environment: bool,
    pub(super) http2_prior_knowledge: bool,
    pub(super) extra_roots: Vec<Certificate>,
    pub(super) identity: Option<Identity>,
    pub(super) connect_timeout: Duration,
    pub(super) inactivity_timeout: Duration,
    /// The most idle connections that are kept to one origin.
    pub(super) max_idle: usize,
}

impl ClientSettings {
    /// A client that keeps connections. Reads the platform's root certificates.
    pub(super) fn pooled(&self) -> Result<Client, reqwest::Error> {
        self.client(self.max_idle)
    }

    /// A client that closes each connection after its request.
    pub(super) fn unpooled(&self) -> Result<Client, reqwest::Error> {
        self.client(0)
    }

    /// A machine without root certificates can still ask a plain HTTP server.
    fn client(&self, max_idle: usize) -> Result<Client, reqwest::Error> {
        match self.prepare(max_idle).build() {
            Err(_) if self.is_plain_http => self.prepare(max_idle).tls_certs_only([]).build(),
            built => built,
        }
    }

    fn prepare(&self, max_idle: usize) -> ClientBuilder {
        // The frame is verified as stored, so it must not be transformed on the way, whatever
        // features of reqwest another crate switches on.
        let identity = HeaderValue::from_static("identity");
        let mut client = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, identity)]))
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .redirect(redirect::Policy::none())
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(max_idle)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .tls_certs_merge(self.extra_roots.iter().cloned());
        if let Some(identity) = &self.identity {
            client = client.identity(identity.clone());
        }
        if self.http2_prior_knowledge {
            client = client.http2_prior_knowledge();
        }
        if !self.proxy_from_environment {
            client = client.no_proxy();
        }
        client
    }
}
