//! An HTTP status that does not answer the request, and what it means.
//!
//! Nothing of the response is repeated but its status: a server may echo secrets.

use std::time::{Duration, SystemTime};

use super::request_error::RequestError;
use crate::store::StoreErrorKind;

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("HTTP status {status}")]
pub(crate) struct HttpStatusError {
    pub(crate) status: u16,
    retry_after: Option<Duration>,
    /// Whether it is from the origin that got the credentials.
    is_base_origin: bool,
    /// What helps where a server answers, and knows nothing of a cache at this place.
    base_url_hint: &'static str,
}

impl HttpStatusError {
    /// `retry_after` is the value of the header of that name.
    pub(crate) fn new(status: u16, retry_after: Option<&str>) -> Self {
        Self {
            retry_after: retry_after
                .and_then(|value| parse_retry_after(value.trim(), SystemTime::now())),
            status,
            is_base_origin: true,
            base_url_hint: "",
        }
    }

    /// `false`: from another origin, which got no credentials.
    #[cfg(feature = "remote-cache")]
    pub(crate) const fn with_base_origin(mut self, is_base_origin: bool) -> Self {
        self.is_base_origin = is_base_origin;
        self
    }

    /// Where the place is a URL that somebody has given.
    #[cfg(feature = "remote-cache")]
    pub(crate) const fn with_base_url_hint(mut self) -> Self {
        self.base_url_hint =
            "; check the path of the base URL, which for a cache_server ends in /artifacts";
        self
    }

    /// Whether it may mean that the entry exists already, on a server that writes each entry once.
    /// To WebDAV a conflict is a missing folder.
    pub(crate) fn may_exist_already(self) -> bool {
        matches!(self.status, 409 | 412)
    }

    /// The error of a write that the server says conflicts with an entry that is not there: it was
    /// being written, or removed, at the same time. The same write may well succeed.
    pub(crate) fn of_a_passing_conflict(self) -> RequestError {
        let reason = format!("{self}, and the server has no such entry");
        RequestError::new(StoreErrorKind::Unavailable, reason).into_rejection()
    }

    /// The error of a request that would have changed nothing.
    pub(crate) fn of_a_read(self) -> RequestError {
        let kind = match self.status {
            401 | 403 | 407 => StoreErrorKind::PermissionDenied,
            413 => StoreErrorKind::TooLarge,
            507 => StoreErrorKind::StorageFull,
            408 | 425 | 429 | 500..=599 => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Protocol,
        };
        let reason = match self.status {
            400 => format!(
                "{self}: the server does not understand the request{}",
                self.base_url_hint
            ),
            _ => self.to_string(),
        };
        let mut error = RequestError::new(kind, reason);
        error.retry_after = self.retry_after;
        match self.status {
            401 | 403 if self.is_base_origin => error.blocking_credentials().with_hint(
                " If the server answers so for absent entries, add the status to absent_statuses",
            ),
            // Too early or too much for now: the server is overloaded.
            408 | 425 | 429 => error,
            // About the one entry: a server that can say so works.
            400..=499 => error.into_rejection(),
            _ => error,
        }
    }

    /// The error of a request that would have changed the server.
    pub(crate) fn of_a_write(self) -> RequestError {
        let kind = match self.status {
            // 404 of an entry that is not there yet is no fault: it is the folder that is missing.
            400 | 404 => StoreErrorKind::Protocol,
            405 | 501 => StoreErrorKind::ReadOnly,
            401 | 403 => return self.of_a_read().with_hint(" They may allow reads alone"),
            _ => return self.of_a_read(),
        };
        let reason = format!(
            "{self}: the server refused the write, which is not offered again{}",
            self.base_url_hint
        );
        RequestError::new(kind, reason).into_rejection()
    }
}

/// The time to wait: a number of seconds, or until a date.
fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let parsed = |value| parse_retry_after(value, now).map(|time| time.as_secs());
        assert_eq!(parsed("0"), Some(0));
        assert_eq!(parsed("120"), Some(120));
        assert_eq!(parsed("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0));
        for nonsense in [
            "",
            "-1",
            "+1",
            "1.5",
            "soon",
            "Sun, 99 Nov 1994 08:49:07 GMT",
        ] {
            assert_eq!(parsed(nonsense), None, "{nonsense}");
        }
    }
}
