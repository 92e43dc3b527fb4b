//! `GET /artifact/{key}` for caches between the server and its clients.

use super::support::{DOUBLE, Service, header, narrow, problem};
use reqwest::StatusCode;

#[tokio::test]
async fn an_artifact_is_kept_for_ever_and_asked_for_by_its_tag() {
    let service = Service::start(narrow().build()).await;
    let compiled = service.post("glsl", DOUBLE).send().await.unwrap();
    let key = header(&compiled, "artifact-key").to_owned();
    let path = format!("/artifact/{key}");
    let whole = service.get(&path).send().await.unwrap();
    assert_eq!(
        header(&whole, "cache-control"),
        "max-age=31536000, immutable"
    );
    assert_eq!(header(&whole, "content-type"), "text/plain; charset=utf-8");
    let tag = header(&whole, "etag").to_owned();
    assert_eq!(tag, format!("\"{key}\""));
    assert_eq!(header(&compiled, "etag"), tag);

    for known in [&tag, &format!("\"other\", W/{tag}"), "*"] {
        let request = service.get(&path).header("if-none-match", known);
        let same = request.send().await.unwrap();
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(header(&same, "etag"), tag);
        assert!(same.bytes().await.unwrap().is_empty());
    }
    let request = service.get(&path).header("if-none-match", "\"other\"");
    let other = request.send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    assert_eq!(other.bytes().await.unwrap(), whole.bytes().await.unwrap());
}

#[tokio::test]
async fn what_is_not_there_is_no_artifact_to_keep() {
    let service = Service::start(narrow().build()).await;
    let path = format!("/artifact/{}", "ab".repeat(32));
    let request = service.get(&path).header("if-none-match", "*");
    let missing = request.send().await.unwrap();
    assert_eq!(header(&missing, "cache-control"), "");
    problem(missing, StatusCode::NOT_FOUND).await;
    for key in [
        "",
        "xyz",
        "%00",
        "..%2f..%2fetc%2fpasswd",
        &"a".repeat(5000),
    ] {
        let response = service.get(&format!("/artifact/{key}")).send().await;
        problem(response.unwrap(), StatusCode::NOT_FOUND).await;
    }
}
