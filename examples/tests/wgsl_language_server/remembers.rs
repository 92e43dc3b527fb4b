//! What the cache is for: nothing is checked twice, whoever has checked it, and nobody waits for it.

use crate::cache_server::CacheServer;
use crate::support::{Server, VALID, at, folder, uri};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vello_shaders::SHADERS;

const FILES: usize = 300;

/// As in a large project: most are valid, and some are not.
fn write_workspace(folder: &Path) {
    std::fs::create_dir_all(folder.join("node_modules/nobody")).unwrap();
    for number in 0..FILES {
        let text = match number % 100 {
            7 => format!("fn broken_{number}("),
            _ => VALID.replace("double", &format!("double_{number}")),
        };
        let sub = folder.join(format!("sub{}", number % 10));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join(format!("{number}.wgsl")), text).unwrap();
    }
    std::fs::write(folder.join("node_modules/nobody/x.wgsl"), "fn").unwrap();
    std::fs::write(folder.join("not-text.wgsl"), [0xff, 0xfe, 0x00]).unwrap();
    std::fs::write(folder.join("large.wgsl"), " ".repeat(600 << 10)).unwrap();
}

fn workspace(server: &mut Server, folder: &Path) {
    let folders = json!([{ "uri": uri(folder), "name": "project" }]);
    let window = json!({ "workDoneProgress": true });
    let capabilities = json!({ "window": window });
    server.initialize(json!({ "capabilities": capabilities, "workspaceFolders": folders }));
}

#[test]
fn a_workspace_is_checked_once_and_not_after_a_restart() {
    let (cache, project) = (folder(), folder());
    write_workspace(project.path());
    for is_first in [true, false] {
        let mut server = Server::launch(cache.path(), &[]);
        workspace(&mut server, project.path());
        let told = server.logged("workspace:");
        let expected = format!("{FILES} of {} shaders checked, 3 of them", FILES + 2);
        assert!(told.contains(&expected), "{told}");
        for kind in ["begin", "end"] {
            let progress = server.notified("$/progress");
            assert_eq!(progress["value"]["kind"], kind);
        }
        let compiles = if is_first { FILES as u64 } else { 0 };
        assert_eq!(server.count("compiles"), compiles, "{is_first}");

        // What is opened, compiled and hovered over is known, too.
        let file = project.path().join("sub1/1.wgsl");
        let text = std::fs::read_to_string(&file).unwrap();
        server.open(&uri(&file), &text);
        assert_eq!(server.diagnostics(&uri(&file), 0), Vec::<Value>::new());
        assert_eq!(server.count("compiles"), compiles);
        let done = server.command("wgsl.compile", json!([uri(&file), "spirv"]));
        let source = done.unwrap()["source"].take();
        let expected = if is_first { "compiled" } else { "disk" };
        assert_eq!(source, expected);
        assert_eq!(server.count("parses"), u64::from(is_first));
        // What was only typed is known after a restart as well.
        server.change(&uri(&file), 1, json!([{ "text": "fn typed() {}" }]));
        server.diagnostics(&uri(&file), 1);
        let typed = if is_first { 2 } else { 0 };
        assert_eq!(server.count("compiles"), compiles + typed);
        assert_eq!(server.stop(), 0);
    }
}

/// The time of one change, from the editor and back.
fn keystroke(server: &mut Server, uri: &str, version: i32) -> Duration {
    let text = format!("{VALID}const VERSION = {version};");
    let start = Instant::now();
    server.change(uri, version, json!([{ "text": text }]));
    assert_eq!(server.diagnostics(uri, version), Vec::<Value>::new());
    start.elapsed()
}

