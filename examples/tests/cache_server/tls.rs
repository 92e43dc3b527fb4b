//! `cache_server` with a certificate: the same bounds and promises as without.

use super::certificates::Certificate;
use super::support::{
    CacheServer, KEY, READER, WRITER, artifact, builder, client_trusting, command, path, put_head,
};
use futures::future::join_all;
use pipeline_cache::{Fetched, PipelineCacheStore as _, RemoteCache};
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Version};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// The beginning of a first message of TLS, which promises 512 bytes.
const HALF_A_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];

fn start(certificate: &Certificate, arguments: &[&str]) -> CacheServer {
    let mut server = CacheServer::start(&[&certificate.arguments(), arguments].concat());
    server.trust(&certificate.authority);
    server
}

pub(crate) fn remote(server: &CacheServer, authority: &[u8], token: &str) -> RemoteCache {
    let remote = builder(token).extra_root_certificates(authority);
    remote.build(server.url("/artifacts")).unwrap()
}

/// TLS on a connection, and nothing sent over it yet.
pub(crate) async fn secure(stream: TcpStream, authority: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority).unwrap();
    roots.add(authority).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

pub(crate) async fn connect(server: &CacheServer) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

/// What is only written may stay in a buffer.
pub(crate) async fn send(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

async fn health(server: &CacheServer) -> StatusCode {
    let answer = timeout(LONG, server.get("/healthz", HeaderMap::new())).await;
    answer.expect("the server does not answer").status()
}

/// What comes until the connection is closed.
async fn read_to_end(mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut came = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut came))
        .await
        .expect("the connection stays open");
    came
}

#[tokio::test]
async fn a_team_shares_artifacts_over_tls() {
    let Some(certificate) = Certificate::new() else {
        return;
    };
    let server = start(&certificate, &[]);
    assert!(server.url("").starts_with("https://127.0.0.1:"));
    assert!(!server.start_line().contains("no TLS"));
    let writer = remote(&server, &certificate.authority, WRITER);
    let reader = remote(&server, &certificate.authority, READER);
    writer.put(&KEY, artifact(100_000)).await.unwrap();
    let got = reader.fetch(&KEY).await.unwrap();
    assert_eq!(got, Fetched::Hit(artifact(100_000)));

    let url = server.url("/healthz");
    let http2 = client_trusting(&certificate.authority).build().unwrap();
    let answer = http2.get(&url).send().await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    let http1 = client_trusting(&certificate.authority).http1_only();
    let answer = http1.build().unwrap().get(&url).send().await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_11);

    // One that does not know the authority takes it for nobody's server.
    let stranger = builder(READER).build(server.url("/artifacts")).unwrap();
    stranger.fetch(&KEY).await.unwrap_err();
}

