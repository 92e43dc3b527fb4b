//! Where settings come from, and what is said of bad ones.

use super::support::{CacheServer, command};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::time::timeout;

/// A server that reads this configuration.
fn configured(folder: &Path, text: &str) -> Command {
    let file = folder.join("server.toml");
    fs::write(&file, text).unwrap();
    let mut command = command();
    command.arg("--config").arg(file);
    command
}

/// What a server says that does not start because of a setting.
async fn refused(command: Command) -> String {
    fails_with(2, command).await
}

/// What a server says that does not start for lack of something that may come.
async fn prevented(command: Command) -> String {
    fails_with(1, command).await
}

async fn fails_with(code: i32, command: Command) -> String {
    let mut command = tokio::process::Command::from(command);
    let output = timeout(Duration::from_secs(60), command.kill_on_drop(true).output());
    let output = output
        .await
        .unwrap_or_else(|_| panic!("{command:?} starts"));
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    said
}

#[tokio::test]
async fn arguments_come_before_variables_and_variables_before_the_file() {
    // All of them are taken: the server says at which it cannot listen.
    let taken = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let taken = taken.each_ref().map(|taken| taken.local_addr().unwrap());
    let [of_file, of_variable, of_argument] = taken.map(|taken| taken.to_string());
    let cannot = |address: &str| format!("cannot listen at {address}");
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "cache_dir = {:?}\nlisten = {of_file:?}\nanonymous = 'read-only'\nno_access_log = true\n",
        folder.path().join("cache")
    );
    let start = || configured(folder.path(), &text);
    let said = prevented(start()).await;
    assert!(said.contains(&cannot(&of_file)), "{said}");
    let mut with_variable = start();
    with_variable.env("CACHE_SERVER_LISTEN", &of_variable);
    let said = prevented(with_variable).await;
    assert!(said.contains(&cannot(&of_variable)), "{said}");
    let mut with_argument = start();
    with_argument.env("CACHE_SERVER_LISTEN", &of_variable);
    with_argument.args(["--listen", &of_argument]);
    let said = prevented(with_argument).await;
    assert!(said.contains(&cannot(&of_argument)), "{said}");

    // A variable may name the file, and variables alone are enough.
    let mut named = command();
    named.env("CACHE_SERVER_CONFIG", folder.path().join("server.toml"));
    let said = prevented(named).await;
    assert!(said.contains(&cannot(&of_file)), "{said}");
    let mut without_file = command();
    without_file
        .env("CACHE_SERVER_LISTEN", &of_variable)
        .env("CACHE_SERVER_ANONYMOUS", "read-only")
        .env("CACHE_SERVER_CACHE_DIR", folder.path().join("cache"))
        .env("CACHE_SERVER_NO_ACCESS_LOG", "true");
    let said = prevented(without_file).await;
    assert!(said.contains(&cannot(&of_variable)), "{said}");
}

/// Units are those of the flags; what the command line says comes first, flag by flag.
#[tokio::test]
async fn a_server_takes_its_bounds_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    fs::write(
        &file,
        "max_foreign_blob = '1K'\nmax_artifact = 1_048_576\ndrain = 1.5\nno_access_log = true\n\
         listen = '127.0.0.1:1'\n",
    )
    .unwrap();
    let mut server = CacheServer::start(&["--config", file.to_str().unwrap()]);
    assert_eq!(
        server.put("/ccache/a", vec![1; 1024]).await,
        StatusCode::CREATED
    );
    assert_eq!(
        server.put("/ccache/b", vec![1; 1025]).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let got = server.get("/ccache/a", HeaderMap::new()).await;
    assert_eq!(got.status(), StatusCode::OK);
    server.terminate();
    assert!(server.wait().success());
    let said = server.said();
    assert!(!said.contains("GET"), "{said}");
}