/// The shaders of vello, which take many times as long as the one that is typed. The middle of the
/// times says what a place that is taken would cost; their ends are those of a busy machine.
#[test]
fn a_workspace_that_is_being_checked_delays_no_keystroke() {
    let (cache, project) = (folder(), folder());
    let flatten = &SHADERS.flatten.wgsl.code;
    for number in 0..200 {
        let file = project.path().join(format!("{number}.wgsl"));
        std::fs::write(file, format!("{flatten}\nconst COPY = {number};")).unwrap();
    }
    let mut server = Server::launch(cache.path(), &["--compile-places", "2"]);
    workspace(&mut server, project.path());
    let uri = at("typed.wgsl");
    server.open(&uri, VALID);
    let mut times: Vec<_> = (1..=50)
        .map(|version| keystroke(&mut server, &uri, version))
        .collect();
    let done = server.count("compiles");
    times.sort();
    let start = Instant::now();
    server.open(&at("flatten.wgsl"), flatten);
    server.diagnostics(&at("flatten.wgsl"), 0);
    let one = start.elapsed();
    println!(
        "p50 {:?}, p98 {:?}; a shader of the workspace {one:?}",
        times[25], times[49]
    );
    let of_keystrokes = 51;
    assert!(
        done < of_keystrokes + 200,
        "the workspace was checked before"
    );
    assert!(times[25] < one, "{one:?}: {times:?}");
    assert_eq!(
        server.stop(),
        0,
        "a workspace that is not done holds up no end"
    );
}

/// A server that answers each request with 404, or, while it is out, closes each connection.
struct Remote {
    address: String,
    is_out: Arc<AtomicBool>,
}

impl Remote {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let is_out = Arc::<AtomicBool>::default();
        let out = Arc::clone(&is_out);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if !out.load(Ordering::SeqCst) {
                    std::thread::spawn(move || not_found(connection));
                }
            }
        });
        Self { address, is_out }
    }
}

fn not_found(mut connection: TcpStream) {
    if let Ok(1..) = connection.read(&mut [0; 8192]) {
        let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = connection.write_all(answer.as_bytes());
    }
}

#[test]
fn the_user_is_told_when_the_remote_is_out_and_when_it_is_back() {
    let (cache, remote) = (folder(), Remote::start());
    remote.is_out.store(true, Ordering::SeqCst);
    let url = format!("http://{}/artifacts", remote.address);
    let mut server = Server::start(cache.path(), &["--remote", &url]);
    let uri = at("a.wgsl");
    for number in 0..5 {
        server.open(&uri, &format!("{VALID}const NUMBER = {number};"));
        server.command("wgsl.compile", json!([uri, "msl"])).unwrap();
    }
    let is_told = |message: &Value, part: &str| {
        let text = message["params"]["message"].as_str().unwrap_or_default();
        message["method"] == "window/showMessage" && text.contains(part)
    };
    let out = server.wait_for(|message| is_told(message, "is out"));
    assert_eq!(out["params"]["type"], 2, "{out}");
    assert!(out.to_string().contains(&url), "{out}");
    // What is typed is checked meanwhile.
    keystroke(&mut server, &uri, 1);
    remote.is_out.store(false, Ordering::SeqCst);
    server.wait_for(|message| is_told(message, "is back"));
    server.logged("is back");
    assert_eq!(server.stop(), 0);
}

#[test]
fn what_is_typed_stays_here_and_what_is_saved_reaches_the_remote() {
    let remote = CacheServer::start(&[]);
    let url = remote.url("/artifacts");
    let cache = folder();
    let mut server = Server::start(cache.path(), &["--remote", &url, "--remote-writes"]);
    let stored = || {
        let folder = remote.folder();
        let files = walkdir::WalkDir::new(folder).into_iter().flatten();
        files
            .filter(|file| file.path().extension().is_some_and(|end| end == "bin"))
            .count()
    };
    let uri = at("a.wgsl");
    server.open(&uri, VALID);
    server.diagnostics(&uri, 0);
    for version in 1..=20 {
        keystroke(&mut server, &uri, version);
    }
    server.about("textDocument/didSave", &uri);
    assert_eq!(server.stop(), 0, "and everything is written");
    assert_eq!(stored(), 2, "what was opened, and what was saved");
}
