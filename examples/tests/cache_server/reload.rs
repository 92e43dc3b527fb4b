//! SIGHUP: certificate, key and tokens are replaced together, under load, or not at all.

use super::certificates::Certificate;
use super::support::{
    CacheServer, KEY, OTHER, READER, WRITER, artifact, builder, client, command, remote,
};
use super::tls::{self, begin_upload, send};
use pipeline_cache::{Fetched, PipelineCacheStore as _, StoreErrorKind};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

const NEWCOMER: &str = "newcomer-token-0123456789";

fn tokens(server: &CacheServer) -> PathBuf {
    server.folder().with_file_name("tokens")
}

fn write_tokens(server: &CacheServer, lines: &str) {
    std::fs::write(tokens(server), lines).unwrap();
}

#[tokio::test]
async fn a_new_certificate_and_new_tokens_hold_from_the_signal_on() {
    let (Some(old), Some(new)) = (Certificate::new(), Certificate::new()) else {
        return;
    };
    let mut server = CacheServer::start(&old.arguments());
    server.trust(&old.authority);
    let writer = tls::remote(&server, &old.authority, WRITER);
    writer.put(&KEY, artifact(1000)).await.unwrap();
    let reader = tls::remote(&server, &old.authority, READER);
    let hit = Fetched::Hit(artifact(1000));
    assert_eq!(reader.fetch(&KEY).await.unwrap(), hit);
    let mut upload = begin_upload(&server, &old, "/ccache/a").await;

    new.replace(&old);
    write_tokens(
        &server,
        &format!("read-only new {NEWCOMER}\nread-write ci {WRITER}\n"),
    );
    server.signal("-HUP");
    server.wait_until_said("/tokens (now 2)").await;
    server.wait_until_said("cert.pem and the key of ").await;

    // What was under way ends well, with the certificate that it began with.
    send(&mut upload, b"blob").await;
    let mut answer = [0; 12];
    upload.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    // A connection that stays open brings no old right with it.
    let refused = reader.fetch(&KEY).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
    // Another connection has the new certificate.
    let newcomer = tls::remote(&server, &new.authority, NEWCOMER);
    assert_eq!(newcomer.fetch(&KEY).await.unwrap(), hit);
    let outdated = tls::remote(&server, &old.authority, NEWCOMER);
    outdated.fetch(&KEY).await.unwrap_err();

    server.terminate();
    assert!(server.wait().success());
    let said = server.said();
    for token in [READER, WRITER, NEWCOMER] {
        assert!(!said.contains(token), "{said}");
    }
}

#[tokio::test]
async fn one_bad_file_keeps_all_of_the_old_ones() {
    let (Some(old), Some(new)) = (Certificate::new(), Certificate::new()) else {
        return;
    };
    let mut server = CacheServer::start(&old.arguments());
    server.trust(&old.authority);
    let before = std::fs::read_to_string(tokens(&server)).unwrap();
    let kept = [&old.certificate, &old.key].map(|path| std::fs::read(path).unwrap());
    let newcomers = format!("read-only new {NEWCOMER}\n");
    let broken = "-----BEGIN CERTIFICATE-----\nhunter2\n";
    // What is wrong, and how the files come to be so.
    type Break<'a> = &'a dyn Fn();
    let cases: [(&str, Break<'_>); 4] = [
        ("/tokens: starts with neither", &|| {
            new.replace(&old);
            write_tokens(&server, "admin hunter2hunter2hunter2 hunter2");
        }),
        ("holds no token", &|| {
            new.replace(&old);
            write_tokens(&server, "");
        }),
        ("is not valid PEM", &|| {
            write_tokens(&server, &newcomers);
            std::fs::write(&old.certificate, broken).unwrap();
        }),
        ("does not belong to the certificate", &|| {
            write_tokens(&server, &newcomers);
            std::fs::copy(&new.key, &old.key).unwrap();
        }),
    ];
    for (why, break_files) in cases {
        break_files();
        server.signal("-HUP");
        server.wait_until_said(why).await;
        // Another connection, with the old certificate.
        let reader = tls::remote(&server, &old.authority, READER);
        assert_eq!(reader.fetch(&OTHER).await.unwrap(), Fetched::Miss, "{why}");
        let newcomer = tls::remote(&server, &old.authority, NEWCOMER);
        let refused = newcomer.fetch(&OTHER).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied, "{why}");
        write_tokens(&server, &before);
        std::fs::write(&old.certificate, &kept[0]).unwrap();
        std::fs::write(&old.key, &kept[1]).unwrap();
    }
    let said = server.said();
    assert_eq!(
        said.matches("SIGHUP: reloaded nothing").count(),
        4,
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");

    // The next signal finds good files.
    server.signal("-HUP");
    server.wait_until_said("/tokens (now 2)").await;
}

#[tokio::test]
async fn without_tls_the_tokens_alone_are_reloaded() {
    let server = CacheServer::start(&[]);
    // With a byte order mark, as some editors write it.
    write_tokens(&server, &format!("\u{feff}read-only new {NEWCOMER}"));
    server.signal("-HUP");
    server.wait_until_said("/tokens (now 1)").await;
    let refused = remote(&server, WRITER).fetch(&KEY).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
    let newcomer = remote(&server, NEWCOMER);
    assert_eq!(newcomer.fetch(&KEY).await.unwrap(), Fetched::Miss);
    let answer = server.get("/healthz", HeaderMap::new()).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

/// The tokens of the environment hold on, and the signal does not end the server.
#[tokio::test]
async fn the_signal_without_files_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = tokio::process::Command::from(command())
        .kill_on_drop(true)
        .args(["--listen", "127.0.0.1:0", "--cache-dir"])
        .arg(folder.path())
        .env("CACHE_SERVER_TOKENS", format!("read-only ci {READER}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = out.next_line().await.unwrap().unwrap();
    let url = first.strip_prefix("listening on ").unwrap();
    let url = url.split(';').next().unwrap();

    let pid = child.id().unwrap().to_string();
    let mut kill = std::process::Command::new("kill");
    assert!(kill.args(["-HUP", &pid]).status().unwrap().success());
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = errors.next_line().await.unwrap().unwrap();
    assert!(
        said.contains("SIGHUP: there is nothing to reload"),
        "{said}"
    );
    let reader = builder(READER).build(format!("{url}/artifacts")).unwrap();
    assert_eq!(reader.fetch(&KEY).await.unwrap(), Fetched::Miss);
    let health = client().get(format!("{url}/healthz")).send().await;
    assert_eq!(health.unwrap().status(), StatusCode::OK);
}

/// Reading a pipe without a writer never ends, and no later signal would count.
#[tokio::test]
async fn a_pipe_in_place_of_a_file_keeps_the_old_tokens_and_stops_no_later_reload() {
    let mut server = CacheServer::start(&[]);
    let file = tokens(&server);
    std::fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    server.signal("-HUP");
    server.wait_until_said("tokens is not a file").await;
    assert_eq!(
        remote(&server, READER).fetch(&KEY).await.unwrap(),
        Fetched::Miss
    );

    std::fs::remove_file(&file).unwrap();
    write_tokens(&server, &format!("read-only new {NEWCOMER}\n"));
    server.signal("-HUP");
    server.wait_until_said("/tokens (now 1)").await;
    server.terminate();
    assert!(server.wait().success());
}
