//! What an editor shows.

use crate::cache_server::CacheServer;
use crate::support::{Server, VALID, at, folder};
use serde_json::{Value, json};
use std::net::TcpListener;

/// An error in a line with characters of several bytes before it.
const BROKEN: &str = "fn f() {\n    /* \u{e9}\u{1f600} */ let x: u32 = nothing;\n}\n";

fn range(diagnostic: &Value) -> [u64; 4] {
    let range = &diagnostic["range"];
    ["start", "end"]
        .map(|end| ["line", "character"].map(|part| range[end][part].as_u64().unwrap()))
        .concat()
        .try_into()
        .unwrap()
}

/// As naga tells it, with columns in bytes.
fn place_in(source: &str) -> (usize, usize) {
    let error = match naga::front::wgsl::parse_str(source) {
        Err(error) => error,
        Ok(_) => panic!("no error"),
    };
    let (span, _) = error.labels().next().unwrap();
    let range = span.to_range().unwrap();
    (range.start, range.end)
}

#[test]
fn a_document_is_opened_broken_mended_and_closed() {
    let cache = folder();
    let mut server = Server::start(cache.path(), &[]);
    let uri = at("a.wgsl");
    server.open(&uri, VALID);
    assert_eq!(server.diagnostics(&uri, 0), Vec::<Value>::new());

    let at_number =
        json!({ "start": { "line": 5, "character": 36 }, "end": { "line": 5, "character": 38 } });
    server.change(&uri, 1, json!([{ "range": at_number, "text": "3.5" }]));
    let broken = VALID.replace("2u", "3.5");
    let error = naga::front::wgsl::parse_str(&broken);
    let told = server.diagnostics(&uri, 1);
    assert_eq!(told.len(), 1, "{told:?}");
    // It parses or it does not: either way naga finds it wrong, and says where.
    let line = broken.lines().nth(5).unwrap();
    let [start, _, end, _] = range(&told[0]);
    assert!(start >= 3 && end <= 6, "{told:?} in {line}: {error:?}");
    assert_eq!(told[0]["source"], "naga");
    assert_eq!(told[0]["severity"], 1);

    let at_number =
        json!({ "start": { "line": 5, "character": 36 }, "end": { "line": 5, "character": 39 } });
    server.change(&uri, 2, json!([{ "range": at_number, "text": "2u" }]));
    assert_eq!(server.diagnostics(&uri, 2), Vec::<Value>::new());

    // Several changes in one notification, each on the text that the one before has left.
    let first =
        json!({ "start": { "line": 0, "character": 0 }, "end": { "line": 0, "character": 0 } });
    let changes = json!([
        { "text": "fn f() -> u32 { return ; }" },
        { "range": first, "text": "\n" },
        { "range": { "start": { "line": 1, "character": 23 }, "end": { "line": 1, "character": 23 } }, "text": "7u" },
    ]);
    server.change(&uri, 3, changes);
    assert_eq!(server.diagnostics(&uri, 3), Vec::<Value>::new());
    server.change(&uri, 4, json!([{ "text": "fn" }]));
    assert_eq!(server.diagnostics(&uri, 4).len(), 1);
    server.about("textDocument/didClose", &uri);
    let cleared = server.notified("textDocument/publishDiagnostics");
    assert_eq!(cleared, json!({ "uri": uri, "diagnostics": [] }));
    assert_eq!(server.stop(), 0);
}

