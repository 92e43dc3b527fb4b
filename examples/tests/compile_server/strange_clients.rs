//! Clients that are slow, or send what no client should.

use super::support::{DOUBLE, Service, header, narrow, problem, talk};
use reqwest::StatusCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_millis(50);

/// The service answers. Beside a busy machine a request may itself be too slow for these limits.
async fn is_well(service: &Service) {
    loop {
        let answer = service.post("spirv", DOUBLE).send().await;
        match answer.map(|response| response.status()) {
            Ok(StatusCode::OK) => return,
            Ok(status) => assert_eq!(status, StatusCode::REQUEST_TIMEOUT),
            Err(error) => assert!(!error.is_connect(), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_source_that_does_not_come_is_not_waited_for() {
    let service = Service::start_with(narrow().build(), SOON).await;
    let head = "POST /compile/spirv HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\nfn ";
    let answer = talk(service.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    is_well(&service).await;
}

/// Byte by byte, for as long as the server reads.
#[tokio::test]
async fn a_source_that_trickles_is_not_waited_for() {
    let service = Service::start_with(narrow().build(), SOON).await;
    let stream = TcpStream::connect(service.address).await.unwrap();
    let (mut answer, mut body) = stream.into_split();
    let head = "POST /compile/spirv HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n";
    body.write_all(head.as_bytes()).await.unwrap();
    let trickle = async {
        while body.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let mut start = [0; 12];
    tokio::select! {
        read = answer.read_exact(&mut start) => { read.unwrap(); }
        () = trickle => panic!("closed without an answer"),
    }
    assert_eq!(&start, b"HTTP/1.1 408");
    is_well(&service).await;
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let service = Service::start_with(narrow().build(), SOON).await;
    let answer = talk(service.address, b"POST /compile/spirv HTTP/1.1\r\nHos").await;
    assert_eq!(answer, "");
    is_well(&service).await;
}

#[tokio::test]
async fn headers_that_make_no_sense_are_told_or_refused() {
    let service = Service::start(narrow().build()).await;
    for deadline in [
        "",
        "-1",
        "1.5",
        "1e3",
        "soon",
        "99999999999999999999999",
        "\u{e9}",
    ] {
        let request = service.post("spirv", DOUBLE);
        let response = request.header("compile-deadline-ms", deadline).send().await;
        let problem = problem(response.unwrap(), StatusCode::BAD_REQUEST).await;
        assert_eq!(problem["type"], "urn:problem-type:bad-option", "{deadline}");
    }
    // The longest that can be said is no longer than the server waits.
    let request = service.post("spirv", DOUBLE);
    let longest = request.header("compile-deadline-ms", u64::MAX.to_string());
    assert_eq!(longest.send().await.unwrap().status(), StatusCode::OK);
    let held = service.hold().await;
    let request = service.post("hlsl", DOUBLE);
    let none = request.header("compile-deadline-ms", "0").send().await;
    problem(none.unwrap(), StatusCode::GATEWAY_TIMEOUT).await;
    drop(held);
    is_well(&service).await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_server_is_well() {
    let service = Service::start(narrow().build()).await;
    let post = "POST /compile/spirv HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let long = "x".repeat(1 << 20);
    let many = "a: b\r\n".repeat(10_000);
    for (request, statuses) in [
        ("\0\0\0\0\r\n\r\n".to_owned(), &["400"][..]),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), &["400", "505"]),
        (format!("{post}Content-Length: -5\r\n\r\n"), &["400"]),
        (
            format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            &["400"],
        ),
        (
            format!("{post}Content-Length: 99999999999999999999999\r\n\r\n"),
            &["400", "413"],
        ),
        (
            format!("{post}Content-Length: 9999999999\r\n\r\n"),
            &["413"],
        ),
        (
            format!("{post}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n"),
            &["400"],
        ),
        (
            format!("{post}Transfer-Encoding: chunked\r\n\r\nnope\r\n"),
            &["400"],
        ),
        (format!("{post}X: {long}\r\n\r\n"), &["431", ""]),
        (format!("{post}{many}\r\n"), &["431", ""]),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), &["414", "431", ""]),
        (
            "GET /metrics/../compile HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            &["404"],
        ),
        (
            "PATCH /compile/spirv HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            &["405"],
        ),
    ] {
        let answer = talk(service.address, request.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let request = &request[..request.len().min(200)];
        assert!(statuses.contains(&status), "{request}: {answer}");
        is_well(&service).await;
    }
}

#[tokio::test]
async fn a_long_path_or_query_is_not_kept_in_full() {
    let service = Service::start(narrow().build()).await;
    let long = "y".repeat(8000);
    for path in [
        long.clone(),
        format!("spirv?version={long}"),
        format!("glsl?entry={long}"),
    ] {
        let response = service.post(&path, DOUBLE).send().await.unwrap();
        assert!(response.status().is_client_error(), "{path}");
        assert_eq!(
            header(&response, "content-type"),
            "application/problem+json"
        );
    }
    let text = service.get("/status.json").send().await.unwrap();
    assert!(text.bytes().await.unwrap().len() < 8000);
}

#[tokio::test]
async fn a_request_that_is_refused_leaves_its_connection_to_the_next() {
    let service = Service::start(narrow().build()).await;
    let body = " ".repeat(100_000);
    for path in [
        "/compile/dxil",
        "/compile/spirv?version=9",
        "/nowhere",
        "/metrics",
    ] {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        let length = body.len();
        let refused =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        let next = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all((refused + next).as_bytes()).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        assert!(answers.starts_with("HTTP/1.1 4"), "{path}: {answers}");
        assert!(answers.ends_with("well\n"), "{path}: {answers}");
    }
}
