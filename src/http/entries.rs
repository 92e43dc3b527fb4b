//! The requests about one entry on the server, their redirects, and what each response means.
//!
//! Credentials go to the origin of the base URL and nowhere else.

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};
use std::sync::Arc;

use super::base_url;
use super::base_url::BaseUrl;
use super::client::{Connection, HttpClient, Request, Response};
use super::credentials::{CredentialHeaders, SentCredentials};
use crate::artifact::FrameError;
use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::key::PipelineFingerprint;
use crate::network::{
    AnswerProgress, Backend, ConnectionCounts, HttpStatusError, RequestError, Upload,
};
use crate::store::{Fetched, StoreErrorKind};

pub(super) struct Entries {
    pub(super) client: Arc<HttpClient>,
    /// Whether the connections of the client are those of another tier.
    pub(super) shares_client: bool,
    pub(super) base: BaseUrl,
    /// Sent to the origin of the base URL and to no other.
    pub(super) credentials: Arc<CredentialHeaders>,
    /// Whether the client shows a certificate. It would do so to every origin.
    pub(super) has_certificate: bool,
    pub(super) max_redirects: usize,
    pub(super) format: FrameFormat,
    /// The statuses of a lookup that mean that there is no such entry.
    pub(super) absent_statuses: Vec<u16>,
}

impl Backend for Entries {
    type Credentials = SentCredentials;

    fn credentials(&self) -> Result<SentCredentials, RequestError> {
        self.credentials.current()
    }

    fn version(&self, credentials: &SentCredentials) -> Option<u64> {
        let authenticates = self.has_certificate || !credentials.headers.is_empty();
        authenticates.then_some(credentials.version)
    }

    async fn download(
        &self,
        key: &PipelineFingerprint,
        credentials: SentCredentials,
        answer: &AnswerProgress,
    ) -> Result<Fetched, RequestError> {
        let get = Entry::new(Method::GET, key, &credentials);
        let (fetched, is_kept) = self.fetch(&get, answer).await?;
        if !is_kept || !is_of_another_key(&fetched) {
            return Ok(fetched);
        }
        // Either the entry is wrong, or the connection delivers the responses to other requests.
        let again = self.fetch(&get.over(Connection::New), answer).await;
        if !matches!(&again, Ok((fetched, _)) if is_of_another_key(fetched))
            && self.client.connections.replace()
        {
            tracing::warn!(
                base = %self.base, %key,
                "a kept connection delivered a frame of another key: all kept connections are given up"
            );
        }
        Ok(again?.0)
    }

    async fn upload(
        &self,
        key: &PipelineFingerprint,
        upload: &Upload,
        credentials: SentCredentials,
    ) -> Result<(), RequestError> {
        let put = Entry::new(Method::PUT, key, &credentials);
        let (status, error) = self.change(&put, Some(upload)).await?;
        if status.is_success() {
            return Ok(());
        }
        self.rejected_upload(key, error, credentials).await
    }

    async fn delete(
        &self,
        key: &PipelineFingerprint,
        credentials: SentCredentials,
    ) -> Result<bool, RequestError> {
        let delete = Entry::new(Method::DELETE, key, &credentials);
        match self.change(&delete, None).await? {
            (status, _) if status.is_success() => Ok(true),
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Ok(false),
            (_, error) => Err(error.of_a_write()),
        }
    }

    async fn probe(
        &self,
        key: &PipelineFingerprint,
        credentials: SentCredentials,
    ) -> Result<bool, RequestError> {
        let head = Entry::new(Method::HEAD, key, &credentials);
        let mut response = self.request(&head, None).await?;
        if matches!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ) {
            response.drain().await;
            // The head of the full response says the same. Of its body no more is read than keeps
            // the connection.
            let get = Entry::new(Method::GET, key, &credentials);
            response = self.request(&get, None).await?;
        }
        let found = match response.status() {
            StatusCode::OK => Ok(self.may_be_frame(&response)),
            status if self.is_absent(status) => Ok(false),
            _ => Err(response.status_error().of_a_read()),
        };
        response.drain().await;
        found
    }

    /// Not by HEAD: proxies were seen to keep its empty response for the entry.
    async fn check_health(
        &self,
        key: &PipelineFingerprint,
        credentials: SentCredentials,
    ) -> Result<(), RequestError> {
        let get = Entry::new(Method::GET, key, &credentials);
        let response = self.request(&get, None).await?;
        let status = response.status();
        if status == StatusCode::OK {
            return response.read_start(HEADER_LEN).await;
        }
        let error = response.status_error();
        response.drain().await;
        match self.is_absent(status) {
            true => Ok(()),
            false => Err(error.of_a_read()),
        }
    }

    fn format(&self) -> &FrameFormat {
        &self.format
    }

    fn in_folder(&self, folder: &str) -> Self {
        Self {
            client: Arc::clone(&self.client),
            shares_client: true,
            base: self.base.folder(folder),
            credentials: Arc::clone(&self.credentials),
            has_certificate: self.has_certificate,
            max_redirects: self.max_redirects,
            format: self.format.clone(),
            absent_statuses: self.absent_statuses.clone(),
        }
    }

    fn connection_counts(&self) -> ConnectionCounts {
        if self.shares_client {
            return ConnectionCounts::default();
        }
        let connections = &self.client.connections;
        ConnectionCounts {
            repeated: connections.repeated.get(),
            replaced: connections.replaced.get(),
        }
    }
}

