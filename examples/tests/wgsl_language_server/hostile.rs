//! Clients and sources that mean no good.

use crate::support::{Server, VALID, at, folder};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// It answers as ever.
fn is_well(server: &mut Server) {
    let uri = at("well.wgsl");
    server.open(&uri, VALID);
    assert_eq!(server.diagnostics(&uri, 0), Vec::<Value>::new());
    server.about("textDocument/didClose", &uri);
}

#[test]
fn malformed_messages_are_answered_and_cost_nothing_else() {
    let cache = folder();
    let mut server = Server::start(cache.path(), &[]);
    for (body, code) in [
        ("{", -32700),
        ("\u{0}", -32700),
        ("", -32700),
        (&"[".repeat(100_000), -32700),
        ("[]", -32600),
        ("{}", -32600),
        (r#"{"jsonrpc":"2.0","id":{},"result":null}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1e99,"result":null}"#, -32600),
    ] {
        server.frame(body);
        let told = server.wait_for(|message| message.get("error").is_some());
        assert_eq!(told["error"]["code"], code, "{body:.40}: {told}");
        assert_eq!(told["id"], Value::Null);
    }
    is_well(&mut server);
    for method in ["nonsense", "$/nonsense", "textDocument/completion", ""] {
        let unknown = server.ask(method, json!({})).unwrap_err();
        assert_eq!(unknown["code"], -32601, "{method}");
        server.notify(method, json!([1, 2]));
    }
    for (method, params) in [
        ("textDocument/hover", json!({})),
        ("textDocument/hover", json!(null)),
        ("textDocument/codeLens", json!([])),
        ("workspace/executeCommand", json!({ "command": "nonsense" })),
        (
            "workspace/executeCommand",
            json!({ "command": "wgsl.compile" }),
        ),
        (
            "workspace/executeCommand",
            json!({ "command": "wgsl.compile", "arguments": ["file:///not/open", "msl"] }),
        ),
        (
            "workspace/executeCommand",
            json!({ "command": "wgsl.compile", "arguments": [7, "msl", {}] }),
        ),
    ] {
        let refused = server.ask(method, params.clone()).unwrap_err();
        assert_eq!(refused["code"], -32602, "{method} {params}");
    }
    is_well(&mut server);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_header_that_says_no_length_ends_the_session() {
    for header in [
        "nonsense\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 99999999999999999999999\r\n\r\n",
    ] {
        let cache = folder();
        let mut server = Server::start(cache.path(), &["--log", "off"]);
        server.raw(header.as_bytes());
        assert_eq!(server.exit_code(), 1, "{header}");
    }
}

#[test]
fn ranges_out_of_bounds_are_taken_for_the_nearest_place() {
    let cache = folder();
    let mut server = Server::start(cache.path(), &[]);
    let uri = at("a.wgsl");
    let at = |line: u32, character: u32| json!({ "line": line, "character": character });
    server.open(&uri, "fn f() {}");
    let end = json!({ "start": at(4_000_000_000, 7), "end": at(u32::MAX, u32::MAX) });
    server.change(&uri, 1, json!([{ "range": end, "text": " fn g() {" }]));
    assert_eq!(server.diagnostics(&uri, 1).len(), 1);
    let reversed = json!({ "start": at(0, u32::MAX), "end": at(0, 18) });
    server.change(&uri, 2, json!([{ "range": reversed, "text": "}" }]));
    assert_eq!(server.diagnostics(&uri, 2), Vec::<Value>::new());

    // What is no range at all changes nothing, and is told.
    for bad in [
        json!({ "start": { "line": -1, "character": 0 }, "end": at(0, 0) }),
        json!("nonsense"),
    ] {
        server.change(&uri, 3, json!([{ "range": bad, "text": "fn" }]));
        server.logged("textDocument/didChange");
    }
    server.change("file:///not/open", 1, json!([{ "text": "fn" }]));
    server.logged("is not open");
    // What the editor has is not known any more, and no later range is taken for one of it.
    let start = json!({ "start": at(0, 0), "end": at(0, 0) });
    server.change(&uri, 4, json!([{ "range": start, "text": "// " }]));
    server.change(&uri, 5, json!([{ "text": "fn h() {}" }]));
    assert_eq!(server.diagnostics(&uri, 5), Vec::<Value>::new());
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_source_too_large_or_too_deep_is_not_checked_and_said_to_be_so() {
    let cache = folder();
    let mut server = Server::start(cache.path(), &["--max-source", "100K"]);
    let deep = |open: &str, middle: &str, close: &str, times| {
        let (open, close) = (open.repeat(times), close.repeat(times));
        format!("fn f() {{ var y = 1; let x = {open}{middle}{close}; }}")
    };
    let chain = "else if true {} ".repeat(5_000);
    for (name, text, told) in [
        ("large", " ".repeat(20 << 20), "--max-source"),
        ("sum", deep("", "1", "+1", 40_000), "nests deeper"),
        ("variables", deep("", "y", "+y", 40_000), "nests deeper"),
        ("indices", deep("", "y", "[0]", 20_000), "nests deeper"),
        (
            "ifs",
            format!("fn f() {{ if true {{}} {chain} }}"),
            "nests deeper",
        ),
        ("brackets", deep("(", "1", ")", 40_000), "nests deeper"),
        ("negations", deep("- ", "y", "", 40_000), "nests deeper"),
        // As deep as is checked: its end is an error of naga, or none, and not that of the process.
        ("almost", deep("", "y", "+y", 490), ""),
        (
            "almost if",
            format!("fn f() {{ if true {{}} {} }}", &chain[..16 * 490]),
            "",
        ),
        ("almost index", deep("", "y", "[0]", 490), ""),
        ("almost brackets", deep("(", "1", ")", 190), ""),
    ] {
        let uri = at(name);
        server.open(&uri, &text);
        let diagnostics = server.diagnostics(&uri, 0);
        let first = diagnostics
            .first()
            .map_or("", |it| it["message"].as_str().unwrap());
        assert!(first.contains(told), "{name}: {first:.200}");
        let compiled = server.command("wgsl.compile", json!([uri, "msl"]));
        assert!(told.is_empty() || compiled.is_err(), "{name}");
        server.about("textDocument/didClose", &uri);
    }
    is_well(&mut server);
    assert_eq!(server.stop(), 0);
}

#[test]
fn the_server_ends_with_its_client() {
    let cache = folder();
    let mut server = Server::start(cache.path(), &[]);
    server.open(&at("a.wgsl"), VALID);
    server.close_input();
    assert_eq!(server.exit_code(), 1);

    // The client is gone, and another process holds its ends of the pipes.
    let mut client = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = Server::launch(cache.path(), &[]);
    server.initialize(json!({ "capabilities": {}, "processId": client.id() }));
    is_well(&mut server);
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(server.exit_code(), 1);
}
