//! The settings of an [`ObjectStoreCache`], each with its default, and how a store is found by URL.

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

use super::ObjectStoreCache;
use super::connector::Connector;
use super::leases::{MAX_TIME, ObjectLeases};
use super::objects::Objects;
use crate::network::{
    NetworkLeases, NetworkSettings, NetworkTier, TierLeases, http_settings, network_settings,
};

/// Settings for an [`ObjectStoreCache`]. Needs the feature `object-store`.
///
/// Redirects are not followed, since they would carry the credentials of the store to another server:
/// a store that redirects is a [`StoreErrorKind::Protocol`](crate::StoreErrorKind::Protocol) error.
/// Set its region and endpoint.
///
/// Set credentials, certificates, proxies and HTTP/2 (off by default) with
/// [`store_option`](Self::store_option). The other settings are those of a `RemoteCacheBuilder`. The number of connections is not counted exactly: at most
/// [`max_concurrent_requests`](Self::max_concurrent_requests) idle ones are kept, and a burst may
/// open more for a moment. The inactivity timeout does not apply to an upload: once it is connected,
/// [`attempt_timeout`](Self::attempt_timeout) is its only time limit.
///
/// A connection that the store closes under a request costs one of the [`retry`](Self::retry)
/// attempts. Connections are not given up because one delivered another key's frame, as those of a
/// `RemoteCache` are: such a lookup is a miss, counted as corrupt.
///
/// ```
/// use pipeline_cache::{ObjectStoreCache, PipelineCacheStore as _};
///
/// let cache = ObjectStoreCache::builder()
///     .store_option("aws_endpoint", "http://127.0.0.1:8333")
///     .store_option("aws_allow_http", "true")
///     .writes()
///     .build("s3://bucket/artifacts")?;
/// assert_eq!(cache.to_string(), "objects(s3://bucket/artifacts, at 127.0.0.1:8333)");
/// assert!(cache.is_writable());
/// # Ok::<(), pipeline_cache::ObjectStoreCacheError>(())
/// ```
///
/// A bucket that many branches and devices write to, for a reader that takes the artifacts of the main
/// branch for its own device:
///
/// ```
/// use pipeline_cache::ObjectStoreCache;
///
/// let cache = ObjectStoreCache::builder()
///     .store_option("aws_region", "eu-central-1")
///     // S3 says 403 of what it does not have to those who may not list the bucket.
///     .absent_statuses([403, 404, 410])
///     .require_provenance("ci.example.com/main")
///     .require_device("sm_90")
///     .build("s3://bucket/artifacts")?;
/// # let _ = cache;
/// # Ok::<(), pipeline_cache::ObjectStoreCacheError>(())
/// ```
#[derive(Clone, Default)]
pub struct ObjectStoreCacheBuilder {
    network: NetworkSettings,
    options: Vec<(String, String)>,
    /// `None`: none are granted.
    lease_time: Option<Duration>,
}

impl ObjectStoreCacheBuilder {
    network_settings!();
    http_settings!();

