//! The settings of an [`ObjectStoreCache`], each with its default, and how a store is found by URL.

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use reqwest::Url;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ObjectStoreCache;
use super::connector::Connector;
use super::objects::Objects;
use crate::network::{NetworkSettings, NetworkTier, network_settings};

/// Settings for an [`ObjectStoreCache`].
///
/// Those of a [`RemoteCacheBuilder`](crate::RemoteCacheBuilder), as far as they are not about one
/// server: credentials, certificates, proxies and HTTP/2, which is off, are
/// [options of the store](Self::store_option). The connections to a store are not counted: idle ones
/// are kept up to the number of [requests](Self::max_concurrent_requests), and a busy tier may open
/// more for a while. An upload is not found to stand still: the time limit of an
/// [attempt](Self::attempt_timeout) is all it has once it is connected.
///
/// ```
/// use pipeline_cache::{ObjectStoreCache, PipelineCacheStore as _};
///
/// let cache = ObjectStoreCache::builder()
///     .store_option("aws_endpoint", "http://127.0.0.1:8333")
///     .store_option("aws_allow_http", "true")
///     .writes(true)
///     .open("s3://bucket/artifacts")?;
/// assert_eq!(cache.to_string(), "objects(s3://bucket/artifacts)");
/// assert!(cache.is_writable());
/// # Ok::<(), pipeline_cache::ObjectStoreCacheError>(())
/// ```
#[derive(Clone, Default)]
pub struct ObjectStoreCacheBuilder {
    network: NetworkSettings,
    options: Vec<(String, String)>,
}

impl ObjectStoreCacheBuilder {
    network_settings!();

    /// Sets an option of the store, under the name that the `object_store` crate gives it, instead
    /// of what the environment says: `aws_endpoint`, `google_service_account` and so on. One that
    /// the store does not have is passed over. Never printed. Default: none.
    #[must_use]
    pub fn store_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.push((name.into(), value.into()));
        self
    }

    /// The tier at a URL: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`,
    /// `file:///folder` or `memory:///prefix`.
    ///
    /// Credentials, regions and endpoints are taken from the environment, under the names that
    /// the `object_store` crate gives them: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT` and so on. They
    /// are never printed. Connects to nothing.
    ///
    /// The store makes no retries of its own: those of [`retry`](Self::retry) are all there are.
    ///
    /// # Errors
    ///
    /// [`ObjectStoreCacheError`] where the URL is of no known store, or a setting is missing.
    pub fn open(self, url: impl AsRef<str>) -> Result<ObjectStoreCache, ObjectStoreCacheError> {
        let url = Url::parse(url.as_ref())
            .map_err(|error| ObjectStoreCacheError::InvalidUrl(error.to_string()))?;
        let unknown = |_| ObjectStoreCacheError::UnknownStore {
            scheme: url.scheme().to_owned(),
        };
        let mut options = environment();
        options.extend(self.options.iter().cloned());
        let (store, prefix) = store_at(&url, &options, &self.network).map_err(unknown)?;
        let scheme = match url.scheme() {
            "memory" => "InMemory".to_owned(),
            scheme => match url.host_str() {
                Some(host) => format!("{scheme}://{host}"),
                None => format!("{scheme}://"),
            },
        };
        let name = format!("objects({scheme}/{prefix})");
        Ok(self.build(name, store, prefix))
    }

    /// The tier on a store that is set up already, below a prefix; empty for the whole store.
    ///
    /// Let the store itself make no retries: this tier makes its own, within a budget. How long a
    /// connection may take to open is the store's affair, and so is what it tells of an answer:
    /// most refusals by a server pass for a store that is ill for a while.
    ///
    /// ```
    /// use pipeline_cache::ObjectStoreCache;
    /// use std::sync::Arc;
    ///
    /// let store = Arc::new(object_store::memory::InMemory::new());
    /// let cache = ObjectStoreCache::builder().on(store, "artifacts");
    /// assert_eq!(cache.to_string(), "objects(InMemory/artifacts)");
    /// ```
    #[must_use]
    pub fn on(self, store: Arc<dyn ObjectStore>, prefix: &str) -> ObjectStoreCache {
        let prefix = Path::from(prefix);
        let name = format!("objects({store}/{prefix})");
        self.build(name, store, prefix)
    }

    fn build(self, name: String, store: Arc<dyn ObjectStore>, prefix: Path) -> ObjectStoreCache {
        let (format, promotable) = self.network.format();
        let objects = Objects {
            store,
            prefix,
            format,
            inactivity: self.network.inactivity_timeout,
        };
        ObjectStoreCache {
            tier: NetworkTier::new(name, objects, &self.network),
            promotable,
        }
    }
}

impl fmt::Debug for ObjectStoreCacheBuilder {
    /// Of the store's own options only how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreCacheBuilder")
            .field("network", &self.network)
            .field("store_options", &self.options.len())
            .finish()
    }
}

/// What the environment says of stores.
fn environment() -> Vec<(String, String)> {
    const OF_STORES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| OF_STORES.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}

/// A second layer of retries would outlast deadlines and multiply requests to a store that is ill.
fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        ..RetryConfig::default()
    }
}

/// The limit on a whole request is that of an attempt, and no other.
fn client_options(settings: &NetworkSettings) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(settings.connect_timeout)
        .with_pool_max_idle_per_host(settings.limits.concurrent_requests.max(1))
}

fn store_at(
    url: &Url,
    options: &[(String, String)],
    settings: &NetworkSettings,
) -> Result<(Arc<dyn ObjectStore>, Path), object_store::Error> {
    // The builders are alike, and have no trait in common.
    macro_rules! remote {
        ($builder:ty) => {{
            let mut builder = <$builder>::new()
                .with_url(url.as_str())
                .with_client_options(client_options(settings));
            for (name, value) in options {
                if let Ok(known) = name.to_ascii_lowercase().parse() {
                    builder = builder.with_config(known, value);
                }
            }
            let builder = builder.with_http_connector(Connector::new(settings.inactivity_timeout));
            Arc::new(builder.with_retry(no_retries()).build()?)
        }};
    }
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::Local => Arc::new(LocalFileSystem::new()),
        ObjectStoreScheme::Memory => Arc::new(InMemory::new()),
        ObjectStoreScheme::AmazonS3 => remote!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => remote!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => remote!(MicrosoftAzureBuilder),
        // Plain HTTP is what a `RemoteCache` is for.
        _ => {
            return Err(object_store::Error::NotSupported {
                source: "no store of this scheme".into(),
            });
        }
    };
    Ok((store, path))
}

/// Why there is no [`ObjectStoreCache`] at a URL. The URL is not repeated: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectStoreCacheError {
    /// It is no URL.
    #[error("the URL of the object store is not valid: {0}")]
    InvalidUrl(String),
    /// It is of no store that is known, or a setting of the store is missing or wrong.
    #[error("no object store can be set up for the scheme {scheme:?} with what is set")]
    UnknownStore {
        /// The scheme of the URL.
        scheme: String,
    },
}
