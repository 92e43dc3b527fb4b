//! A headless Chromium, driven through ChromeDriver by the WebDriver protocol.

use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Without these, Chromium talks to servers of its maker.
const QUIET: [&str; 8] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

pub(crate) struct Browser {
    driver: Child,
    session: String,
    http: Client,
    _profile: TempDir,
}

impl Browser {
    /// `None` where there is no ChromeDriver, which is said.
    pub(crate) async fn start() -> Option<Self> {
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut driver) = started else {
            assert!(
                std::env::var_os("CI").is_none(),
                "chromedriver is not installed"
            );
            println!("skipped: chromedriver is not installed");
            return None;
        };
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = said.find_map(|line| {
            let line = line.unwrap();
            let port = line.rsplit_once("successfully on port ")?.1;
            Some(port.trim_end_matches('.').to_owned())
        });
        std::thread::spawn(move || said.count());
        let profile = tempfile::tempdir().unwrap();
        let own = format!("--user-data-dir={}", profile.path().display());
        let arguments: Vec<&str> = QUIET.into_iter().chain([own.as_str()]).collect();
        let http = Client::builder().no_proxy().build().unwrap();
        let mut browser = Self {
            session: format!("http://127.0.0.1:{}/session", port.unwrap()),
            driver,
            http,
            _profile: profile,
        };
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.call(Method::POST, "", wanted).await;
        let id = session["sessionId"].as_str().unwrap();
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let request = self
            .http
            .request(method.clone(), format!("{}{path}", self.session));
        let request = match method {
            Method::GET | Method::DELETE => request,
            _ => request.body(body.to_string()),
        };
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{path}: {value}");
        value
    }

    pub(crate) async fn open(&self, url: &str) {
        self.call(Method::POST, "/url", json!({"url": url})).await;
    }

    /// What the body of a function gives. It may be a promise.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.call(Method::POST, "/execute/sync", body).await
    }

    /// Waits until an expression is true, as long as the driver lets a script run: 30 s.
    pub(crate) async fn wait_for(&self, expression: &str) {
        let script = format!(
            "return new Promise((done) => {{
                 const look = () => ({expression}) ? done(true) : setTimeout(look, 20);
                 look();
             }});"
        );
        self.run(&script).await;
    }

    /// A command of the DevTools protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.call(Method::POST, "/goog/cdp/execute", body).await;
    }

    /// Presses a key on whatever has the focus.
    pub(crate) async fn press(&self, key: &str) {
        let keys = [("keyDown", key), ("keyUp", key)];
        let keys = keys.map(|(kind, key)| json!({"type": kind, "value": key}));
        let body = json!({"actions": [{"type": "key", "id": "keys", "actions": keys}]});
        self.call(Method::POST, "/actions", body).await;
    }

    /// What the console has shown since the last call, as one line each.
    pub(crate) async fn console(&self) -> Vec<String> {
        let lines = self
            .call(Method::POST, "/se/log", json!({"type": "browser"}))
            .await;
        let lines = lines.as_array().unwrap().iter();
        lines.map(|line| line.to_string()).collect()
    }

    /// The page as PNG, in base64.
    pub(crate) async fn screenshot(&self) -> String {
        let picture = self.call(Method::GET, "/screenshot", Value::Null).await;
        picture.as_str().unwrap().to_owned()
    }

    pub(crate) async fn close(self) {
        self.call(Method::DELETE, "", Value::Null).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