/// What is asked about an entry, and as whom.
#[derive(Clone)]
struct Entry<'a> {
    method: Method,
    key: &'a PipelineFingerprint,
    credentials: &'a SentCredentials,
    connection: Connection,
}

impl<'a> Entry<'a> {
    const fn new(
        method: Method,
        key: &'a PipelineFingerprint,
        credentials: &'a SentCredentials,
    ) -> Self {
        Self {
            method,
            key,
            credentials,
            connection: Connection::Kept,
        }
    }

    fn over(&self, connection: Connection) -> Self {
        Self {
            connection,
            ..self.clone()
        }
    }
}

fn is_of_another_key(fetched: &Fetched) -> bool {
    matches!(fetched, Fetched::Corrupt(FrameError::OtherFingerprint))
}

impl Entries {
    /// What one request finds, and whether it came over a connection that may have served others.
    async fn fetch(
        &self,
        get: &Entry<'_>,
        answer: &AnswerProgress,
    ) -> Result<(Fetched, bool), RequestError> {
        let response = self.request(get, None).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let error = response.status_error();
            response.drain().await;
            return match self.is_absent(status) {
                true => Ok((Fetched::Miss, false)),
                false => Err(error.of_a_read()),
            };
        }
        answer.signal();
        if let Some(encoding) = response.encoding() {
            response.drain().await;
            let reason = FrameError::ContentEncoded(encoding);
            return Ok((Fetched::Corrupt(reason), false));
        }
        let is_kept = response.is_over_kept_connection();
        let Some(frame) = response.read(self.format.max_frame(), answer).await? else {
            return Ok((Fetched::Corrupt(FrameError::TooLarge), is_kept));
        };
        let fetched = match self.format.decode_blocking(get.key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            Err(reason) => Fetched::Corrupt(reason),
        };
        Ok((fetched, is_kept))
    }

    /// The response to one request about a key, after redirects. Its body is still to be read.
    async fn request(
        &self,
        entry: &Entry<'_>,
        upload: Option<&Upload>,
    ) -> Result<Response, RequestError> {
        let method = &entry.method;
        let mut url = self.base.entry(entry.key);
        // Once another origin was asked, no credentials are sent any more, even where that origin
        // points back: the request is then of its making.
        let mut is_base_origin = true;
        for _ in 0..=self.max_redirects {
            let headers = match is_base_origin {
                true => entry.credentials.headers.clone(),
                false => HeaderMap::new(),
            };
            let request = Request {
                method,
                url: &url,
                headers,
                upload,
                is_base_origin,
                connection: entry.connection,
            };
            let response = self.client.send(request).await?;
            let status = response.status();
            if !status.is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION);
            let Some(target) = target(method, status, &url, location)? else {
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

    /// The status of the response to a request that changes the entry, and the error where that is
    /// not a success. The body is of no use.
    async fn change(
        &self,
        entry: &Entry<'_>,
        upload: Option<&Upload>,
    ) -> Result<(StatusCode, HttpStatusError), RequestError> {
        let response = self.request(entry, upload).await?;
        let answer = (response.status(), response.status_error());
        response.drain().await;
        Ok(answer)
    }

    fn is_absent(&self, status: StatusCode) -> bool {
        self.absent_statuses.contains(&status.as_u16())
    }

    /// Whether the body is as it was stored, and the announced length, if there is one, is that of a
    /// frame.
    fn may_be_frame(&self, response: &Response) -> bool {
        if response.encoding().is_some() {
            return false;
        }
        let length = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        length.is_none_or(|length| self.format.may_be_frame(length))
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