    /// Sets an option of the store under its name in the `object_store` crate, such as
    /// `aws_endpoint` or `google_service_account`. It overrides the environment. An option that the
    /// store does not have is ignored. Never printed. Default: none.
    #[must_use]
    pub fn store_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.push((name.into(), value.into()));
        self
    }

    /// Grants compile leases: while a process of the fleet compiles a key, the others that share this
    /// store wait for its artifact, for as long as
    /// [`max_compile_wait`](crate::LayeredPipelineCacheBuilder::max_compile_wait) says. Needs
    /// [`writes`](Self::writes). Default: none are granted.
    ///
    /// A lease is an object below `leases/`, put on the condition that there is none. S3, Google Cloud
    /// Storage, Azure and folders honour it. The first lease tries whether the store does: if not, that
    /// is logged once, compiles go on without leases, and it is tried again after five minutes.
    ///
    /// A lease lives for this long, at least 100 ms and at most ten minutes, and its holder renews it
    /// in the background. A holder that dies, is stopped, or is cut off loses it: who waits takes it
    /// over after this time without a renewal, by a clock of its own. Then two may compile the same
    /// key, and store the same artifact. 10 seconds suit most: a lease is renewed each third of its
    /// time. In a folder (`file://`) those who take over a lease at the same moment may all get it.
    ///
    /// A compile costs four more requests: the lease is put, the artifact looked for, the lease read
    /// and deleted. Who waits reads it now and then, after 50 ms at first and up to every two seconds,
    /// and looks for the artifact each time that another holds it.
    /// Where many wait, a `RedisCache` or a `cache_server` wakes them, and costs less.
    ///
    /// The lease of a holder that died stays in the store until its key is compiled again. A rule that
    /// removes objects below `leases/` after a day, which most stores have, does no harm.
    ///
    /// A store that does not say within the
    /// [network budget](crate::LayeredPipelineCacheBuilder::network_budget) who has the lease, lookup
    /// included, is not waited for. Allow more than the default of 250 ms where it is far away.
    ///
    /// ```
    /// use pipeline_cache::ObjectStoreCache;
    /// use std::time::Duration;
    ///
    /// let cache = ObjectStoreCache::builder()
    ///     .writes()
    ///     .compile_leases(Duration::from_secs(10))
    ///     .build("memory:///artifacts")?;
    /// # Ok::<(), pipeline_cache::ObjectStoreCacheError>(())
    /// ```
    #[must_use]
    pub const fn compile_leases(mut self, time: Duration) -> Self {
        self.lease_time = Some(time);
        self
    }

    /// Builds the tier at a URL: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`,
    /// `file:///folder` or `memory:///prefix`.
    ///
    /// Credentials, regions and endpoints are taken from the environment, under their names in the
    /// `object_store` crate: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT` and so on. They are never printed.
    /// Connects to nothing.
    ///
    /// The store makes no retries of its own: those of [`retry`](Self::retry) are the only ones.
    ///
    /// # Errors
    ///
    /// [`ObjectStoreCacheError`] where the URL is not valid, its scheme is not known, or a setting of
    /// the store is missing or wrong.
    pub fn build(self, url: impl AsRef<str>) -> Result<ObjectStoreCache, ObjectStoreCacheError> {
        let url = Url::parse(url.as_ref())
            .map_err(|error| ObjectStoreCacheError::InvalidUrl(error.to_string()))?;
        let mut options = environment();
        options.extend(self.options.iter().cloned());
        let (store, prefix) = store_at(&url, &options, &self.network)?;
        let scheme = match url.scheme() {
            "memory" => "InMemory".to_owned(),
            scheme => match url.host_str() {
                Some(host) => format!("{scheme}://{host}"),
                None => format!("{scheme}://"),
            },
        };
        let name = match server(&options) {
            Some(server) => format!("objects({scheme}/{prefix}, at {server})"),
            None => format!("objects({scheme}/{prefix})"),
        };
        Ok(self.tier(name, store, prefix))
    }

    /// Builds the tier on a store that is set up already, below a prefix; an empty prefix is the
    /// whole store.
    ///
    /// Switch off the retries of the store: this tier makes its own, within a budget. The store
    /// decides how long a connection may take to open, and how much it tells of a response: most
    /// statuses then count as a store that is unavailable for a while.
    ///
    /// ```
    /// use pipeline_cache::ObjectStoreCache;
    /// use std::sync::Arc;
    ///
    /// let store = Arc::new(object_store::memory::InMemory::new());
    /// let cache = ObjectStoreCache::builder().build_on(store, "artifacts");
    /// assert_eq!(cache.to_string(), "objects(InMemory/artifacts)");
    /// ```
    #[must_use]
    pub fn build_on(self, store: Arc<dyn ObjectStore>, prefix: &str) -> ObjectStoreCache {
        let prefix = Path::from(prefix);
        let name = format!("objects({store}/{prefix})");
        self.tier(name, store, prefix)
    }

    fn tier(self, name: String, store: Arc<dyn ObjectStore>, prefix: Path) -> ObjectStoreCache {
        let (format, promotable) = self.network.format();
        let objects = Objects {
            store,
            prefix,
            format,
            absent_statuses: self.network.absent_statuses.clone(),
            inactivity: self.network.inactivity_timeout,
        };
        let lease_time = self.lease_time.filter(|_| self.network.writes);
        let leases = lease_time.map(|time| {
            let backend = ObjectLeases::new(name.clone(), objects.clone());
            let (time, limits) = (time.min(MAX_TIME), self.network.limits);
            let leases = NetworkLeases::new(name.clone(), backend, time, limits);
            Box::new(leases) as Box<dyn TierLeases>
        });
        ObjectStoreCache {
            tier: NetworkTier::new(name, objects, promotable, self.network, leases),
        }
    }
}

