//! The page of `cache_server`.

#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../cache_server/support.rs"]
mod support;

use pipeline_cache::PipelineCacheStore as _;
use reqwest::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use serde_json::json;
use support::{CacheServer, KEY, OTHER, READER, WRITER, artifact, client, path, remote};

use super::browser::Browser;
use super::looks_well;

async fn with_password(server: &CacheServer, path: &str, password: Option<&str>) -> Response {
    let request = client().get(server.url(path));
    let request = match password {
        Some(password) => request.basic_auth("anybody", Some(password)),
        None => request,
    };
    request.send().await.unwrap()
}

#[tokio::test]
async fn the_page_takes_a_token_as_the_password_and_shows_none() {
    let server = CacheServer::start(&[]);
    for path in ["/", "/status", "/status.css", "/status.js"] {
        for password in [None, Some("a-password-that-is-no-token")] {
            let refused = with_password(&server, path, password).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
            let asks = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap();
            assert!(asks.starts_with("Basic realm="), "{asks}");
        }
    }
    let refused = with_password(&server, "/metrics", None).await;
    assert_eq!(refused.headers()[WWW_AUTHENTICATE], "Bearer", "no browser");

    remote(&server, WRITER)
        .put(&KEY, artifact(5000))
        .await
        .unwrap();
    let reader = remote(&server, READER);
    reader.get(&KEY).await.unwrap();
    reader.get(&OTHER).await.unwrap();
    for (path, kind) in [
        ("/", "text/html"),
        ("/status", "text/html"),
        ("/status.css", "text/css"),
        ("/status.js", "text/javascript"),
    ] {
        let answer = with_password(&server, path, Some(READER)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let head = answer.headers();
        assert!(head[CONTENT_TYPE].to_str().unwrap().starts_with(kind));
        let policy = head[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let text = answer.text().await.unwrap();
        assert!(!text.contains(READER) && !text.contains(WRITER), "{text}");
    }
    // Whole without a script.
    let text = with_password(&server, "/status", Some(READER)).await;
    let text = text.text().await.unwrap();
    let row = format!("<td>reader</td><td>GET <code>/artifacts/{OTHER}.bin</code></td>");
    for part in [
        "<dt>Hits</dt><dd>1</dd>",
        "<dt>Misses</dt><dd>1</dd>",
        "<dt>Stored</dt><dd>1</dd>",
        "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>",
        &row,
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("Object store"), "{text}");
    let (_, failed) = text.split_once("id=\"failures\"").unwrap();
    assert!(
        failed.contains("None yet."),
        "a miss is no failure: {failed}"
    );

    let forbidden = client().delete(server.url(&path(&KEY))).bearer_auth(READER);
    forbidden.send().await.unwrap();
    let text = with_password(&server, "/status", Some(READER)).await;
    let text = text.text().await.unwrap();
    let (_, failed) = text.split_once("id=\"failures\"").unwrap();
    let row = format!("<td>reader</td><td>DELETE <code>/artifacts/{KEY}.bin</code></td>");
    assert!(failed.contains(&row), "{failed}");
    assert_eq!(failed.matches("<code>").count(), 1, "{failed}");
    let stranger = client().get(server.url(&path(&KEY)));
    stranger.send().await.unwrap();
    remote(&server, "a-token-of-nobody")
        .get(&KEY)
        .await
        .unwrap_err();
    let text = with_password(&server, "/status", Some(READER)).await;
    let text = text.text().await.unwrap();
    for who in ["no token", "unknown token"] {
        let row = format!("<td>{who}</td><td>GET <code>/artifacts/{KEY}.bin</code></td>");
        assert!(text.contains(&row), "{row}: {text}");
    }
    let changed = client().put(server.url("/status")).bearer_auth(WRITER);
    let changed = changed.send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[cfg(feature = "object-store")]
#[tokio::test]
async fn the_page_says_how_the_object_store_does() {
    let store = tempfile::tempdir().unwrap();
    let url = format!("file://{}", store.path().display());
    let server = CacheServer::start(&["--store", &url]);
    remote(&server, WRITER)
        .put(&KEY, artifact(10))
        .await
        .unwrap();
    server
        .wait_for("cache_server_store_puts_total", |puts| puts == 1)
        .await;
    let text = with_password(&server, "/status", Some(READER)).await;
    let text = text.text().await.unwrap();
    for part in [
        "Object store",
        "<dt>State</dt><dd>in use</dd>",
        "<dt>Uploaded</dt><dd>1</dd>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn the_figures_move_in_a_browser_that_was_given_a_token() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let server = CacheServer::start(&[]);
    browser
        .open(&format!("http://anybody:{READER}@{}/", server.address()))
        .await;
    let hits = "[...document.querySelectorAll('#artifacts dd')][0].textContent";
    assert_eq!(browser.run(&format!("return {hits};")).await, json!("0"));
    browser
        .wait_for("document.getElementById('detail').textContent.startsWith('Refreshes')")
        .await;
    remote(&server, WRITER)
        .put(&KEY, artifact(5000))
        .await
        .unwrap();
    remote(&server, READER).get(&KEY).await.unwrap();
    browser.wait_for(&format!("{hits} === '1'")).await;
    browser
        .wait_for("document.querySelectorAll('#requests tbody tr').length === 2")
        .await;
    looks_well(&browser, "cache_server-").await;
    assert_eq!(browser.console().await, Vec::<String>::new());

    drop(server);
    browser
        .wait_for("document.getElementById('state').className === 'bad'")
        .await;
    browser.close().await;
}
