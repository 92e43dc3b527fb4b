//! Prints the key of a program and the parts it is made of, and why two programs have two keys.
//!
//! ```text
//! key_report shader.wgsl
//! key_report old.wasm new.wasm
//! key_report --compiler "naga 30.0.1" --target spirv-1.3 --text shader.wgsl >kept.txt
//! key_report --compiler "naga 30.0.2" --target spirv-1.3 kept.txt shader.wgsl
//! ```
//!
//! A file is a WGSL source (`.wgsl`), a SPIR-V module, a WebAssembly module, or parts that were
//! kept as text; anything else is a program of opaque bytes. It exits with 1 where two keys differ,
//! and with 2 where there is a file without a key.

mod input;

use anyhow::{Context as _, Result};
use clap::Parser;
use pipeline_cache::CompileScope;
use pipeline_cache::explain::{KeyDifference, KeyParts, explain};
use pipeline_cache::key::CompileScopeError;
use serde_json::{Value, json};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(about = "Prints the key of a program, and why two programs have two keys")]
struct Options {
    /// One program, or two to hold against each other
    #[arg(num_args = 1..=2, required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The build of the compiler that the key is scoped to [default: none, the bare key]
    #[arg(long, requires = "target", value_name = "BUILD")]
    compiler: Option<String>,
    /// What is compiled for
    #[arg(long, requires = "compiler", value_name = "NAME")]
    target: Option<String>,
    /// An option of the compiler; may be given many times
    #[arg(long = "option", requires = "compiler", value_name = "NAME=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,
    /// Print the parts as text to keep
    #[arg(long, conflicts_with = "json")]
    text: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("this is not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Options {
    fn scope(&self) -> Result<Option<CompileScope>, CompileScopeError> {
        let (Some(compiler), Some(target)) = (&self.compiler, &self.target) else {
            return Ok(None);
        };
        let scope = CompileScope::new(compiler, target)?;
        let options = self.options.iter().cloned();
        Ok(Some(options.fold(scope, |scope, (name, value)| {
            scope.option(name, value)
        })))
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("key_report: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all files have one key.
fn run(options: &Options) -> Result<bool> {
    let scope = options.scope()?;
    let mut reports = Vec::new();
    for path in &options.files {
        let name = path.display();
        let report = input::read(path, scope.as_ref()).with_context(|| name.to_string())?;
        reports.push(report);
    }
    let differences = match &reports[..] {
        [first, second] => explain(&first.parts, &second.parts),
        _ => Vec::new(),
    };
    let mut out = io::stdout().lock();
    if options.text {
        for report in &reports {
            write!(out, "{}", report.parts)?;
        }
    } else if options.json {
        serde_json::to_writer_pretty(&mut out, &as_json(&reports, &differences))?;
        writeln!(out)?;
    } else {
        print(&mut out, &reports, &differences)?;
    }
    Ok(differences.is_empty())
}

fn print(
    out: &mut impl io::Write,
    reports: &[input::Input],
    differences: &[KeyDifference],
) -> io::Result<()> {
    for report in reports {
        writeln!(out, "{} ({})", report.name, report.format)?;
        writeln!(out, "  key {}", report.parts.key())?;
        // Where there are two, what differs is what is asked for.
        if reports.len() == 1 {
            print_parts(out, &report.parts)?;
        }
    }
    if reports.len() == 2 {
        if differences.is_empty() {
            writeln!(out, "one key")?;
        } else {
            writeln!(out, "two keys:")?;
        }
    }
    for difference in differences {
        writeln!(out, "  {difference}")?;
    }
    Ok(())
}

fn print_parts(out: &mut impl io::Write, parts: &KeyParts) -> io::Result<()> {
    let names = parts.parts().iter().map(|part| part.name().chars().count());
    let width = names.max().unwrap_or(0).min(60);
    for part in parts.parts() {
        // Half a digest is enough for the eye; `--text` and `--json` have the whole.
        let digest = &blake3::Hash::from_bytes(*part.digest()).to_hex()[..16];
        let (name, bytes) = (part.name(), part.bytes());
        writeln!(out, "  {name:width$} {bytes:>9} bytes  {digest}")?;
    }
    Ok(())
}

fn as_json(reports: &[input::Input], differences: &[KeyDifference]) -> Value {
    let files: Vec<_> = reports
        .iter()
        .map(|report| {
            let parts = report.parts.parts().iter().map(|part| {
                let digest = blake3::Hash::from_bytes(*part.digest()).to_hex();
                json!({ "name": part.name(), "bytes": part.bytes(), "digest": digest.as_str() })
            });
            json!({
                "file": report.name,
                "format": report.format,
                "key": report.parts.key().to_hex(),
                "parts": parts.collect::<Vec<_>>(),
            })
        })
        .collect();
    let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
    json!({ "files": files, "differences": differences })
}
