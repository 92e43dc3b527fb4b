//! A server below a base URL: one request to it, and its redirects.
//!
//! Credentials go to the origin of the base URL and nowhere else.

use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};
use std::sync::Arc;

use super::base_url;
use super::base_url::BaseUrl;
use super::client::{Connection, HttpClient, Request, Response};
use super::credentials::{CredentialHeaders, SentCredentials};
use crate::network::{RequestError, Upload};
use crate::store::StoreErrorKind;

#[derive(Clone)]
pub(super) struct Server {
    pub(super) client: Arc<HttpClient>,
    pub(super) base: BaseUrl,
    /// Sent to the origin of the base URL and to no other.
    pub(super) credentials: Arc<CredentialHeaders>,
    /// Whether the client shows a certificate. It would do so to every origin.
    pub(super) has_certificate: bool,
    pub(super) max_redirects: usize,
}

/// What is asked.
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    pub(super) url: Url,
    /// Besides the credentials. Sent to the origin of the base URL and to no other.
    pub(super) headers: HeaderMap,
    pub(super) upload: Option<&'a Upload>,
    pub(super) connection: Connection,
}

impl Server {
    /// The folder of this name below it.
    pub(super) fn folder(&self, name: &str) -> Self {
        Self {
            base: self.base.folder(name),
            ..self.clone()
        }
    }

    /// The version of these credentials. `None` where there are none.
    pub(super) fn version(&self, credentials: &SentCredentials) -> Option<u64> {
        let authenticates = self.has_certificate || !credentials.headers.is_empty();
        authenticates.then_some(credentials.version)
    }

    /// The response to one request, after redirects. Its body is still to be read.
    pub(super) async fn request(
        &self,
        ask: Ask<'_>,
        credentials: &SentCredentials,
    ) -> Result<Response, RequestError> {
        let mut url = ask.url;
        let mut own_headers = ask.headers;
        own_headers.extend(credentials.headers.clone());
        // Once another origin was asked, no credentials are sent any more, even where that origin
        // points back: the request is then of its making.
        let mut is_base_origin = true;
        for _ in 0..=self.max_redirects {
            let headers = match is_base_origin {
                true => own_headers.clone(),
                false => HeaderMap::new(),
            };
            let request = Request {
                method: ask.method,
                url: &url,
                headers,
                upload: ask.upload,
                is_base_origin,
                connection: ask.connection,
            };
            let response = self.client.send(request).await?;
            let status = response.status();
            if !status.is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION);
            let Some(target) = target(ask.method, status, &url, location)? else {
                return Ok(response);
            };
            response.drain().await;
            is_base_origin &= self.base.same_origin(&target);
            if self.has_certificate && !is_base_origin {
                return Err(RequestError::new(
                    StoreErrorKind::Protocol,
                    "redirected to another origin, which must not see the client certificate",
                ));
            }
            url = target;
        }
        Err(RequestError::new(
            StoreErrorKind::Protocol,
            format!("more than {} redirects", self.max_redirects),
        ))
    }
}

/// Where a response sends the request on to. `None` where it does not, or not this method.
fn target(
    method: &Method,
    status: StatusCode,
    from: &Url,
    location: Option<&HeaderValue>,
) -> Result<Option<Url>, RequestError> {
    let follows = match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        // These may turn another method into a GET: only reads follow them.
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            matches!(*method, Method::GET | Method::HEAD)
        }
        _ => false,
    };
    if !follows {
        return Ok(None);
    }
    let invalid = |reason| RequestError::new(StoreErrorKind::Protocol, reason);
    let target = location
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| invalid("redirected without a usable location"))?;
    if !base_url::is_http(&target) {
        return Err(invalid(
            "redirected to a URL that is neither http nor https",
        ));
    }
    if from.scheme() == "https" && target.scheme() != "https" {
        return Err(invalid("redirected from https to http"));
    }
    if base_url::has_credentials(&target) {
        return Err(invalid("redirected to a URL with credentials in it"));
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
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_redirect_goes_where_it_says_and_never_to_less_safety() {
        let get = |from, to| follow(Method::GET, 302, from, to);
        assert_eq!(get("http://a/b/c", "d").unwrap(), "http://a/b/d");
        assert_eq!(get("http://a/b", "//c/d").unwrap(), "http://c/d");
        assert_eq!(get("http://a/", "https://a/").unwrap(), "https://a/");
        assert_eq!(get("https://a/", "https://b/").unwrap(), "https://b/");

        let rejected = |from, to| get(from, to).unwrap_err();
        assert!(rejected("https://a/", "http://a/").contains("https to http"));
        assert!(rejected("https://a/", "http://b/").contains("https to http"));
        assert!(rejected("http://a/", "file:///etc/passwd").contains("neither"));
        assert!(rejected("http://a/", "javascript:alert(1)").contains("neither"));
        assert!(rejected("http://a/", "http://user:pw@b/").contains("credentials"));
        assert!(rejected("http://a/", "http://[").contains("usable"));
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
    fn a_redirect_without_a_valid_location_is_an_error() {
        let from = Url::parse("http://a/").unwrap();
        let garbage = HeaderValue::from_bytes(b"\xff\xfe").unwrap();
        for location in [None, Some(&garbage)] {
            let target = target(&Method::GET, StatusCode::FOUND, &from, location);
            assert!(target.unwrap_err().to_string().contains("usable"));
        }
    }
}
