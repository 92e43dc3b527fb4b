//! A remote tier behind TLS on a real nginx: which server is believed, and which client is.

use crate::support::certificates::certificates;
use crate::support::nginx::Nginx;
use pipeline_cache::network::{BreakerPolicy, RetryPolicy};
use pipeline_cache::{
    Artifact, Fetched, PipelineCacheStore, PipelineFingerprint, RemoteCache, RemoteCacheBuilder,
    RemoteCacheError, StoreErrorKind,
};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .writes()
        .retry(RetryPolicy::default().attempts(1))
}

#[tokio::test]
async fn extra_roots_and_client_certificates_open_a_server_that_asks_for_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = elsewhere.local_addr().unwrap().port();
    // Free again at the end of the statement.
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let server = format!(
        "listen 127.0.0.1:{port} ssl;
         ssl_certificate {path}/server.pem; ssl_certificate_key {path}/server.key;
         ssl_client_certificate {path}/ca.pem; ssl_verify_client on;
         location /away/ {{ return 307 https://127.0.0.1:{other}/; }}
         location /cache/ {{ dav_methods PUT DELETE; create_full_put_path on; }}",
        path = path.display()
    );
    if certificates(path).is_none() {
        return;
    }
    let Some(_nginx) = Nginx::start(&server) else {
        return;
    };
    let url = format!("https://127.0.0.1:{port}/cache");
    let read = |name: &str| std::fs::read(path.join(name)).unwrap();
    let identity = [read("client.pem"), read("client.key")].concat();

    let remote = builder()
        .extra_root_certificates(read("ca.pem"))
        .client_certificate(identity.clone())
        .build(&url)
        .unwrap();
    let artifact = Artifact::new(vec![7; 100_000]);
    remote.put(&KEY, artifact.clone()).await.unwrap();
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Hit(artifact));

    // Where the server points to, a certificate is not shown: nobody is even called there.
    elsewhere.set_nonblocking(true).unwrap();
    let pointed = builder()
        .extra_root_certificates(read("ca.pem"))
        .client_certificate(identity.clone())
        .build(format!("https://127.0.0.1:{port}/away"))
        .unwrap();
    let error = pointed.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Protocol, "{error}");
    assert!(elsewhere.accept().is_err());

    // Nobody vouches for the server.
    let stranger = builder().client_certificate(identity).build(&url).unwrap();
    let error = stranger.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Protocol, "{error}");

    // Nobody vouches for the client.
    let nobody = builder()
        .extra_root_certificates(read("ca.pem"))
        .build(&url)
        .unwrap();
    nobody.fetch(&KEY).await.unwrap_err();
}

/// A program that ends with the test, however that ends.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With TLS 1.3 the server says so only after the client took the connection for open.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_certificate_is_always_told_from_one_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    if certificates(folder.path()).is_none() {
        return;
    }
    let server = Command::new("openssl")
        .args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-Verify",
            "1",
            "-verify_return_error",
        ])
        .args([
            "-CAfile",
            "ca.pem",
            "-cert",
            "server.pem",
            "-key",
            "server.key",
            "-tls1_3",
        ])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = Ends(server);
    let mut said = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let port = said
        .find_map(|line| Some(line.unwrap().strip_prefix("ACCEPT 127.0.0.1:")?.to_owned()))
        .unwrap();
    // It goes on talking.
    std::thread::spawn(move || said.count());
    let remote = builder()
        .extra_root_certificates(std::fs::read(folder.path().join("ca.pem")).unwrap())
        .breaker(BreakerPolicy::default().failure_percent(101))
        .build(format!("https://127.0.0.1:{port}"))
        .unwrap();
    for _ in 0..20 {
        let error = remote.fetch(&KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{error:?}");
        assert!(
            format!("{error:?}").contains("CertificateRequired"),
            "{error:?}"
        );
    }
}

#[test]
fn what_is_no_certificate_is_refused_and_not_repeated() {
    for pem in ["", "hunter2", "-----BEGIN CERTIFICATE-----\nhunter2\n"] {
        let roots = builder().extra_root_certificates(pem);
        let client = builder().client_certificate(pem);
        for (builder, expected) in [
            (roots, RemoteCacheError::InvalidRootCertificate),
            (client, RemoteCacheError::InvalidClientCertificate),
        ] {
            assert!(!format!("{builder:?}").contains("hunter2"));
            let error = builder.build("https://cache.example.com").unwrap_err();
            assert_eq!(error, expected);
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_and_a_url_without_a_scheme_are_told_apart_from_others() {
    let Some(server) = Nginx::start("") else {
        return;
    };
    let url = server.url("/").replace("http://", "https://");
    let remote = builder().build(&url).unwrap();
    let error = remote.fetch(&KEY).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("does not speak TLS here"), "{text}");

    let error = builder().build("cache.example.com/artifacts").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("neither http:// nor https://"), "{text}");
}