#[test]
fn a_bad_certificate_or_key_stops_it_and_is_not_repeated() {
    let (Some(certificate), Some(other)) = (Certificate::new(), Certificate::new()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let [_, good, _, key] = certificate.arguments();
    let other_key = other.key.to_str().unwrap();
    let locked = certificate.key_with_password();
    let locked = locked.to_str().unwrap();
    let text = file("text", b"hunter2");
    let torn = file("torn", b"-----BEGIN CERTIFICATE-----\nhunter2\n");
    let binary = file("binary", &[0x30, 0x82, 0xff]);
    for (arguments, expected) in [
        (vec!["--tls-cert", good], "--tls-cert needs --tls-key"),
        (vec!["--tls-key", key], "--tls-key needs --tls-cert"),
        (
            vec!["--tls-cert", good, "--tls-key", other_key],
            "does not belong to the certificate",
        ),
        (
            vec!["--tls-cert", &text, "--tls-key", key],
            "text holds no certificate in PEM form",
        ),
        (
            vec!["--tls-cert", &torn, "--tls-key", key],
            "torn is not valid PEM",
        ),
        (vec!["--tls-cert", &binary, "--tls-key", key], "cannot read"),
        (
            vec!["--tls-cert", good, "--tls-key", &text],
            "text holds no private key in PEM form",
        ),
        (
            vec!["--tls-cert", good, "--tls-key", locked],
            "no private key in PEM form that needs no password",
        ),
        (
            vec!["--tls-cert", "/dev/zero", "--tls-key", key],
            "is not a file",
        ),
        (
            vec!["--tls-cert", good, "--tls-key", "/nonexistent"],
            "cannot read /nonexistent",
        ),
    ] {
        let output = command()
            .args(["--listen", "127.0.0.1:0", "--anonymous", "read-only"])
            .arg("--cache-dir")
            .arg(folder.path().join("cache"))
            .args(&arguments)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        // A file that is missing may come.
        let code = if said.contains("No such file") { 1 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_told_at_the_start_and_at_each_reload() {
    let (Some(certificate), Some(good)) = (Certificate::new(), Certificate::new()) else {
        return;
    };
    let [_, file, ..] = certificate.arguments();
    certificate.valid("200101000000Z", "210101000000Z");
    let server = CacheServer::start(&certificate.arguments());
    let expired = format!("certificate 1 in {file} expired on Fri, 01 Jan 2021 00:00:00 GMT");
    server.wait_until_said(&expired).await;

    certificate.valid("400101000000Z", "410101000000Z");
    server.signal("-HUP");
    let early = format!("{file} is not valid before Sun, 01 Jan 2040 00:00:00 GMT");
    server.wait_until_said(&early).await;
    server.wait_until_said("SIGHUP: reloaded").await;

    // One of an issuer that has expired, behind one that has not.
    certificate.valid("200101000000Z", "210101000000Z");
    let issuer = std::fs::read(file).unwrap();
    good.replace(&certificate);
    let mut chain = std::fs::read(file).unwrap();
    chain.extend(issuer);
    std::fs::write(file, chain).unwrap();
    server.signal("-HUP");
    let second = format!("certificate 2 in {file} expired on Fri, 01 Jan 2021");
    server.wait_until_said(&second).await;

    let mut server = CacheServer::start(&good.arguments());
    server.terminate();
    server.wait();
    assert!(
        !server.said().contains("clients may refuse it"),
        "{}",
        server.said()
    );
}

#[tokio::test]
async fn a_client_without_tls_is_disconnected_and_the_server_goes_on() {
    let Some(certificate) = Certificate::new() else {
        return;
    };
    let server = start(&certificate, &[]);
    let mut plain = connect(&server).await;
    let head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    plain.write_all(head).await.unwrap();
    let came = read_to_end(plain).await;
    assert!(!came.starts_with(b"HTTP"), "{came:?}");
    assert_eq!(health(&server).await, StatusCode::OK);
    let failed = "cache_server_tls_handshakes_failed_total";
    server.wait_for(failed, |failed| failed == 1).await;
}

#[tokio::test]
async fn handshakes_that_stand_still_lock_nobody_out_and_end() {
    let Some(certificate) = Certificate::new() else {
        return;
    };
    for hello in [&[][..], HALF_A_HELLO] {
        // Far more than there is room for, and none of them ends by itself meanwhile.
        let arguments = ["--max-connections", "20", "--head-timeout", "3600"];
        let server = start(&certificate, &arguments);
        let silent = (0..100).map(|_| async {
            let mut stream = connect(&server).await;
            // The server may have closed it already.
            let _ = stream.write_all(hello).await;
            stream
        });
        let _silent = join_all(silent).await;
        assert_eq!(health(&server).await, StatusCode::OK);

        let server = start(&certificate, &["--head-timeout", "0.3"]);
        let mut stream = connect(&server).await;
        stream.write_all(hello).await.unwrap();
        assert_eq!(read_to_end(stream).await, b"");
    }
}

#[tokio::test]
async fn a_first_head_that_does_not_come_closes_a_connection_with_tls() {
    let Some(certificate) = Certificate::new() else {
        return;
    };
    let server = start(&certificate, &["--head-timeout", "2"]);
    for head in [&b""[..], b"GET /healthz HTTP/1.1\r\nHo"] {
        let mut stream = secure(connect(&server).await, &certificate.authority).await;
        send(&mut stream, head).await;
        assert_eq!(read_to_end(stream).await, b"");
    }
}

/// The handshake has as much time as the head after it, and takes nothing from it.
#[tokio::test]
async fn a_slow_handshake_leaves_the_head_its_time() {
    let Some(certificate) = Certificate::new() else {
        return;
    };
    let server = start(&certificate, &["--head-timeout", "15"]);
    let stream = connect(&server).await;
    sleep(Duration::from_secs(9)).await;
    let mut stream = secure(stream, &certificate.authority).await;
    sleep(Duration::from_secs(9)).await;
    let head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    send(&mut stream, head).await;
    let came = read_to_end(stream).await;
    assert!(came.starts_with(b"HTTP/1.1 200"), "{came:?}");
}

#[tokio::test]
async fn an_idle_connection_with_tls_is_closed() {
    let Some(certificate) = Certificate::new() else {
        return;
    };
    let server = start(&certificate, &["--idle", "0.5"]);
    let mut stream = secure(connect(&server).await, &certificate.authority).await;
    let head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    send(&mut stream, head).await;
    let came = read_to_end(stream).await;
    assert!(came.starts_with(b"HTTP/1.1 200"), "{came:?}");
}

#[tokio::test]
async fn an_upload_over_tls_is_finished_before_the_server_ends() {
    let Some(certificate) = Certificate::new() else {
        return;
    };
    let mut server = start(&certificate, &[]);
    let mut upload = begin_upload(&server, &certificate, "/ccache/a").await;
    server.terminate();
    server.wait_until_said("stopping").await;
    send(&mut upload, b"blob").await;
    let came = read_to_end(upload).await;
    assert!(came.starts_with(b"HTTP/1.1 201"), "{came:?}");
    assert!(server.wait().success());
}

/// An upload of four bytes that the server has begun to read, and of which nothing was sent yet.
pub(crate) async fn begin_upload(
    server: &CacheServer,
    certificate: &Certificate,
    path: &str,
) -> TlsStream<TcpStream> {
    let mut upload = secure(connect(server).await, &certificate.authority).await;
    let head = put_head(path, 4).replace("Host", "Expect: 100-continue\r\nHost");
    send(&mut upload, head.as_bytes()).await;
    let mut told = [0; 25];
    upload.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    upload
}

/// The memory of a connection is that of one without TLS, as the README states it.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn answers_over_tls_that_are_not_read_hold_little_memory() {
    const ANSWERS: u64 = 100;
    const CONNECTION_KIBIBYTES: u64 = 256;
    let Some(certificate) = Certificate::new() else {
        return;
    };
    // All of them are open together, however long the machine takes for that.
    let arguments = ["--inactivity=3600", "--head-timeout=3600", "--idle=3600"];
    let server = start(&certificate, &arguments);
    assert_eq!(server.put("/ccache/a", vec![1; 32 << 20]).await, 201);
    let before = server.kibibytes("VmHWM:");
    let head =
        format!("GET /ccache/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READER}\r\n\r\n");
    let unread = (0..ANSWERS).map(|_| async {
        let mut stream = secure(connect(&server).await, &certificate.authority).await;
        send(&mut stream, head.as_bytes()).await;
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.unwrap();
        stream
    });
    let unread = join_all(unread).await;
    let peak = server.kibibytes("VmHWM:") - before;
    println!("{ANSWERS} answers over TLS that are not read: at most {peak} KiB");
    assert!(peak < ANSWERS * CONNECTION_KIBIBYTES, "{peak} KiB");
    drop(unread);
    let missing = server.get(&path(&KEY), HeaderMap::new()).await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
}
