//! A client that reads all that the server says.

use lsp_server::Message;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A machine that has much else to do is given this long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const VALID: &str = "
@group(0) @binding(0) var<storage, read_write> numbers: array<u32>;

@compute @workgroup_size(64)
fn double(@builtin(global_invocation_id) at: vec3<u32>) {
    numbers[at.x] = numbers[at.x] * 2u;
}
";

/// The program, with a client that is not an editor. It dies with the value.
pub(crate) struct Server {
    pub(crate) child: Child,
    input: Option<ChildStdin>,
    messages: Receiver<Value>,
    /// What was read while something else was waited for.
    kept: Vec<Value>,
    next_id: i32,
}

pub(crate) fn program() -> std::path::PathBuf {
    env!("CARGO_BIN_EXE_wgsl_language_server").into()
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn uri(path: &Path) -> String {
    url::Url::from_file_path(path).unwrap().to_string()
}

/// `/project/NAME`, which need not be there.
pub(crate) fn at(name: &str) -> String {
    format!("file:///project/{name}")
}

impl Server {
    /// Before the handshake.
    pub(crate) fn launch(cache: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(program())
            .arg("--cache-dir")
            .arg(cache)
            .args(arguments)
            .env("NO_PROXY", "127.0.0.1")
            .env("WGSL_REMOTE_TOKEN", crate::cache_server::WRITER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            while let Some(message) = read_raw(&mut output) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        Self {
            input: child.stdin.take(),
            child,
            messages,
            kept: Vec::new(),
            next_id: 0,
        }
    }

    /// After the handshake.
    pub(crate) fn start(cache: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::launch(cache, arguments);
        server.initialize(json!({ "capabilities": {} }));
        server
    }

    pub(crate) fn initialize(&mut self, params: Value) -> Value {
        let offer = self.ask("initialize", params).unwrap();
        self.notify("initialized", json!({}));
        offer
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(bytes).unwrap();
        input.flush().unwrap();
    }

    pub(crate) fn frame(&mut self, body: &str) {
        self.raw(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    }

    pub(crate) fn notify(&mut self, method: &str, params: Value) {
        self.frame(&json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string());
    }

    /// Sends a request, and tells its number.
    pub(crate) fn begin(&mut self, method: &str, params: Value) -> i32 {
        self.next_id += 1;
        let id = self.next_id;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.frame(&request.to_string());
        id
    }

    /// The answer to a request.
    pub(crate) fn answer(&mut self, id: i32) -> Result<Value, Value> {
        let mut answer =
            self.wait_for(|message| message["id"] == id && message.get("method").is_none());
        match answer.get_mut("error") {
            Some(error) => Err(error.take()),
            None => Ok(answer["result"].take()),
        }
    }

    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.begin(method, params);
        self.answer(id)
    }

    pub(crate) fn command(&mut self, name: &str, arguments: Value) -> Result<Value, Value> {
        let params = json!({ "command": name, "arguments": arguments });
        self.ask("workspace/executeCommand", params)
    }

    pub(crate) fn status(&mut self) -> Value {
        self.command("wgsl.status", json!([])).unwrap()
    }

    /// The number of something in the status.
    pub(crate) fn count(&mut self, name: &str) -> u64 {
        self.status()[name].as_u64().unwrap()
    }

    pub(crate) fn open(&mut self, uri: &str, text: &str) {
        let document = json!({ "uri": uri, "languageId": "wgsl", "version": 0, "text": text });
        self.notify("textDocument/didOpen", json!({ "textDocument": document }));
    }

    pub(crate) fn change(&mut self, uri: &str, version: i32, changes: Value) {
        let document = json!({ "uri": uri, "version": version });
        self.notify(
            "textDocument/didChange",
            json!({ "textDocument": document, "contentChanges": changes }),
        );
    }

    pub(crate) fn about(&mut self, method: &str, uri: &str) {
        self.notify(method, json!({ "textDocument": { "uri": uri } }));
    }

    /// The diagnostics of this version of a document.
    pub(crate) fn diagnostics(&mut self, uri: &str, version: i32) -> Vec<Value> {
        let told = self
            .wait_for(|message| is_about(message, uri) && message["params"]["version"] == version);
        told["params"]["diagnostics"].as_array().unwrap().clone()
    }

    /// The next notification of this method.
    pub(crate) fn notified(&mut self, method: &str) -> Value {
        self.wait_for(|message| message["method"] == method)["params"].take()
    }

    /// The next log line that holds this.
    pub(crate) fn logged(&mut self, part: &str) -> String {
        let is_it = |message: &Value| {
            let text = message["params"]["message"].as_str().unwrap_or_default();
            message["method"] == "window/logMessage" && text.contains(part)
        };
        let message = self.wait_for(is_it);
        message["params"]["message"].as_str().unwrap().to_owned()
    }

    /// The first message like this, of those that came and were not waited for, or that come.
    pub(crate) fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&is_it) {
            return self.kept.remove(at);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) if is_it(&message) => return message,
                Ok(message) => self.kept.push(message),
                Err(error) => panic!("{error} waiting; there came {}", self.came()),
            }
        }
    }

    fn came(&self) -> String {
        let last = self.kept.iter().rev().take(5);
        last.fold(String::new(), |mut text, message| {
            let _ = writeln!(text, "{message}");
            text
        })
    }

    /// All that came and was not waited for.
    pub(crate) fn take_kept(&mut self) -> Vec<Value> {
        while let Ok(message) = self.messages.try_recv() {
            self.kept.push(message);
        }
        std::mem::take(&mut self.kept)
    }

    /// Ends as editors do, and tells the exit code.
    pub(crate) fn stop(mut self) -> i32 {
        assert_eq!(self.ask("shutdown", Value::Null), Ok(Value::Null));
        self.notify("exit", Value::Null);
        self.exit_code()
    }

    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits for its end.
    pub(crate) fn exit_code(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.messages.recv_timeout(Duration::from_millis(10)) {
                Ok(message) => self.kept.push(message),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| panic!("{status}"));
            }
            assert!(Instant::now() < deadline, "it does not end");
        }
    }

    /// The memory that it has now, in MiB.
    pub(crate) fn mebibytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse::<u64>().unwrap() >> 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn is_about(message: &Value, uri: &str) -> bool {
    message["method"] == "textDocument/publishDiagnostics" && message["params"]["uri"] == uri
}

/// `Message` has no number that is null, as errors about malformed messages have.
fn read_raw(output: &mut BufReader<impl std::io::Read>) -> Option<Value> {
    use std::io::BufRead as _;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim().split_once(": ") {
            Some((_, value)) => length = value.parse().ok()?,
            None => break,
        }
    }
    let mut body = vec![0; length];
    output.read_exact(&mut body).ok()?;
    let value: Value = serde_json::from_slice(&body).unwrap();
    if !value["id"].is_null() || value.get("method").is_some() {
        let message = serde_json::from_value::<Message>(value.clone());
        message.unwrap_or_else(|error| panic!("{error}: {value}"));
    }
    Some(value)
}
