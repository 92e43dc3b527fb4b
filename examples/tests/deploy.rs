//! The files of `examples/deploy`: the server has to know what they name.
#![cfg(unix)]

#[expect(dead_code, reason = "other tests need the rest")]
#[path = "cache_server/support.rs"]
mod cache_server;
#[path = "../../tests/network/support/real_server.rs"]
mod real_server;

use cache_server::CacheServer;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const INSTALLED: &str = "/usr/local/bin/cache_server";

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn deployed(name: &str) -> String {
    std::fs::read_to_string(project().join("examples/deploy").join(name)).unwrap()
}

/// The flags of the server.
fn flags() -> Vec<String> {
    let help = Command::new(cache_server::program()).arg("--help").output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let words = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("--"));
    let name = |flag: &str| flag.split([' ', '=']).next().unwrap().to_owned();
    words.map(name).collect()
}

fn assert_is_flag(name: &str) {
    let flags = flags();
    assert!(flags.iter().any(|flag| flag == name), "{name}: {flags:?}");
}

/// Also those that are commented out.
#[test]
fn each_key_of_the_sample_settings_is_a_flag() {
    let settings = deployed("cache_server.toml");
    let keys = settings.lines().filter_map(|line| {
        let (key, _) = line.trim_start_matches("# ").split_once(" = ")?;
        Some(key)
    });
    let keys: Vec<_> = keys.collect();
    assert!(
        keys.contains(&"cache_dir") && keys.contains(&"store"),
        "{keys:?}"
    );
    for key in keys {
        assert_is_flag(&key.replace('_', "-"));
    }
}

/// It dies with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Wherever the files are, and on a port that is free.
#[test]
fn the_server_starts_with_the_command_of_the_unit_and_the_sample_settings() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let settings = deployed("cache_server.toml")
        .replace("/var/lib/cache_server", &at("state"))
        .replace("/etc/cache_server", &at(""))
        .replace("0.0.0.0:8420", "127.0.0.1:0");
    std::fs::write(at("cache_server.toml"), settings).unwrap();
    std::fs::write(at("tokens"), "read-only dev a-token-of-the-team\n").unwrap();
    let unit = deployed("cache_server.service");
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let command = command.unwrap().replace("/etc/cache_server", &at(""));
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some(INSTALLED));
    let server = Command::new(cache_server::program())
        .args(words)
        .env_remove("CACHE_SERVER_TOKENS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut server = Running(server.unwrap());
    let mut first = String::new();
    let mut out = BufReader::new(server.0.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    assert!(
        first.starts_with("listening on http://127.0.0.1:"),
        "{first}"
    );
}

fn systemd_analyze(unit: &Path, arguments: &[&str]) -> Option<Output> {
    let program = real_server::installed("systemd-analyze")?;
    Some(
        Command::new(program)
            .args(arguments)
            .arg(unit)
            .output()
            .unwrap(),
    )
}

#[test]
fn the_unit_is_valid_and_its_sandbox_is_tight() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("cache_server.service");
    // The program has to be there.
    let program = cache_server::program();
    let text = deployed("cache_server.service");
    let text = text.replace(INSTALLED, program.to_str().unwrap());
    std::fs::write(&unit, text).unwrap();
    let Some(verified) = systemd_analyze(&unit, &["verify"]) else {
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    // The exposure, from 0 to 10, in tenths.
    let limit = ["security", "--offline=yes", "--threshold=20"];
    let rated = systemd_analyze(&unit, &limit).unwrap();
    let said = String::from_utf8_lossy(&rated.stdout);
    assert!(rated.status.success(), "{said}");
}

/// The arguments of an instruction of the Dockerfile that are a list in JSON.
fn list(instruction: &str) -> Vec<String> {
    let text = deployed("Dockerfile");
    let joined = text.replace("\\\n", " ");
    let line = joined.lines().find(|line| line.starts_with(instruction));
    let line = line.unwrap_or_else(|| panic!("no {instruction}"));
    serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
}

#[tokio::test]
async fn the_health_check_of_the_image_tells_a_server_from_none() {
    let mut server = CacheServer::start(&[]);
    let check = list("HEALTHCHECK");
    let listen = server.address().to_owned();
    let is_well = || {
        Command::new(&check[0])
            .args(&check[1..])
            .env("CACHE_SERVER_LISTEN", &listen)
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(is_well());
    server.kill();
    assert!(!is_well());
}

#[test]
fn the_dockerfile_names_what_there_is() {
    let text = deployed("Dockerfile");
    let copied = text.lines().filter_map(|line| line.strip_prefix("COPY "));
    let sources = copied.filter(|line| !line.starts_with("--from"));
    let sources = sources.flat_map(|line| line.rsplit_once(' ').unwrap().0.split(' '));
    let ignored = deployed("Dockerfile.dockerignore");
    for source in sources {
        assert!(project().join(source).exists(), "{source}");
        assert!(
            ignored.lines().any(|line| line == format!("!{source}")),
            "{source}"
        );
    }
    let manifest = std::fs::read_to_string(project().join("examples/Cargo.toml")).unwrap();
    let mut words = text.split_whitespace();
    let mut built = 0;
    while let Some(word) = words.next() {
        let expected = match word {
            "--bin" => format!("name = \"{}\"", words.next().unwrap()),
            "--features" => format!("\n{} = [", words.next().unwrap()),
            _ => continue,
        };
        assert!(manifest.contains(&expected), "{expected}");
        built += 1;
    }
    assert_eq!(built, 3);
    // A flag would come before the variables of whoever runs the image.
    assert_eq!(list("ENTRYPOINT"), ["cache_server"]);
    assert!(!text.lines().any(|line| line.starts_with("CMD")));
    let defaults: Vec<_> = text.split_whitespace().filter_map(variable).collect();
    assert_eq!(defaults, ["cache-dir", "listen"]);
    defaults.iter().for_each(|flag| assert_is_flag(flag));
}

/// The flag of a variable that a word sets.
fn variable(word: &str) -> Option<String> {
    let (name, _) = word.strip_prefix("CACHE_SERVER_")?.split_once('=')?;
    Some(name.to_lowercase().replace('_', "-"))
}

fn seconds(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value.unwrap().trim_matches([' ', '=']).parse().unwrap()
}

/// Its bounds: see the comment in the unit.
#[test]
fn the_unit_waits_for_as_long_as_the_server_may_take_to_end() {
    let drain = seconds(&deployed("cache_server.toml"), "drain");
    let stop = seconds(&deployed("cache_server.service"), "TimeoutStopSec");
    assert!(stop > 2 * drain + 10, "{stop} s");
    let run = deployed("README.md");
    assert!(run.contains(&format!("--stop-timeout {stop} ")), "{run}");
}

/// Whether it is worth another try, the server says by its exit code.
#[test]
fn the_unit_tries_again_unless_a_setting_is_bad() {
    let unit = deployed("cache_server.service");
    let has = |line: &str| unit.lines().any(|known| known == line);
    assert!(has("Restart=on-failure") && has("RestartPreventExitStatus=2"));
    // It does not give up.
    assert!(has("StartLimitIntervalSec=0"));
}