#[test]
fn columns_are_in_the_units_that_the_client_asked_for() {
    let (start, end) = place_in(BROKEN);
    let line_start = BROKEN.find('\n').unwrap() + 1;
    for (offered, taken) in [
        (json!(null), "utf-16"),
        (json!(["utf-16"]), "utf-16"),
        (json!(["utf-16", "utf-8"]), "utf-8"),
        (json!(["utf-32"]), "utf-32"),
        (json!("nonsense"), "utf-16"),
    ] {
        let cache = folder();
        let mut server = Server::launch(cache.path(), &[]);
        let general = json!({ "positionEncodings": offered });
        let offer = server.initialize(json!({ "capabilities": { "general": general } }));
        assert_eq!(offer["capabilities"]["positionEncoding"], taken);
        let column = |offset: usize| {
            let before = &BROKEN[line_start..offset];
            match taken {
                "utf-8" => before.len(),
                "utf-16" => before.encode_utf16().count(),
                _ => before.chars().count(),
            }
        };
        let uri = at("a.wgsl");
        server.open(&uri, BROKEN);
        let told = server.diagnostics(&uri, 0);
        let expected = [1, column(start) as u64, 1, column(end) as u64];
        assert_eq!(range(&told[0]), expected, "{taken}: {told:?}");
        // The place that was told, sent back, mends the document.
        let mended = json!([{ "range": told[0]["range"], "text": "1" }]);
        server.change(&uri, 1, mended);
        let left = server.diagnostics(&uri, 1);
        assert_eq!(left, Vec::<Value>::new(), "{taken}");
    }
}

fn hover(server: &mut Server, uri: &str) -> String {
    let at = json!({ "line": 0, "character": 0 });
    let params = json!({ "textDocument": { "uri": uri }, "position": at });
    let hover = server.ask("textDocument/hover", params).unwrap();
    hover["contents"]["value"].as_str().unwrap().to_owned()
}

#[test]
fn a_module_is_compiled_by_its_code_lens_and_a_hover_tells_where_it_is() {
    let (cache, out) = (folder(), folder());
    let out_path = out.path().to_str().unwrap();
    let mut server = Server::launch(cache.path(), &["--out", out_path]);
    let window = json!({ "showDocument": { "support": true } });
    server.initialize(json!({ "capabilities": { "window": window } }));
    let uri = at("double.wgsl");
    server.open(&uri, VALID);
    let text = hover(&mut server, &uri);
    assert_eq!(text.matches("not compiled yet").count(), 3, "{text}");

    let params = json!({ "textDocument": { "uri": uri } });
    let lenses = server.ask("textDocument/codeLens", params).unwrap();
    let lenses = lenses.as_array().unwrap();
    assert_eq!(lenses.len(), 3);
    for (lens, (end, begins)) in lenses.iter().zip([
        ("spv", &b"\x03\x02\x23\x07"[..]),
        ("metal", b"// language: metal2.4"),
        ("hlsl", b"struct NagaConstants"),
    ]) {
        let command = &lens["command"];
        let name = command["command"].as_str().unwrap();
        let done = server.command(name, command["arguments"].clone()).unwrap();
        assert_eq!(done["source"], "compiled");
        let file = done["uri"].as_str().unwrap();
        assert!(file.ends_with(&format!("/double.{end}")), "{done}");
        let path = file.strip_prefix("file://").unwrap();
        assert!(path.starts_with(out_path));
        let code = std::fs::read(path).unwrap();
        let head = String::from_utf8_lossy(&code[..code.len().min(200)]).into_owned();
        assert!(code.starts_with(begins) || end == "hlsl", "{end}: {head}");
        // A text is opened, and what is no text is told of.
        match end {
            "spv" => {
                let told = server.notified("window/showMessage");
                assert!(told["message"].as_str().unwrap().contains(path), "{told}");
            }
            _ => assert_eq!(server.notified("window/showDocument")["uri"], file),
        }
        let key = done["key"].as_str().unwrap();
        let text = hover(&mut server, &uri);
        assert!(text.contains(key), "{key}: {text}");
        let again = server.command(name, command["arguments"].clone()).unwrap();
        assert_ne!(again["source"], "compiled");
        if end != "spv" {
            assert_eq!(server.notified("window/showDocument")["uri"], file);
        }
    }
    let text = hover(&mut server, &uri);
    assert_eq!(text.matches("compiled, in memory").count(), 3, "{text}");

    // Another spelling is the same module.
    server.open(&at("respelled.wgsl"), &VALID.replace("numbers", "data"));
    assert_eq!(hover(&mut server, &at("respelled.wgsl")), text);

    server.change(&uri, 1, json!([{ "text": "fn" }]));
    let refused = server
        .command("wgsl.compile", json!([uri, "msl"]))
        .unwrap_err();
    assert_eq!(refused["code"], -32803, "{refused}");
    assert!(
        refused["message"].as_str().unwrap().starts_with("MSL: "),
        "{refused}"
    );
    assert_eq!(server.stop(), 0);
}

