//! The certificate and its key. Connections that begin after a reload use what was read last.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use httpdate::fmt_http_date;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore, ServerConfig};

use crate::args::Args;
use crate::http_server::console::say;
use crate::input;

pub(crate) struct Tls {
    files: Files,
    current: watch::Sender<TlsAcceptor>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Tls {
    /// None where the server speaks plain HTTP.
    pub(crate) fn open(args: &Args) -> Result<Option<Self>> {
        let files = match (&args.tls_cert, &args.tls_key) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => Files {
                certificate: certificate.clone(),
                key: key.clone(),
            },
            (Some(_), None) => bail!("--tls-cert needs --tls-key, the key of the certificate"),
            (None, Some(_)) => bail!("--tls-key needs --tls-cert, the certificate of the key"),
        };
        let current = watch::Sender::new(files.read()?);
        Ok(Some(Self { files, current }))
    }

    /// What new connections use, from now on.
    pub(crate) fn acceptor(&self) -> watch::Receiver<TlsAcceptor> {
        self.current.subscribe()
    }

    /// Reads the files again, for `replace`.
    pub(crate) fn read(&self) -> Result<TlsAcceptor> {
        self.files.read()
    }

    pub(crate) fn replace(&self, acceptor: TlsAcceptor) {
        self.current.send_replace(acceptor);
    }

    /// The files, for a log line.
    pub(crate) fn describe(&self) -> String {
        let Files { certificate, key } = &self.files;
        format!(
            "the certificate of {} and the key of {}",
            certificate.display(),
            key.display()
        )
    }
}

impl Files {
    fn read(&self) -> Result<TlsAcceptor> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(input::read(&self.certificate)?.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|_| anyhow!("{certificate} is not valid PEM"))?;
        ensure!(
            !chain.is_empty(),
            "{certificate} holds no certificate in PEM form"
        );
        for (number, date) in (1..).zip(chain.iter().map(out_of_date)) {
            if let Some(date) = date {
                say(format_args!(
                    "certificate {number} in {certificate} {date}: clients may refuse it"
                ));
            }
        }
        // The error might repeat what is in the file.
        let private = PrivateKeyDer::from_pem_slice(input::read(&self.key)?.as_bytes());
        let private = private.map_err(|_| {
            anyhow!("{key} holds no private key in PEM form that needs no password")
        })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|error| match error {
                Error::InconsistentKeys(_) => {
                    anyhow!("the key of {key} does not belong to the certificate of {certificate}")
                }
                error => anyhow!(error),
            })
            .with_context(|| format!("cannot use {certificate} with {key}"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Where a certificate does not hold now: since when, or until when.
fn out_of_date(certificate: &CertificateDer<'_>) -> Option<String> {
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let certificate = ParsedCertificate::try_from(certificate).ok()?;
    // The dates are looked at before the issuer, which is always unknown here.
    let checked = verify_server_cert_signed_by_trust_anchor(
        &certificate,
        &RootCertStore::empty(),
        &[],
        UnixTime::now(),
        algorithms.all,
    );
    let date = |time: UnixTime| fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match checked {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(format!("expired on {}", date(not_after)))
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => Some(format!("is not valid before {}", date(not_before))),
        _ => None,
    }
}
