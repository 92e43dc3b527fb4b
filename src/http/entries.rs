//! The requests about one entry on the server, their redirects, and what each response means.
//!
//! Credentials go to the origin of the base URL and nowhere else.

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use super::base_url;
use super::base_url::BaseUrl;
use super::client::{HttpClient, Request, Response};
use super::credentials::CredentialHeaders;
use crate::artifact::FrameError;
use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::key::PipelineFingerprint;
use crate::network::{
    AnswerBegan, Backend, CredentialsVersion, HttpStatusError, RequestError, Upload,
};
use crate::store::{Fetched, StoreErrorKind};

pub(super) struct Entries {
    pub(super) client: HttpClient,
    pub(super) base: BaseUrl,
    /// Sent to the origin of the base URL and to no other.
    pub(super) credentials: CredentialHeaders,
    /// Whether the client shows a certificate. It would do so to every origin.
    pub(super) has_certificate: bool,
    pub(super) max_redirects: usize,
    pub(super) format: FrameFormat,
    /// The statuses of a lookup that mean that there is no such entry.
    pub(super) absent_statuses: Vec<u16>,
}

impl Backend for Entries {
    async fn download(
        &self,
        key: &PipelineFingerprint,
        answer: &AnswerBegan,
    ) -> Result<Fetched, RequestError> {
        let response = self.request(Method::GET, key, None).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let error = response.status_error();
            response.drain().await;
            return if self.is_absent(status) {
                Ok(Fetched::Miss)
            } else {
                Err(error.of_a_read())
            };
        }
        answer.signal();
        let limit = self.format.max_frame();
        let Some(frame) = response.read(limit).await? else {
            return Ok(Fetched::Corrupt(FrameError::TooLarge));
        };
        Ok(match self.format.decode_blocking(key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            Err(reason) => Fetched::Corrupt(reason),
        })
    }

    async fn upload(&self, key: &PipelineFingerprint, upload: &Upload) -> Result<(), RequestError> {
        let (status, error) = self.change(Method::PUT, key, Some(upload)).await?;
        if status.is_success() {
            return Ok(());
        }
        self.rejected_upload(key, error).await
    }

    async fn delete(&self, key: &PipelineFingerprint) -> Result<bool, RequestError> {
        match self.change(Method::DELETE, key, None).await? {
            (status, _) if status.is_success() => Ok(true),
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => Ok(false),
            (_, error) => Err(error.of_a_write()),
        }
    }

    async fn probe(&self, key: &PipelineFingerprint) -> Result<bool, RequestError> {
        let mut response = self.request(Method::HEAD, key, None).await?;
        if matches!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ) {
            response.drain().await;
            // The head of the full response says the same. Of its body no more is read than keeps
            // the connection.
            response = self.request(Method::GET, key, None).await?;
        }
        let found = match response.status() {
            StatusCode::OK => Ok(self.may_be_frame(&response)),
            status if self.is_absent(status) => Ok(false),
            _ => Err(response.status_error().of_a_read()),
        };
        response.drain().await;
        found
    }

    fn format(&self) -> &FrameFormat {
        &self.format
    }
}

impl CredentialsVersion for Entries {
    fn version(&self) -> Result<Option<u64>, RequestError> {
        let version = self.credentials.version()?;
        Ok((self.has_certificate || version.is_some()).then(|| version.unwrap_or_default()))
    }
}

impl Entries {
    /// The response to one request about a key, after redirects. Its body is still to be read.
    async fn request(
        &self,
        method: Method,
        key: &PipelineFingerprint,
        upload: Option<&Upload>,
    ) -> Result<Response, RequestError> {
        let mut url = self.base.entry(key);
        // Once another origin was asked, no credentials are sent any more, even where that origin
        // points back: the request is then of its making.
        let mut is_base_origin = true;
        for _ in 0..=self.max_redirects {
            let headers = match is_base_origin {
                true => self.credentials.headers()?,
                false => HeaderMap::new(),
            };
            let request = Request {
                method: &method,
                url: &url,
                headers,
                upload,
                is_base_origin,
            };
            let response = self.client.send(request).await?;
            let status = response.status();
            if !status.is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION);
            let Some(target) = target(&method, status, &url, location)? else {
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
        method: Method,
        key: &PipelineFingerprint,
        upload: Option<&Upload>,
    ) -> Result<(StatusCode, HttpStatusError), RequestError> {
        let response = self.request(method, key, upload).await?;
        let answer = (response.status(), response.status_error());
        response.drain().await;
        Ok(answer)
    }

    fn is_absent(&self, status: StatusCode) -> bool {
        self.absent_statuses.contains(&status.as_u16())
    }

    /// Whether the announced length, if there is one, is that of a frame.
    fn may_be_frame(&self, response: &Response) -> bool {
        let length = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        length.is_none_or(|length| (HEADER_LEN as u64..=self.format.max_frame()).contains(&length))
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