#[test]
fn what_one_editor_has_compiled_another_gets_from_the_remote() {
    let remote = CacheServer::start(&[]);
    let url = remote.url("/artifacts");
    let arguments = ["--remote", url.as_str(), "--remote-writes"];
    let (one, two) = (folder(), folder());
    let uri = at("double.wgsl");
    let mut server = Server::start(one.path(), &arguments);
    server.open(&uri, VALID);
    server.command("wgsl.compile", json!([uri, "msl"])).unwrap();
    assert_eq!(server.stop(), 0, "and everything is written");

    let mut server = Server::start(two.path(), &arguments);
    server.open(&uri, VALID);
    let done = server.command("wgsl.compile", json!([uri, "msl"])).unwrap();
    assert_eq!(done["source"], "remote", "{done}");
    assert_eq!(server.count("parses"), 0, "the spelling is known, too");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_request_that_is_cancelled_has_one_answer() {
    // It takes connections, and never answers.
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hung.local_addr().unwrap());
    let cache = folder();
    let mut server = Server::start(cache.path(), &["--remote", &url]);
    let uri = at("double.wgsl");
    server.open(&uri, VALID);
    let params = json!({ "command": "wgsl.compile", "arguments": [uri, "msl"] });
    let id = server.begin("workspace/executeCommand", params.clone());
    server.notify("$/cancelRequest", json!({ "id": id }));
    let cancelled = server.answer(id).unwrap_err();
    assert_eq!(cancelled["code"], -32800, "{cancelled}");
    // What nobody asks for, and what has its answer, may be cancelled as well.
    for id in [json!(id), json!("nonsense"), json!(-1)] {
        server.notify("$/cancelRequest", json!({ "id": id }));
    }
    assert_eq!(server.count("requests"), 0);
    let done = server.ask("workspace/executeCommand", params).unwrap();
    assert_eq!(done["source"], "compiled");
    let answers = server.take_kept();
    assert!(
        answers.iter().all(|message| message["id"] != id),
        "{answers:?}"
    );
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_session_begins_and_ends_in_order() {
    let cache = folder();
    let mut server = Server::launch(cache.path(), &[]);
    let early = server.ask("textDocument/hover", json!({})).unwrap_err();
    assert_eq!(early["code"], -32002);
    server.notify("textDocument/didOpen", json!({}));
    server.initialize(json!({ "capabilities": {} }));
    let twice = server
        .ask("initialize", json!({ "capabilities": {} }))
        .unwrap_err();
    assert_eq!(twice["code"], -32600);
    assert_eq!(server.ask("shutdown", Value::Null), Ok(Value::Null));
    for method in ["textDocument/hover", "shutdown", "initialize"] {
        let late = server.ask(method, json!({})).unwrap_err();
        assert_eq!(late["code"], -32600, "{method}");
    }
    server.notify("exit", Value::Null);
    assert_eq!(server.exit_code(), 0);

    // Without the shutdown, before and after the handshake.
    for initializes in [false, true] {
        let mut server = Server::launch(cache.path(), &[]);
        if initializes {
            server.initialize(json!({ "capabilities": {} }));
        }
        server.notify("exit", Value::Null);
        assert_eq!(server.exit_code(), 1);
    }
}
