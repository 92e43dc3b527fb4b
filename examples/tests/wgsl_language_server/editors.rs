//! Editors: neovim, and the library that VS Code speaks the protocol with.

use crate::support::{VALID, folder, program};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than either takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn is_installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if found.is_ok() {
        return true;
    }
    let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!is_ci, "must not be skipped in CI: no {program}");
    println!("skipped: {program} is not installed");
    false
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wgsl_language_server")
}

/// Runs it to its end, which it says is a good one.
fn is_well(command: &mut Command) {
    let output = folder();
    let file = |name: &str| std::fs::File::create(output.path().join(name)).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("errors"))
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = |name: &str| std::fs::read_to_string(output.path().join(name)).unwrap();
    let (out, errors) = (text("out"), text("errors"));
    let is_well = status.is_some_and(|status| status.success());
    assert!(
        is_well && out.contains("all is well"),
        "{command:?}: {status:?}\n{out}\n{errors}"
    );
}

#[test]
fn neovim() {
    if !is_installed("nvim") {
        return;
    }
    let (home, project) = (folder(), folder());
    std::fs::write(project.path().join("main.wgsl"), format!("//\n//{VALID}")).unwrap();
    let mut command = Command::new("nvim");
    command
        .args(["--headless", "-u", "NONE", "-i", "NONE", "-c"])
        .arg(format!(
            "luafile {}",
            sources().join("neovim.lua").display()
        ))
        .env("SERVER", program())
        .env("PROJECT", project.path())
        .env("CACHE", home.path().join("cache"))
        .env("OUT", home.path().join("out"));
    // Nothing of the user's, neither read nor written.
    for variable in [
        "HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
        "XDG_CACHE_HOME",
    ] {
        command.env(variable, home.path());
    }
    is_well(&mut command);
}

#[test]
fn the_client_library_of_vscode() {
    if !is_installed("node") || !is_installed("npm") {
        return;
    }
    let (client, cache) = (folder(), folder());
    for file in ["package.json", "package-lock.json", "client.mjs"] {
        let source = sources().join("vscode").join(file);
        std::fs::copy(source, client.path().join(file)).unwrap();
    }
    let installed = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(client.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&installed.stderr);
    assert!(installed.status.success(), "{errors}");
    let mut command = Command::new("node");
    command
        .arg(client.path().join("client.mjs"))
        .arg(program())
        .arg(cache.path());
    is_well(&mut command);
}