#[tokio::test]
async fn a_bad_setting_in_the_file_is_told_with_its_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("max_bytes = '50X'", "line 1: max_bytes: the unit is none"),
        (
            "\n\nmax-bytes = '50G'",
            "line 3: max-bytes: unknown key: write max_bytes",
        ),
        ("# ours\ntokenz = 'a'", "line 2: tokenz: unknown key"),
        ("config = 'a'", "line 1: config: unknown key"),
        ("[server]\nlisten = 'a'", "line 1: server: unknown key"),
        (
            "max_bytes = 1.5",
            "line 1: max_bytes: must be a number of bytes",
        ),
        ("max_bytes = -1", "line 1: max_bytes: not a whole number"),
        (
            "max_bytes = [1]",
            "line 1: max_bytes: must be a number of bytes",
        ),
        (
            "max_requests = '5'",
            "line 1: max_requests: must be a whole number",
        ),
        (
            "max_requests = 0",
            "line 1: max_requests: expected a whole number from 1",
        ),
        (
            "drain = -1",
            "line 1: drain: expected a number of seconds from 0",
        ),
        ("drain = true", "line 1: drain: must be a number of seconds"),
        (
            "drain = nan",
            "line 1: drain: expected a number of seconds from 0",
        ),
        (
            "idle = 0",
            "line 1: idle: expected a number of seconds above 0",
        ),
        (
            "no_access_log = 'yes'",
            "line 1: no_access_log: must be true or false",
        ),
        ("listen = 'here'", "line 1: listen: invalid socket address"),
        (
            "anonymous = 'all'",
            "line 1: anonymous: must be one of none, read-only",
        ),
        ("cache_dir = ''", "line 1: cache_dir: is empty"),
        (
            "cache_dir = 5",
            "line 1: cache_dir: must be a text in quotes",
        ),
        ("drain = 1\ndrain = 2", "line 2: duplicate key"),
        // Nothing is repeated that somebody might have put there by mistake.
        ("secret = hunter2", "line 1: "),
        ("secret_file = 'hunter2", "line 1: "),
    ] {
        let said = refused(configured(folder.path(), text)).await;
        assert!(said.contains(expected), "{text}: {said}");
        assert!(said.contains("server.toml"), "{text}: {said}");
        assert!(!said.contains("hunter2"), "{text}: {said}");
    }
    let deep = format!("listen = {}", "[".repeat(100_000));
    let said = refused(configured(folder.path(), &deep)).await;
    assert!(said.contains("server.toml"), "{said}");
    for (code, file, expected) in [
        (2, "/dev/zero", "is not a file"),
        (1, "/nonexistent", "cannot read"),
    ] {
        let mut command = command();
        command.args(["--config", file]);
        let said = fails_with(code, command).await;
        assert!(said.contains(expected) && said.contains(file), "{said}");
    }
}

#[tokio::test]
async fn a_bad_variable_is_told_by_its_name() {
    for (variable, value, expected) in [
        ("CACHE_SERVER_MAX_BYTES", "50X", "the unit is none of"),
        ("CACHE_SERVER_NO_ACCESS_LOG", "maybe", "not a boolean"),
        ("CACHE_SERVER_TLS_CERT", "", "is empty"),
        ("CACHE_SERVER_ANONYMOUS", "all", "must be one of none"),
    ] {
        let mut command = command();
        command.args(["--cache-dir", "/nonexistent"]);
        command.env(variable, value);
        let said = refused(command).await;
        let named = format!("the variable {variable}: ");
        assert!(said.contains(&named), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn the_help_shows_no_value_of_a_variable() {
    let mut command = command();
    command.arg("--help");
    command.env("CACHE_SERVER_SECRET_FILE", "/hunter2");
    let output = command.output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("[env: CACHE_SERVER_SECRET_FILE]"), "{help}");
    assert!(!help.contains("hunter2"), "{help}");
}

#[tokio::test]
async fn a_variable_that_is_no_setting_is_told_with_the_nearest_one() {
    // The folder is missing, as where its variable is misspelt.
    let mut command = command();
    for name in ["TOKEN_FILE", "MAXBYTES", "XYZZY", "TOKENS"] {
        command.env(
            format!("CACHE_SERVER_{name}"),
            "read-only hunter2 hunter2hunter2hunter2",
        );
    }
    // As Kubernetes sets them for a service of this name.
    for name in ["SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_8420_TCP"] {
        command.env(format!("CACHE_SERVER_{name}"), "10.0.0.1");
    }
    let said = refused(command).await;
    let told: Vec<_> = said
        .lines()
        .filter(|line| line.contains("ignored"))
        .collect();
    let ignored = |name: &str, hint: &str| {
        format!(
            "cache_server: the environment variable CACHE_SERVER_{name} is not known and is \
             ignored: {hint}"
        )
    };
    let expected = [
        ignored("MAXBYTES", "did you mean CACHE_SERVER_MAX_BYTES?"),
        ignored("TOKEN_FILE", "did you mean CACHE_SERVER_TOKENS_FILE?"),
        ignored("XYZZY", "see --help for those that are"),
    ];
    assert_eq!(told, expected, "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

/// An init system tries again then: the disk may be mounted later.
#[tokio::test]
async fn a_folder_that_cannot_be_used_has_an_exit_code_of_its_own() {
    let mut command = command();
    command.args(["--anonymous", "read-only", "--cache-dir", "/dev/null/cache"]);
    let said = prevented(command).await;
    assert!(said.contains("/dev/null/cache"), "{said}");
}
