//! The `reqwest` client of a store, from the options that its builder was given.
//!
//! The client that the `object_store` crate makes follows redirects, and with them sends headers
//! such as `x-amz-security-token` to whatever server they name. This one follows none.

use object_store::client::ClientConfigKey as Key;
use object_store::{ClientOptions, Error};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy};
use std::error::Error as StdError;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use crate::http_client::client_builder;
use crate::sync::blocking;

type Reason = Box<dyn StdError + Send + Sync>;

/// A client with these options that follows no redirect and asks for bodies as they were stored.
pub(super) fn client(options: &ClientOptions) -> Result<Client, Error> {
    let client = Options(options)
        .builder()
        .and_then(|builder| Ok(builder.build()?));
    client.map_err(|source| Error::Generic {
        store: "HTTP client",
        source,
    })
}

struct Options<'a>(&'a ClientOptions);

impl Options<'_> {
    fn builder(&self) -> Result<ClientBuilder, Reason> {
        let mut client = self
            .proxied(client_builder())?
            .https_only(!self.is_set(Key::AllowHttp)?)
            .tls_danger_accept_invalid_certs(self.is_set(Key::AllowInvalidCertificates)?)
            .http2_keep_alive_while_idle(self.is_set(Key::Http2KeepAliveWhileIdle)?)
            .http2_max_frame_size(self.parsed::<u32>(Key::Http2MaxFrameSize)?);
        if let Some(agent) = self.text(Key::UserAgent) {
            client = client.user_agent(agent);
        }
        if let Some(time) = self.time(Key::PoolIdleTimeout)? {
            client = client.pool_idle_timeout(time);
        }
        if self.is_set(Key::NoSystemCertificates)? {
            client = client.tls_certs_only([]);
        }
        if let Some(time) = self.time(Key::Timeout)? {
            client = client.timeout(time);
        }
        if let Some(time) = self.time(Key::ConnectTimeout)? {
            client = client.connect_timeout(time);
        }
        if let Some(time) = self.time(Key::ReadTimeout)? {
            client = client.read_timeout(time);
        }
        if let Some(most) = self.parsed(Key::PoolMaxIdlePerHost)? {
            client = client.pool_max_idle_per_host(most);
        }
        if let Some(time) = self.time(Key::Http2KeepAliveInterval)? {
            client = client.http2_keep_alive_interval(time);
        }
        if let Some(time) = self.time(Key::Http2KeepAliveTimeout)? {
            client = client.http2_keep_alive_timeout(time);
        }
        if self.is_set(Key::Http1Only)? {
            client = client.http1_only();
        }
        if self.is_set(Key::Http2Only)? {
            client = client.http2_prior_knowledge();
        }
        if self.is_set(Key::RandomizeAddresses)? {
            client = client.dns_resolver(Shuffled);
        }
        Ok(client)
    }

    fn proxied(&self, mut client: ClientBuilder) -> Result<ClientBuilder, Reason> {
        let Some(url) = self.text(Key::ProxyUrl) else {
            return Ok(client);
        };
        if let Some(pem) = self.text(Key::ProxyCaCertificate) {
            client = client.tls_certs_merge([Certificate::from_pem(pem.as_bytes())?]);
        }
        let mut proxy = Proxy::all(url)?;
        if let Some(hosts) = self.text(Key::ProxyExcludes) {
            proxy = proxy.no_proxy(NoProxy::from_string(&hosts));
        }
        Ok(client.proxy(proxy))
    }

    fn text(&self, key: Key) -> Option<String> {
        self.0.get_config_value(&key)
    }

    fn parsed<T: FromStr<Err: Into<Reason>>>(&self, key: Key) -> Result<Option<T>, Reason> {
        let value = self.text(key).map(|value| value.trim().parse());
        value.transpose().map_err(Into::into)
    }

    fn time(&self, key: Key) -> Result<Option<Duration>, Reason> {
        let value = self
            .text(key)
            .map(|value| humantime::parse_duration(&value));
        Ok(value.transpose()?)
    }

    /// As the `object_store` crate reads switches.
    fn is_set(&self, key: Key) -> Result<bool, Reason> {
        let value = self.text(key).unwrap_or_default().to_ascii_lowercase();
        match value.as_str() {
            "1" | "true" | "on" | "yes" | "y" => Ok(true),
            "" | "0" | "false" | "off" | "no" | "n" => Ok(false),
            _ => Err(format!("{}: neither true nor false", key.as_ref()).into()),
        }
    }
}

/// Looks names up in the system, and spreads connections over the addresses that it returns.
struct Shuffled;

impl Resolve for Shuffled {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = blocking::blocking(move || (name.as_str(), 0).to_socket_addrs()).await?;
            let mut addresses: Vec<SocketAddr> = found.collect();
            fastrand::shuffle(&mut addresses);
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
