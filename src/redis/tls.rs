//! The certificates of TLS connections.
//!
//! The `redis` crate reads the platform's root certificates for each connection that it opens, on
//! the thread that polls. So they are read here, once, and handed to it. Its own roots are those of
//! the `webpki-roots` crate, which it holds and which are not used where others are given.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::{Client, ClientTlsConfig, TlsCertificates};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::error::RedisCacheError;

/// What a builder sets.
#[derive(Clone, Default)]
pub(super) struct TlsSettings {
    pub(super) extra_roots: Vec<Vec<u8>>,
    /// A chain and its key.
    pub(super) identity: Option<Vec<u8>>,
}

impl TlsSettings {
    /// What is trusted, and what the client shows. Reads files.
    pub(super) fn certificates(&self) -> Result<TlsCertificates, RedisCacheError> {
        use_a_provider();
        let mut roots = platform_roots();
        for pem in &self.extra_roots {
            roots.extend(checked_roots(pem)?);
        }
        let client_tls = self.identity.as_ref().map(|pem| ClientTlsConfig {
            client_cert: pem.clone(),
            client_key: pem.clone(),
        });
        let certificates = TlsCertificates {
            client_tls,
            root_cert: Some(pem(&roots)),
        };
        // Its error is not repeated: its input is a private key. The roots have been checked.
        Client::build_with_tls("rediss://localhost", certificates.clone())
            .map_err(|_| RedisCacheError::InvalidClientCertificate)?;
        Ok(certificates)
    }
}

/// `rustls` looks for the provider of cryptography of the process, and panics where there is none.
fn use_a_provider() {
    if CryptoProvider::get_default().is_none() {
        // An error says that another thread was faster.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}

fn platform_roots() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    if let Some(error) = found.errors.first() {
        tracing::debug!(%error, "some root certificates of the platform cannot be read");
    }
    // One that cannot be used would make all of them unusable.
    let usable = |root: &CertificateDer<'static>| RootCertStore::empty().add(root.clone()).is_ok();
    found.certs.into_iter().filter(usable).collect()
}

fn checked_roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, RedisCacheError> {
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let usable = |root: &CertificateDer<'static>| RootCertStore::empty().add(root.clone()).is_ok();
    match roots {
        Ok(roots) if !roots.is_empty() && roots.iter().all(usable) => Ok(roots),
        _ => Err(RedisCacheError::InvalidRootCertificate),
    }
}

fn pem(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let section = |certificate: &CertificateDer<'_>| {
        let text = STANDARD.encode(certificate);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    let sections: String = certificates.iter().map(section).collect();
    sections.into_bytes()
}
