//! What can be wrong with the settings of a `RedisCache`.

/// Why a [`RedisCache`](super::RedisCache) cannot be built. The URL itself is never repeated: it may hold a password.
///
/// ```
/// use pipeline_cache::{RedisCache, RedisCacheError};
///
/// let error = RedisCache::new("redis://user:hunter2@cache.example.com:port").unwrap_err();
/// assert!(matches!(error, RedisCacheError::InvalidUrl { .. }));
/// assert!(!error.to_string().contains("hunter2"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisCacheError {
    /// A part of the URL is wrong.
    #[error("the URL of the Redis server is not valid: {reason}")]
    InvalidUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The URL is not that of a Redis server.
    #[error(
        "the URL is not that of a Redis server: use redis://, redis-sentinel:// or redis-cluster://, or rediss… for TLS"
    )]
    UnsupportedScheme,
    /// [`key_prefix`](super::RedisCacheBuilder::key_prefix) holds a brace.
    #[error("key_prefix: it holds a brace, to which clusters give a meaning")]
    BracesInPrefix,
    /// The PEM text of [`extra_root_certificates`](super::RedisCacheBuilder::extra_root_certificates)
    /// contains no valid certificate.
    #[error("extra_root_certificates: the PEM text contains no valid certificate")]
    InvalidRootCertificate,
    /// The PEM text of [`client_certificate`](super::RedisCacheBuilder::client_certificate) contains no
    /// valid certificate or key.
    #[error("client_certificate: the PEM text contains no valid certificate or key")]
    InvalidClientCertificate,
}
