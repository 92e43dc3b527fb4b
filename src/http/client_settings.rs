//! From what the `reqwest` clients of one tier are built.
//!
//! They follow no redirects: `entries` does, because credentials of every form, not only the
//! well-known headers, must stay with the origin that they were given for.

use reqwest::{Certificate, Client, ClientBuilder, Identity};
use std::time::Duration;

use crate::http_client::client_builder;

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
        let mut client = client_builder()
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(max_idle)
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
