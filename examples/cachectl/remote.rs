//! The other side of a push or a pull: an HTTP server, or an object store.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use futures::stream::BoxStream;
use pipeline_cache::{
    PipelineCacheStore, PipelineFingerprint, RemoteCache, RemoteCacheError, StoreError,
    StoreErrorKind, TrustedKeys,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::input::{self, without_mark};
use crate::settings::Settings;
use crate::store_url;

/// What the hint is known by, also in an error of the library.
const BASE_URL: &str = "ends in /artifacts";
const HINT: &str = "if this is a cache_server, its base URL ends in /artifacts";

/// The variables of the environment that name a store's credentials are those of the library.
#[derive(Debug, Args)]
pub(crate) struct RemoteOptions {
    /// The URL of the remote, as the users of the cache have it: http:// or https://, or, in a build
    /// with the feature object-store, s3://, gs://, az:// or file://, with credentials from the
    /// environment
    url: String,
    /// A file with the bearer token for an HTTP remote
    #[arg(long, value_name = "FILE", env = "CACHECTL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Artifacts that are on their way at once, each of them in memory
    #[arg(
        long,
        value_name = "N",
        default_value = "16",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    concurrency: u16,
}

pub(crate) struct Remote {
    pub(crate) store: Arc<dyn PipelineCacheStore>,
    pub(crate) name: String,
    /// Where it can be listed.
    keys: Option<Keys>,
    /// Where the token of an HTTP remote is from, for messages.
    token_origin: Option<String>,
}

pub(crate) type Listing = BoxStream<'static, Result<PipelineFingerprint, StoreError>>;
type Keys = Box<dyn Fn() -> Listing + Send + Sync>;

impl RemoteOptions {
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency.into()
    }

    /// Requests at once: writes take half of them.
    fn requests(&self) -> usize {
        2 * self.concurrency()
    }

    /// Connects to nothing yet.
    pub(crate) fn open(&self, settings: &Settings) -> Result<Remote> {
        let keys = settings.trusted_keys()?;
        let scheme = self.url.split_once(':').map_or("", |(scheme, _)| scheme);
        if matches!(scheme, "http" | "https") {
            return self.http(settings, keys);
        }
        ensure!(
            self.token_file.is_none(),
            "--token-file is for HTTP: an object store takes its credentials from the environment"
        );
        store_url::check(&self.url)
            .and_then(|()| self.object_store(settings, keys))
            .context("cannot use the remote, which is neither http:// nor https://")
    }

    fn http(&self, settings: &Settings, keys: Option<TrustedKeys>) -> Result<Remote> {
        let mut remote = RemoteCache::builder()
            .max_artifact_bytes(settings.max_artifact())
            .max_concurrent_requests(self.requests())
            .writes();
        let token_origin = match &self.token_file {
            Some(file) => {
                remote = remote.bearer_token(token(file)?);
                format!("the token is that of {}", file.display())
            }
            None => "no token was sent: see --token-file".to_owned(),
        };
        if let Some(keys) = keys {
            remote = remote.trust(pipeline_cache::Trust::Authenticated(keys));
        }
        // The error does not repeat the URL, which may hold a secret.
        let remote = remote.build(&self.url).map_err(|error| match error {
            RemoteCacheError::CredentialsInUrl => anyhow!(
                "the URL holds a user or a password: remove it, and name a file with the token: \
                 --token-file FILE, or CACHECTL_TOKEN_FILE in the environment"
            ),
            // The only header is that of the token.
            RemoteCacheError::InvalidHeader { .. } => {
                anyhow!("the token has a character that no header can have: {token_origin}")
            }
            error => anyhow!(error),
        });
        let remote = remote.context("cannot use the remote")?;
        Ok(Remote {
            name: remote.to_string(),
            store: Arc::new(remote),
            keys: None,
            token_origin: Some(token_origin),
        })
    }

    #[cfg(feature = "object-store")]
    fn object_store(&self, settings: &Settings, keys: Option<TrustedKeys>) -> Result<Remote> {
        let mut store = pipeline_cache::ObjectStoreCache::builder()
            .max_artifact_bytes(settings.max_artifact())
            .max_concurrent_requests(self.requests())
            .writes();
        if let Some(keys) = keys {
            store = store.trust(pipeline_cache::Trust::Authenticated(keys));
        }
        let store = store.build(&self.url)?;
        Ok(Remote {
            name: store.to_string(),
            store: Arc::new(store.clone()),
            keys: Some(Box::new(move || store.keys())),
            token_origin: None,
        })
    }

    #[cfg(not(feature = "object-store"))]
    fn object_store(&self, _: &Settings, _: Option<TrustedKeys>) -> Result<Remote> {
        bail!(
            "this cachectl was built without object stores; build it with --features object-store"
        )
    }
}

impl Remote {
    /// Why something failed, and what there is to do here.
    pub(crate) fn why(&self, error: &StoreError) -> String {
        let mut why = format!("{error:#}");
        let hint = match error.kind() {
            StoreErrorKind::PermissionDenied => self.token_origin.as_deref(),
            // The error may say so itself.
            StoreErrorKind::Protocol if !why.contains(BASE_URL) => self.base_url_hint(),
            _ => None,
        };
        if let Some(hint) = hint {
            why += &format!("; {hint}");
        }
        why
    }

    /// Whether each upload would fail in the same way. A store that lets nobody list it may say of what it
    /// lacks that it is forbidden, and take uploads.
    pub(crate) fn is_final(&self, error: &StoreError) -> bool {
        let is_http = self.token_origin.is_some();
        match error.kind() {
            StoreErrorKind::PermissionDenied => is_http,
            StoreErrorKind::Protocol => true,
            _ => false,
        }
    }

    /// What to look at where the server may not have the cache at this URL.
    pub(crate) fn base_url_hint(&self) -> Option<&'static str> {
        let is_http = self.token_origin.is_some();
        (is_http && !self.name.ends_with("/artifacts)")).then_some(HINT)
    }

    /// The keys of all artifacts that it has.
    pub(crate) fn keys(&self) -> Result<Listing> {
        match &self.keys {
            Some(keys) => Ok(keys()),
            None => bail!(
                "an HTTP remote cannot be listed: name what to pull with --keys FILE or --run FILE"
            ),
        }
    }
}

/// The line break at the end of a file is not part of its token.
fn token(file: &Path) -> Result<String> {
    let text = input::read(file)?;
    let token = without_mark(&text).trim_end();
    ensure!(!token.is_empty(), "{} holds no token", file.display());
    Ok(token.to_owned())
}
