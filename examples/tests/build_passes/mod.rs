//! What the tests of the programs in `examples/build_passes` share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PASSES: [&str; 7] = [
    "without cache",
    "first",
    "memory",
    "respelled",
    "fresh process",
    "another machine",
    "another, aliases",
];

/// A folder of programs, and one for the cache of an example that builds them.
#[derive(Debug)]
pub(crate) struct Bench {
    example: &'static str,
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new<T: AsRef<[u8]>>(example: &'static str, programs: &[(&str, T)]) -> Self {
        let bench = Self {
            example,
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(bench.programs()).unwrap();
        for (name, text) in programs {
            bench.write(name, text);
        }
        bench
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let file = self.programs().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    pub(crate) fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// Runs the example in the folder of programs.
    pub(crate) fn run(&self, args: &[&str], paths: &[&Path]) -> Output {
        example(self.example)
            .current_dir(self.programs())
            .arg("--cache-dir")
            .arg(self.cache())
            .args(args)
            .args(paths)
            .output()
            .unwrap()
    }

    /// Runs all programs, and parses what `--json` prints.
    pub(crate) fn json(&self) -> (Output, Value) {
        let output = self.run(&["--json"], &[&self.programs()]);
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output, json)
    }

    pub(crate) fn cached_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for run in fs::read_dir(self.cache()).unwrap() {
            for file in fs::read_dir(run.unwrap().path().join("first/artifacts")).unwrap() {
                files.push(file.unwrap().path());
            }
        }
        files.retain(|file| file.extension().is_some_and(|extension| extension == "bin"));
        files
    }
}

/// The example's own binary, which cargo builds before it runs the package's tests.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    Command::new(profile.join("examples").join(name))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `[parsed, compiled, memory, disk, remote]` of each pass.
pub(crate) fn counts(json: &Value) -> Vec<[u64; 5]> {
    let passes = json["passes"].as_array().unwrap();
    let count = |pass: &Value, name: &str| pass[name].as_u64().unwrap();
    passes
        .iter()
        .map(|pass| {
            ["parsed", "compiled", "memory", "disk", "remote"].map(|name| count(pass, name))
        })
        .collect()
}

/// Whether every artifact in the folder of the first pass says this in its metadata.
pub(crate) fn artifacts_name(bench: &Bench, what: &str) -> bool {
    bench.cached_files().iter().all(|file| {
        let frame = fs::read(file).unwrap();
        frame
            .windows(what.len())
            .any(|part| part == what.as_bytes())
    })
}
