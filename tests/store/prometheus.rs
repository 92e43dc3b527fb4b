//! A text in the format of Prometheus, as its Python client reads it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Prints `family <name> <type> <whether it is described>` for each family and
/// `sample <name> <labels, sorted> <value>` for each sample.
const PARSE: &str = r#"
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    print("family", family.name, family.type, bool(family.documentation))
    seen = set()
    for sample in family.samples:
        labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
        assert (sample.name, labels) not in seen, f"twice: {sample.name} {labels}"
        seen.add((sample.name, labels))
        print("sample", sample.name, labels or "-", float(sample.value))
"#;

/// The lines of `PARSE`, or `None` where the client is not installed: that is a failure in CI.
pub(crate) fn parse(text: &str) -> Option<Vec<String>> {
    let Some(python) = python() else {
        let missing = "skipped: no python3 with prometheus_client (pip install prometheus-client)";
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        println!("{missing}");
        return None;
    };
    let mut parser = Command::new(python)
        .args(["-c", PARSE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    parser
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = parser.wait_with_output().unwrap();
    assert!(output.status.success(), "the client does not read {text}");
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(lines.lines().map(str::to_owned).collect())
}

/// The first on the path that has the client.
fn python() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let candidates = std::env::split_paths(&path).map(|folder| folder.join("python3"));
    candidates.into_iter().find(|python| {
        let probe = Command::new(python)
            .args(["-c", "import prometheus_client"])
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    })
}
