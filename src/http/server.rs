//! The servers that are asked: how a request to one of them looks, and the connections to it.
//!
//! The base's own server is one, and those that redirects lead to are others. A connection that is
//! kept for the next request is one more to whoever counts them, and a server could redirect each
//! lookup to another. So connections are kept to the first few others only.

use hyper::http::uri::{Authority, Parts, PathAndQuery, Scheme};
use hyper::{Request, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION};
use reqwest::{Method, Url};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::connection::Connection;
use super::dial::Dialer;
use super::pool::{Limits, Pool};
use super::upload::RequestBody;
use crate::network::RequestError;
use crate::store::StoreErrorKind;

/// To how many other servers connections are kept.
const KEPT: usize = 8;

/// One server. Not to be printed: it may hold what a proxy is to be shown.
pub(super) struct Server {
    pub(super) pool: Arc<Pool>,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// What a proxy on the way to it wants to see that is told of each request.
    proxy_authorization: Option<HeaderValue>,
}

/// What all servers have in common.
pub(super) struct Servers {
    dialer: Arc<Dialer>,
    /// The most connections to one of them.
    most: usize,
    /// As the environment names them, if they are used.
    proxies: Option<Matcher>,
    /// By scheme, host and port: a connection to one of them is of no use for another.
    others: Mutex<HashMap<String, Arc<Server>>>,
}

impl Servers {
    pub(super) fn new(dialer: Dialer, most: usize, proxies: Option<Matcher>) -> Self {
        Self {
            dialer: Arc::new(dialer),
            most,
            proxies,
            others: Mutex::default(),
        }
    }

    /// The server of a URL, to which connections are kept.
    pub(super) fn home(&self, url: &Url) -> Result<Arc<Server>, RequestError> {
        self.server(url, true)
    }

    /// The server that a redirect leads to.
    pub(super) fn other(&self, url: &Url) -> Result<Arc<Server>, RequestError> {
        let origin = url.origin().ascii_serialization();
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = others.get(&origin) {
            return Ok(Arc::clone(server));
        }
        // Those to which no connections are kept are kept in mind as long as there are some.
        others.retain(|_, server| {
            server.pool.keeps() || Arc::strong_count(server) > 1 || !server.pool.is_empty()
        });
        let kept = others.values().filter(|server| server.pool.keeps());
        let server = self.server(url, kept.count() < KEPT)?;
        others.insert(origin, Arc::clone(&server));
        Ok(server)
    }

    fn server(&self, url: &Url, keeps: bool) -> Result<Arc<Server>, RequestError> {
        let mut url = url.clone();
        url.set_path("/");
        url.set_query(None);
        url.set_fragment(None);
        let uri: Uri = url.as_str().parse().map_err(unusable)?;
        let proxy = self.proxies.as_ref().and_then(|all| all.intercept(&uri));
        // Through a tunnel, the proxy is asked while the connection is opened.
        let proxy_authorization = proxy
            .filter(|_| url.scheme() == "http")
            .and_then(|proxy| proxy.basic_auth().cloned());
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(unusable("no host"));
        };
        let dialer = Arc::clone(&self.dialer);
        let host = HeaderValue::from_str(authority.as_str()).map_err(unusable)?;
        let limits = Limits {
            most: self.most,
            keeps,
            may_share: dialer.http2_prior_knowledge || url.scheme() == "https",
        };
        let pool = Pool::new(limits, move |place| {
            let (dialer, url) = (Arc::clone(&dialer), url.clone());
            async move { Connection::start(dialer.dial(&url).await?, place).await }
        });
        Ok(Arc::new(Server {
            pool,
            scheme,
            authority,
            host,
            proxy_authorization,
        }))
    }
}

impl Server {
    /// A request as it goes over a connection.
    pub(super) fn request(
        &self,
        connection: &Connection,
        method: Method,
        path: PathAndQuery,
        mut headers: HeaderMap,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, RequestError> {
        let mut uri = Parts::default();
        uri.path_and_query = Some(path);
        if connection.is_shared() || connection.is_proxied {
            uri.scheme = Some(self.scheme.clone());
            uri.authority = Some(self.authority.clone());
        }
        if !connection.is_shared() {
            headers.entry(HOST).or_insert_with(|| self.host.clone());
        }
        if connection.is_proxied {
            if let Some(authorization) = &self.proxy_authorization {
                let sent = headers.entry(PROXY_AUTHORIZATION);
                sent.or_insert_with(|| authorization.clone());
            }
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(uri).map_err(unusable)?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Of a URL that HTTP has no place for.
fn unusable(reason: impl ToString) -> RequestError {
    RequestError::new(
        StoreErrorKind::Protocol,
        format!("the URL cannot be asked for: {}", reason.to_string()),
    )
}
