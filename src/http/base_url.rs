//! A checked base URL, and the URL of each key below it.
//!
//! The base URL is printed in traces and errors, so one that could hold a secret is not accepted.

use reqwest::Url;
use std::fmt;

use super::RemoteCacheError;
use crate::key::PipelineFingerprint;

/// The HTTP library rejects URLs beyond 64 KiB, and most servers reject much shorter ones.
const MAX_BYTES: usize = 32 * 1024;

/// An `http` or `https` URL without credentials, query or fragment. Its path ends in a slash.
#[derive(Clone)]
pub(super) struct BaseUrl(Url);

impl BaseUrl {
    pub(super) fn parse(text: &str) -> Result<Self, RemoteCacheError> {
        let mut url = Url::parse(text).map_err(|error| RemoteCacheError::InvalidUrl {
            reason: match text.contains("://") {
                true => error.to_string(),
                false => "it begins with neither http:// nor https://".to_owned(),
            },
        })?;
        if !is_http(&url) {
            return Err(RemoteCacheError::UnsupportedScheme);
        }
        if has_credentials(&url) {
            return Err(RemoteCacheError::CredentialsInUrl);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(RemoteCacheError::QueryOrFragmentInUrl);
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        if url.as_str().len() > MAX_BYTES {
            return Err(RemoteCacheError::InvalidUrl {
                reason: format!("longer than {MAX_BYTES} bytes"),
            });
        }
        Ok(Self(url))
    }

    /// `<base>/<64 hex digits>.bin`
    pub(super) fn entry(&self, key: &PipelineFingerprint) -> Url {
        let mut url = self.0.clone();
        url.set_path(&[self.0.path(), &key.hex(), ".bin"].concat());
        url
    }

    /// `<base>/batch`
    pub(super) fn batch(&self) -> Url {
        let mut url = self.0.clone();
        url.set_path(&[self.0.path(), "batch"].concat());
        url
    }

    /// `<base>/leases/<64 hex digits>`
    pub(super) fn lease(&self, key: &PipelineFingerprint) -> Url {
        let mut url = self.0.clone();
        url.set_path(&[self.0.path(), "leases/", &key.hex()].concat());
        url
    }

    /// The folder of this name below it.
    pub(super) fn folder(&self, name: &str) -> Self {
        let mut url = self.0.clone();
        url.set_path(&[self.0.path(), name, "/"].concat());
        Self(url)
    }

    /// Whether a URL has the same origin: equal scheme, host and port.
    pub(super) fn same_origin(&self, url: &Url) -> bool {
        self.0.origin() == url.origin()
    }

    pub(super) fn is_plain_http(&self) -> bool {
        self.0.scheme() == "http"
    }
}

pub(super) fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

pub(super) fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0xab; 32]);

    #[test]
    fn an_entry_stands_below_the_base_with_or_without_its_last_slash() {
        for (base, shown, folder) in [
            ("http://h", "http://h", "http://h/"),
            (
                "https://h:8443/a/b/",
                "https://h:8443/a/b",
                "https://h:8443/a/b/",
            ),
            (
                "http://[::1]:80/a%20b",
                "http://[::1]/a%20b",
                "http://[::1]/a%20b/",
            ),
            ("HTTP://H/a/../b", "http://h/b", "http://h/b/"),
        ] {
            let base = BaseUrl::parse(base).unwrap();
            assert_eq!(base.to_string(), shown);
            assert_eq!(base.entry(&KEY).as_str(), format!("{folder}{KEY}.bin"));
            let lease = base.lease(&KEY);
            assert_eq!(lease.as_str(), format!("{folder}leases/{KEY}"));
            assert_eq!(base.batch().as_str(), format!("{folder}batch"));
            let aliases = base.folder("aliases").entry(&KEY);
            assert_eq!(aliases.as_str(), format!("{folder}aliases/{KEY}.bin"));
        }
    }

    #[test]
    fn an_invalid_base_is_rejected_without_being_repeated() {
        for (base, expected) in [
            ("", "neither http:// nor https://"),
            ("hunter2", "neither http:// nor https://"),
            ("http://", "empty host"),
            ("http://user:hunter2@h:port/", "invalid port number"),
            ("hunter2://h/", "neither http nor https"),
            ("file:///etc/hunter2", "neither http nor https"),
            ("http://user:hunter2@h/", "credentials"),
            ("https://hunter2@h/", "credentials"),
            ("http://h/?token=hunter2", "query"),
            ("http://h/#hunter2", "query"),
        ] {
            let error = BaseUrl::parse(base).unwrap_err();
            let texts = format!("{error} {error:?}");
            assert!(texts.contains(expected), "{base}: {texts}");
            assert!(!texts.contains("hunter2"), "{base}: {texts}");
        }
    }

    #[test]
    fn another_port_or_scheme_is_another_server() {
        let base = BaseUrl::parse("https://h/cache").unwrap();
        let same = |url: &str| base.same_origin(&Url::parse(url).unwrap());
        assert!(same("https://h:443/elsewhere"));
        assert!(!same("http://h/cache/"));
        assert!(!same("https://h:8443/cache/"));
        assert!(!same("https://h.example.com/cache/"));
    }
}
