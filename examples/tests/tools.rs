//! What the installed tools tell of themselves: version, completions, man pages.
#![cfg(unix)]

#[path = "../../tests/network/support/real_server.rs"]
mod real_server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use real_server::installed;

const TOOLS: [(&str, &str); 3] = [
    ("cache_server", env!("CARGO_BIN_EXE_cache_server")),
    ("cachectl", env!("CARGO_BIN_EXE_cachectl")),
    (
        "wgsl_language_server",
        env!("CARGO_BIN_EXE_wgsl_language_server"),
    ),
];

/// What a command prints. It must succeed.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap());
    printed(&mut command).trim().to_owned()
}

/// As in `0.1.0 (daa7367d4c 2026-11-30)`, or `0.1.0` alone.
fn is_version(text: &str) -> bool {
    let package = env!("CARGO_PKG_VERSION");
    let Some(rest) = text.strip_prefix(package) else {
        return false;
    };
    let Some(commit) = rest
        .strip_prefix(" (")
        .and_then(|rest| rest.strip_suffix(')'))
    else {
        return rest.is_empty();
    };
    let is_hash = |text: &str| text.len() >= 10 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_date = |text: &str| text.len() == 10 && text.split('-').count() == 3;
    let parts = commit.split_once(' ');
    parts.is_some_and(|(hash, date)| is_hash(hash) && is_date(date))
}

#[test]
fn every_tool_tells_its_version_and_commit() {
    for (name, program) in TOOLS {
        let said = printed(Command::new(program).arg("--version"));
        let version = said.trim().strip_prefix(name).unwrap().trim();
        assert!(is_version(version), "{said}");
        // The test is built with the same version.
        assert_eq!(version, env!("TOOLS_VERSION"));
    }
}

/// The build script, as Cargo runs it in a folder.
struct BuildScript(PathBuf);

impl BuildScript {
    fn compile(folder: &Path) -> Self {
        let program = folder.join("build-script");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        printed(
            Command::new(rustc)
                .args(["--edition", "2024", "-o"])
                .args([&program, &source]),
        );
        Self(program)
    }

    /// The version, and the files whose change makes another run.
    fn run(&self, folder: &Path) -> (String, Vec<PathBuf>) {
        let mut command = Command::new(&self.0);
        command
            .current_dir(folder)
            .env("CARGO_PKG_VERSION", "1.2.3")
            .env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap());
        let said = printed(&mut command);
        let of = |key: &str| {
            let values = said.lines().filter_map(|line| line.strip_prefix(key));
            values.map(str::to_owned).collect::<Vec<_>>()
        };
        let version = of("cargo:rustc-env=TOOLS_VERSION=").remove(0);
        let watched = of("cargo:rerun-if-changed=");
        let watched = watched.iter().map(|path| folder.join(path)).collect();
        (version, watched)
    }
}

fn state(files: &[PathBuf]) -> Vec<(SystemTime, Vec<u8>)> {
    let state = files.iter().map(|file| {
        let changed = fs::metadata(file).unwrap().modified().unwrap();
        (changed, fs::read(file).unwrap())
    });
    state.collect()
}