impl fmt::Debug for ObjectStoreCacheBuilder {
    /// Of the store's own options only how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreCacheBuilder")
            .field("network", &self.network)
            .field("store_options", &self.options.len())
            .field("lease_time", &self.lease_time)
            .finish()
    }
}

/// The options of stores in the environment.
fn environment() -> Vec<(String, String)> {
    const OF_STORES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| OF_STORES.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}

/// Which server or account it is, where the URL does not tell: the name of a tier stands for the place
/// where its artifacts are. Of a URL, host and port alone.
fn server(options: &[(String, String)]) -> Option<String> {
    const NAMES: [&str; 4] = [
        "endpoint",
        "endpoint_url",
        "endpoint_url_s3",
        "account_name",
    ];
    let said = options.iter().filter(|(name, _)| {
        let name = name.to_lowercase();
        let name = ["aws_", "azure_storage_", "azure_", "google_"]
            .iter()
            .find_map(|store| name.strip_prefix(store))
            .unwrap_or(&name);
        NAMES.contains(&name)
    });
    let mut servers: Vec<_> = said.map(|(_, value)| host(value)).collect();
    servers.sort_unstable();
    servers.dedup();
    (!servers.is_empty()).then(|| servers.join(" and "))
}

fn host(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) => match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => "a server without a host".to_owned(),
        },
        // The name of an account.
        Err(_) => text.to_owned(),
    }
}

/// A second layer of retries would outlast deadlines and multiply requests to a store that fails.
fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        ..RetryConfig::default()
    }
}

/// `attempt_timeout` is the only limit on a whole request.
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
) -> Result<(Arc<dyn ObjectStore>, Path), ObjectStoreCacheError> {
    let scheme = || url.scheme().to_owned();
    // The builders have the same methods and no trait in common.
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
            // Its error is not repeated: it may quote the URL or a setting.
            let store = builder.with_retry(no_retries()).build();
            Arc::new(
                store.map_err(|_| ObjectStoreCacheError::InvalidSettings { scheme: scheme() })?,
            )
        }};
    }
    Path::from_url_path(url.path()).map_err(|_| {
        ObjectStoreCacheError::InvalidUrl("its path has an empty or invalid part".to_owned())
    })?;
    let unknown = || ObjectStoreCacheError::UnknownScheme { scheme: scheme() };
    let (kind, path) = ObjectStoreScheme::parse(url).map_err(|_| unknown())?;
    let store: Arc<dyn ObjectStore> = match kind {
        ObjectStoreScheme::Local => Arc::new(LocalFileSystem::new()),
        ObjectStoreScheme::Memory => Arc::new(InMemory::new()),
        ObjectStoreScheme::AmazonS3 => remote!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => remote!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => remote!(MicrosoftAzureBuilder),
        // Plain HTTP is what a `RemoteCache` is for.
        _ => return Err(unknown()),
    };
    Ok((store, path))
}

/// Why an [`ObjectStoreCache`] cannot be built. The URL is not repeated: it may hold a secret.
///
/// ```
/// use pipeline_cache::{ObjectStoreCache, ObjectStoreCacheError};
///
/// let error = ObjectStoreCache::builder().build("https://cache.example.com").unwrap_err();
/// assert!(matches!(error, ObjectStoreCacheError::UnknownScheme { .. }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectStoreCacheError {
    /// It is not a URL.
    #[error("the URL of the object store is not valid: {0}")]
    InvalidUrl(String),
    /// No object store is known for a URL of its scheme and form.
    #[error(
        "the URL with the scheme {scheme:?} is not that of an object store: use s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///folder or memory:///prefix"
    )]
    UnknownScheme {
        /// The scheme of the URL.
        scheme: String,
    },
    /// A setting of the store is missing or wrong.
    #[error(
        "a setting of the object store for the scheme {scheme:?} is missing or wrong: check its options and environment variables"
    )]
    InvalidSettings {
        /// The scheme of the URL.
        scheme: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_on_other_servers_have_other_names() {
        let name = |endpoint: &str| {
            let tier = ObjectStoreCache::builder()
                .store_option("aws_endpoint", endpoint)
                .store_option("aws_region", "r")
                .store_option("aws_allow_http", "true");
            tier.build("s3://bucket/a").unwrap().to_string()
        };
        let named = name("http://user:secret@127.0.0.1:9000/path");
        assert_eq!(named, "objects(s3://bucket/a, at 127.0.0.1:9000)");
        assert_ne!(named, name("http://127.0.0.1:9001"));
    }
}
