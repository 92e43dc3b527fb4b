//! Tools of others that write WebAssembly modules anew: wabt and binaryen, as Debian packages them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// A tool that keeps the meaning of a module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// The program that has to be installed, and the package it comes in.
    program: &'static str,
    package: &'static str,
    run: fn(&Path) -> Result<(), String>,
}

pub(crate) const TOOLS: [Tool; 3] = [
    Tool {
        name: "wabt: to text and back",
        program: "wasm2wat",
        package: "wabt",
        run: |folder| {
            run(
                folder,
                "wasm2wat",
                &["--enable-all", "in.wasm", "-o", "text.wat"],
            )?;
            run(
                folder,
                "wat2wasm",
                &["--enable-all", "text.wat", "-o", "out.wasm"],
            )
        },
    },
    Tool {
        name: "wabt: wasm-strip",
        program: "wasm-strip",
        package: "wabt",
        run: |folder| run(folder, "wasm-strip", &["in.wasm", "-o", "out.wasm"]),
    },
    Tool {
        name: "binaryen: wasm-opt -g --strip-debug",
        program: "wasm-opt",
        package: "binaryen",
        run: |folder| {
            let arguments = [
                "-g",
                "--strip-debug",
                "--all-features",
                "in.wasm",
                "-o",
                "out.wasm",
            ];
            run(folder, "wasm-opt", &arguments)
        },
    },
];

impl Tool {
    /// Whether the tool can be asked. In continuous integration it must be there.
    pub(crate) fn is_installed(&self) -> bool {
        let found = Command::new(self.program).arg("--version").output().is_ok();
        if !found {
            let Self {
                name,
                program,
                package,
                run: _,
            } = self;
            println!("skipped: {name}: no {program} here; the Debian package {package} has it");
            assert!(
                std::env::var_os("CI").is_none(),
                "{package} is not installed"
            );
        }
        found
    }

    /// The module as the tool writes it, or what the tool has against it.
    pub(crate) fn rewrite(&self, module: &[u8]) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("in.wasm"), module).unwrap();
        (self.run)(folder.path())?;
        Ok(std::fs::read(folder.path().join("out.wasm")).unwrap())
    }
}

fn run(folder: &Path, program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors
        .lines()
        .find(|line| line.contains("error"))
        .unwrap_or(&errors);
    Err(last.trim().to_owned())
}