#[test]
fn the_version_follows_the_checkout_and_needs_none() {
    if installed("git").is_none() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let script = BuildScript::compile(outside.path());
    let folder = outside.path().join("checkout");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("build.rs"), "").unwrap();
    assert_eq!(script.run(&folder).0, "1.2.3");

    // In the checkout of something else, as where a package is unpacked.
    git(&folder, &["init", "--quiet"]);
    git(&folder, &["commit", "--quiet", "--allow-empty", "-m", "1"]);
    assert_eq!(script.run(&folder).0, "1.2.3");

    git(&folder, &["add", "build.rs"]);
    git(&folder, &["commit", "--quiet", "-m", "2"]);
    let expected = |folder: &Path| {
        let commit = git(folder, &["log", "-1", "--abbrev=10", "--format=%h %cs"]);
        format!("1.2.3 ({commit})")
    };
    let (first, watched) = script.run(&folder);
    assert_eq!(first, expected(&folder));
    assert!(watched.iter().all(|path| path.exists()), "{watched:?}");

    // A commit, a checkout of another one, and a commit where the branch is packed.
    type Step<'a> = &'a dyn Fn();
    let steps: [Step<'_>; 4] = [
        &|| {
            drop(git(
                &folder,
                &["commit", "--quiet", "--allow-empty", "-m", "3"],
            ))
        },
        &|| drop(git(&folder, &["checkout", "--quiet", "HEAD~1"])),
        &|| {
            git(&folder, &["checkout", "--quiet", "-"]);
            git(&folder, &["pack-refs", "--all"]);
        },
        &|| {
            drop(git(
                &folder,
                &["commit", "--quiet", "--allow-empty", "-m", "4"],
            ))
        },
    ];
    for step in steps {
        let (before, watched) = script.run(&folder);
        let old = state(&watched);
        step();
        let (after, _) = script.run(&folder);
        assert_ne!(after, before);
        assert_eq!(after, expected(&folder));
        assert_ne!(state(&watched), old, "Cargo would not build it again");
    }
}

#[test]
fn shells_take_the_completions() {
    for (name, program) in &TOOLS[..2] {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = printed(Command::new(program).args(["completions", shell]));
            assert!(script.contains(name), "{shell}: {script}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("completions");
        let script = printed(Command::new(program).args(["completions", "bash"]));
        fs::write(&file, script).unwrap();
        let Some(bash) = installed("bash") else {
            return;
        };
        printed(Command::new(&bash).arg("-n").arg(&file));
        // What bash does at a tab.
        let complete = r#"source "$1"; COMP_WORDS=("$2" "$3"); COMP_CWORD=1
            function=$(complete -p "$2" | sed 's/.*-F \([^ ]*\).*/\1/')
            "$function" "$2" "$3" "$2"; printf '%s\n' "${COMPREPLY[@]}""#;
        let complete = |beginning: &str| {
            let mut command = Command::new(&bash);
            command.args(["--norc", "-c", complete, "bash"]);
            printed(command.arg(&file).args([name, beginning]))
        };
        assert_eq!(complete("--cache-d").trim(), "--cache-dir", "{name}");
        assert_eq!(complete("compl").trim(), "completions", "{name}");
    }
}

#[test]
fn the_man_pages_show_every_flag() {
    for (name, program) in &TOOLS[..2] {
        let folder = tempfile::tempdir().unwrap();
        printed(Command::new(program).arg("man").arg(folder.path()));
        let page = fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
        // A hyphen that is none between words is escaped.
        let page = page.replace("\\-", "-");
        let help = printed(Command::new(program).arg("--help"));
        let flags: Vec<_> = help
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("--"))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert!(flags.len() >= 4, "{help}");
        for flag in flags {
            assert!(page.contains(&format!("--{flag}")), "{name}: {flag}");
        }
        assert!(page.contains("Exit codes:"), "{page}");
        let missing = folder.path().join("missing");
        let output = Command::new(program).arg("man").arg(missing).output();
        // To cache_server, a folder is a thing that may come.
        let code = if *name == "cache_server" { 1 } else { 2 };
        assert_eq!(output.unwrap().status.code(), Some(code));
    }
}

/// The table at the head of the program's source names them all.
#[test]
fn the_help_of_the_server_names_each_of_its_paths() {
    let (_, program) = TOOLS[0];
    let help = printed(Command::new(program).arg("--help"));
    let source = include_str!("../cache_server/main.rs");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `/"));
    let paths: Vec<_> = rows
        .map(|row| row.split(['`', '<', '…']).next().unwrap())
        .collect();
    assert!(paths.len() > 5, "{paths:?}");
    for path in paths {
        assert!(help.contains(&format!("  /{path}")), "/{path}: {help}");
    }
}
