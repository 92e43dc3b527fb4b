//! One request to the server and its answer: credentials, redirects and the limits on time that
//! belong to a single request.
//!
//! Redirects are followed here and not by the client, because credentials of every form, not
//! only the well-known headers, must stay with the server they were given for.

use hyper::http::uri::PathAndQuery;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, USER_AGENT,
};
use reqwest::{Method, StatusCode, Url};
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

use super::answer::Answer;
use super::base_url;
use super::base_url::BaseUrl;
use super::credentials::CredentialHeaders;
use super::dial::AGENT;
use super::download;
use super::inactivity::Inactivity;
use super::server::{Server, Servers};
use super::upload::RequestBody;
use crate::key::PipelineFingerprint;
use crate::network::{RequestError, Upload};
use crate::store::StoreErrorKind;

/// How often a request is made again that the server says it did nothing with.
const REPEATS: usize = 2;

pub(super) struct Transport {
    pub(super) servers: Servers,
    /// The base's own.
    pub(super) home: Arc<Server>,
    pub(super) base: BaseUrl,
    /// Sent with every request.
    pub(super) headers: HeaderMap,
    /// Sent to the base's own server and no other.
    pub(super) credentials: CredentialHeaders,
    /// Whether a certificate is shown, which is to whatever server is talked to.
    pub(super) has_certificate: bool,
    pub(super) inactivity_timeout: Duration,
    pub(super) max_redirects: usize,
}

/// What is sent with every request.
pub(super) fn default_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (USER_AGENT, HeaderValue::from_static(AGENT)),
        (ACCEPT, HeaderValue::from_static("*/*")),
        // The frame is verified as stored, so nobody is to transform it on the way.
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ])
}

/// A request as one server is asked it.
struct Request<'a> {
    method: &'a Method,
    path: PathAndQuery,
    upload: Option<&'a Upload>,
    /// Whether it is the base's own server that is asked, and it was from the start: whoever is
    /// asked after another server was is asked without credentials, even where that server points
    /// back, for the request is no longer ours.
    is_home: bool,
}

impl Transport {
    /// The answer to one request about a key, after redirects. Its body is still to be read.
    pub(super) async fn ask(
        &self,
        method: Method,
        key: &PipelineFingerprint,
        upload: Option<&Upload>,
    ) -> Result<Answer, RequestError> {
        let mut server = Arc::clone(&self.home);
        let mut request = Request {
            method: &method,
            path: self.base.path(key)?,
            upload,
            is_home: true,
        };
        let mut redirected = None;
        for _ in 0..=self.max_redirects {
            let answer = self.ask_at(&server, &request).await?;
            let status = answer.status();
            if !status.is_redirection() {
                return Ok(answer);
            }
            let from = redirected.unwrap_or_else(|| self.base.entry(key));
            let Some(url) = target(&method, status, &from, answer.headers().get(LOCATION))? else {
                return Ok(answer);
            };
            download::drain(answer).await;
            let is_same = self.base.same_origin(&url);
            request.is_home &= is_same;
            if self.has_certificate && !request.is_home {
                return Err(RequestError::new(
                    StoreErrorKind::Protocol,
                    "a redirect to another server, which must not be shown the client certificate",
                ));
            }
            server = match is_same {
                true => Arc::clone(&self.home),
                false => self.servers.other(&url)?,
            };
            request.path = base_url::path_and_query(&url)?;
            redirected = Some(url);
        }
        Err(RequestError::new(
            StoreErrorKind::Protocol,
            format!("more than {} redirects", self.max_redirects),
        ))
    }

    /// One request, given up when nothing moves for a while.
    async fn ask_at(&self, server: &Server, request: &Request<'_>) -> Result<Answer, RequestError> {
        let progress = request
            .upload
            .map(|upload| (upload, Arc::new(Notify::new())));
        let mut asking = pin!(async {
            let mut repeats = 0;
            loop {
                let mut lease = server.pool.lease().await?;
                let body = progress.as_ref().map(RequestBody::of).unwrap_or_default();
                let headers = self.headers(request)?;
                let (method, path) = (request.method.clone(), request.path.clone());
                let request = server.request(&lease.connection, method, path, headers, body)?;
                match lease.connection.send(request).await {
                    Ok(response) => return Ok((response, lease)),
                    // The server had closed the connection since its last request.
                    Err(unanswered) if unanswered.is_unsent && lease.connection.is_used => {}
                    // Or it closes one that others use too, and has not come to this request.
                    Err(unanswered) if unanswered.is_unprocessed && repeats < REPEATS => {
                        repeats += 1;
                    }
                    Err(unanswered) => return Err(unanswered.failure),
                }
            }
        });
        let mut inactivity = Inactivity::new(self.inactivity_timeout);
        loop {
            let moves = async {
                match &progress {
                    Some((_, progress)) => progress.notified().await,
                    None => pending().await,
                }
            };
            let step = async {
                tokio::select! {
                    biased;
                    answer = &mut asking => Some(answer),
                    () = moves => None,
                }
            };
            match inactivity.limits("no answer came", step).await? {
                None => inactivity.moves(),
                Some(answer) => {
                    let (response, lease) = answer?;
                    return Ok(Answer::new(response, lease, inactivity, request.is_home));
                }
            }
        }
    }

    fn headers(&self, request: &Request<'_>) -> Result<HeaderMap, RequestError> {
        let mut headers = self.headers.clone();
        if request.upload.is_some() {
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            );
        }
        if request.is_home {
            headers.extend(self.credentials.current()?.0);
        }
        Ok(headers)
    }
}

/// Where an answer sends the request, if it does and may.
fn target(
    method: &Method,
    status: StatusCode,
    from: &Url,
    location: Option<&HeaderValue>,
) -> Result<Option<Url>, RequestError> {
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
    let refused = |reason| RequestError::new(StoreErrorKind::Protocol, reason);
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
