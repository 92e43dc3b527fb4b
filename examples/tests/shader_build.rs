//! What `shader_build` promises to whoever runs it, in a terminal or from a script.

mod build_passes;

use std::fs;

use serde_json::Value;

use build_passes::{Bench, PASSES, artifacts_name, counts, example, text};

const EXAMPLE: &str = "shader_build";

const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read_write> data: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    data[id.x] = data[id.x] * 2u;
}
";

/// The same as [`DOUBLE`], by another author.
const DOUBLE_RESPELLED: &str = "
@compute @workgroup_size(64, 1) fn main(@builtin(global_invocation_id) where_: vec3u) {
    let i = where_.x; // one of many
    buffer[i] = buffer[i] * 2u;
}
@group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
";

const FILL: &str = "
@group(0) @binding(0) var<storage, read_write> data: array<f32>;

fn value(i: u32) -> f32 {
    return f32(i) * 0.5;
}

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    data[id.x] = value(id.x);
}
";

/// Wrong in line 3.
const NO_WGSL: &str = "@compute @workgroup_size(1)
fn main() {
    let x = ;
}
";

/// Parses, and is not valid: line 3 returns another type than line 2 says.
const NOT_VALID: &str = "
fn half() -> f32 {
    return 1u;
}
@compute @workgroup_size(1)
fn main() { let x = half(); }
";

#[test]
fn each_pass_is_served_by_the_tier_it_is_about() {
    let bench = Bench::new(
        EXAMPLE,
        &[("double.wgsl", DOUBLE), ("deep/er/fill.wgsl", FILL)],
    );
    bench.write("readme.md", "no program");
    let (output, json) = bench.json();

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(json["programs"], 2);
    let passes = json["passes"].as_array().unwrap();
    let names: Vec<_> = passes.iter().map(|pass| pass["name"].clone()).collect();
    assert_eq!(names, PASSES);
    assert_eq!(
        counts(&json),
        [
            [2, 2, 0, 0, 0],
            [2, 2, 0, 0, 0],
            [0, 0, 2, 0, 0],
            [2, 0, 2, 0, 0],
            [0, 0, 0, 2, 0],
            [2, 0, 0, 0, 2],
            [0, 0, 0, 0, 2]
        ]
    );
    for pass in passes {
        assert_eq!(pass["programs"], 2);
        assert!(pass["median_us"].as_f64().unwrap() > 0.0);
        assert!(pass["total_ms"].as_f64().unwrap() > 0.0);
        assert!(pass["speed_up"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(passes[0]["speed_up"], 1.0);
    let promotion = &json["promotion"];
    assert_eq!(promotion["events"], 2);
    // Each to the disk and to memory.
    assert_eq!(promotion["promoted_layers"], 4);
    assert_eq!(promotion["pending"], 0);
    assert_eq!(promotion["now_in_memory"], 2);
    assert_eq!(promotion["now_on_disk"], 2);
}

#[test]
fn json_is_one_line_with_the_documented_fields_and_nothing_else() {
    let bench = Bench::new(EXAMPLE, &[("double.wgsl", DOUBLE)]);
    let (output, json) = bench.json();

    assert_eq!(text(&output.stdout).lines().count(), 1);
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&json), ["passes", "programs", "promotion"]);
    for pass in json["passes"].as_array().unwrap() {
        let fields = [
            "compiled",
            "disk",
            "median_us",
            "memory",
            "name",
            "parsed",
            "programs",
            "remote",
            "speed_up",
            "times_ms",
            "total_ms",
        ];
        assert_eq!(keys(pass), fields);
        let times = ["compile", "hash", "key", "lookup", "parse"];
        assert_eq!(keys(&pass["times_ms"]), times);
        let spent: f64 = times
            .map(|time| pass["times_ms"][time].as_f64().unwrap())
            .iter()
            .sum();
        let total = pass["total_ms"].as_f64().unwrap();
        assert!((spent - total).abs() < 1e-3, "{pass}");
    }
}

#[test]
fn each_kind_of_work_is_timed_where_it_is_done_and_nowhere_else() {
    let bench = Bench::new(EXAMPLE, &[("double.wgsl", DOUBLE)]);
    let (_, json) = bench.json();

    let done = |pass: &Value| {
        let did = |time: &&str| pass["times_ms"][*time].as_f64().unwrap() > 0.0;
        let kinds = ["hash", "parse", "key", "lookup", "compile"];
        kinds.into_iter().filter(did).collect::<Vec<_>>()
    };
    let all = ["hash", "parse", "key", "lookup", "compile"];
    let expected: [&[&str]; 7] = [
        &["parse", "compile"],
        &all,
        &["hash", "lookup"],
        &all[..4],
        &["hash", "lookup"],
        &all[..4],
        &["hash", "lookup"],
    ];
    for (pass, expected) in json["passes"].as_array().unwrap().iter().zip(expected) {
        assert_eq!(done(pass), expected, "{pass}");
    }
}

#[test]
fn the_table_says_where_the_cache_loses() {
    let bench = Bench::new(EXAMPLE, &[("double.wgsl", DOUBLE), ("fill.wgsl", FILL)]);
    let output = bench.run(&[], &[&bench.programs()]);

    let stdout = text(&output.stdout);
    let start = "The cache loses here: ";
    let losses = stdout.lines().find_map(|line| line.strip_prefix(start));
    for pass in PASSES {
        let row = stdout.lines().find(|line| line.starts_with(pass)).unwrap();
        let speed_up = row.rsplit(' ').next().unwrap().trim_end_matches('x');
        let named = losses.unwrap_or_default().contains(&format!("{pass} ("));
        // Rounded, 1.0 may be of either side.
        match speed_up.parse::<f64>().unwrap() {
            ..0.95 => assert!(named, "{pass}: {stdout}"),
            1.05.. => assert!(!named, "{pass}: {stdout}"),
            _ => {}
        }
    }
}

#[test]
fn a_scope_names_the_compiler_that_was_built() {
    let bench = Bench::new(EXAMPLE, &[("double.wgsl", DOUBLE)]);
    let output = bench.run(&["--keep"], &[&bench.programs()]);
    let lock = include_str!("../../Cargo.lock");
    let naga = lock.split("name = \"naga\"\nversion = \"").nth(1).unwrap();
    let version = naga.split('"').next().unwrap();

    let stdout = text(&output.stdout);
    assert!(stdout.contains(&format!("by naga {version}\n")), "{stdout}");
    assert!(
        artifacts_name(&bench, version),
        "an artifact does not name its compiler"
    );
}

#[test]
fn two_spellings_of_one_program_share_an_artifact() {
    let bench = Bench::new(EXAMPLE, &[("a.wgsl", DOUBLE), ("b.wgsl", DOUBLE_RESPELLED)]);
    let (output, json) = bench.json();

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(counts(&json)[1], [2, 1, 1, 0, 0]);
}

#[test]
fn every_run_starts_from_nothing_and_leaves_nothing() {
    let bench = Bench::new(EXAMPLE, &[("double.wgsl", DOUBLE)]);
    fs::create_dir(bench.cache()).unwrap();
    fs::write(bench.cache().join("somebody's.bin"), "not ours").unwrap();

    for _ in 0..2 {
        let (_, json) = bench.json();
        assert_eq!(counts(&json)[1], [1, 1, 0, 0, 0]);
        let left: Vec<_> = fs::read_dir(bench.cache()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
    let theirs = fs::read_to_string(bench.cache().join("somebody's.bin")).unwrap();
    assert_eq!(theirs, "not ours");
}

#[test]
fn kept_artifacts_are_in_the_cache_folder() {
    let bench = Bench::new(EXAMPLE, &[("double.wgsl", DOUBLE), ("fill.wgsl", FILL)]);
    let output = bench.run(&["--keep"], &[&bench.programs()]);

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stderr).contains(&bench.cache().display().to_string()));
    assert_eq!(bench.cached_files().len(), 2);
}

#[test]
fn invalid_programs_are_named_with_their_line_and_the_others_are_done() {
    let bench = Bench::new(
        EXAMPLE,
        &[
            ("bad.wgsl", NO_WGSL),
            ("double.wgsl", DOUBLE),
            ("odd.wgsl", NOT_VALID),
        ],
    );
    bench.write("raw.wgsl", b"// \n\xff\xff\n");
    let output = bench.run(&["--json", "--keep"], &[&bench.programs()]);

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("bad.wgsl:3:13"), "{stderr}");
    assert!(stderr.contains("expected expression"), "{stderr}");
    assert!(stderr.contains("odd.wgsl:"), "{stderr}");
    assert!(stderr.contains("raw.wgsl:2:"), "{stderr}");
    assert!(stderr.contains("3 of 4 programs"), "{stderr}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["programs"], 1);
    assert_eq!(counts(&json)[1], [1, 1, 0, 0, 0]);
    assert_eq!(bench.cached_files().len(), 1);
}

#[test]
fn without_a_valid_program_the_json_is_still_one_object() {
    let bench = Bench::new(EXAMPLE, &[("bad.wgsl", NO_WGSL)]);
    let (output, json) = bench.json();

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(json["programs"], 0);
    assert_eq!(json["passes"], Value::Array(Vec::new()));
    assert!(!bench.cache().exists());
}

#[test]
fn what_cannot_be_read_is_exit_code_2_and_a_clear_error() {
    let bench = Bench::new(EXAMPLE, &[("notes.txt", "no program")]);
    let missing = bench.programs().join("missing.wgsl");
    for (path, complaint) in [
        (missing, "cannot read"),
        (bench.programs(), "there are no .wgsl files in"),
    ] {
        let output = bench.run(&[], &[&path]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(stderr.contains(complaint), "{stderr}");
        assert!(stderr.contains(&path.display().to_string()), "{stderr}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn a_cache_folder_that_cannot_be_made_is_exit_code_2() {
    let bench = Bench::new(EXAMPLE, &[("double.wgsl", DOUBLE)]);
    fs::write(bench.cache(), "a file").unwrap();
    let output = bench.run(&[], &[&bench.programs()]);

    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains(&bench.cache().display().to_string()));
}

#[cfg(unix)]
#[test]
fn links_in_circles_are_not_followed_and_linked_files_are_read() {
    let bench = Bench::new(EXAMPLE, &[("deep/double.wgsl", DOUBLE)]);
    bench.write("../elsewhere.wgsl", FILL);
    let deep = bench.programs().join("deep");
    std::os::unix::fs::symlink(bench.programs(), deep.join("up")).unwrap();
    std::os::unix::fs::symlink("../../elsewhere.wgsl", deep.join("link.wgsl")).unwrap();
    let (output, json) = bench.json();

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(json["programs"], 2);
}

#[test]
fn the_table_has_a_row_for_each_pass_and_pipes_get_no_progress_bar() {
    let bench = Bench::new(EXAMPLE, &[("double.wgsl", DOUBLE)]);
    let output = bench.run(&[], &[&bench.programs()]);

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stdout = text(&output.stdout);
    for pass in PASSES {
        // One of counts and totals, one of where the time went.
        let row = format!("{pass}  ");
        let rows = stdout.lines().filter(|line| line.starts_with(&row));
        assert_eq!(rows.count(), 2, "{pass}: {stdout}");
    }
    assert!(output.stderr.is_empty(), "{output:?}");
    let is_control = |char: char| char.is_control() && char != '\n';
    assert!(!stdout.contains(is_control), "{stdout:?}");
}

#[test]
fn a_machine_that_has_prefetched_what_another_recorded_finds_all_of_it_on_its_disk() {
    let bench = Bench::new(EXAMPLE, &[("double.wgsl", DOUBLE), ("fill.wgsl", FILL)]);
    // Relative to where it is called, for the processes that it starts too.
    let args = ["--json", "--record", "build.run", "--prefetch", "build.run"];
    let output = bench.run(&args, &[&bench.programs()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let last = json["passes"].as_array().unwrap().last().unwrap();
    assert_eq!(last["name"], "another, prefetched");
    // Nothing is parsed, compiled or fetched: both are on the disk.
    assert_eq!(counts(&json).last().unwrap(), &[0, 0, 0, 2, 0]);

    let table = bench.run(&["--prefetch", "build.run"], &[&bench.programs()]);
    let table = text(&table.stdout);
    assert!(
        table.contains("prefetch complete: 4 of 4 keys fetched"),
        "{table}"
    );

    fs::write(bench.programs().join("no.run"), "something else altogether").unwrap();
    let bad = bench.run(&["--prefetch", "no.run"], &[&bench.programs()]);
    assert_eq!(bad.status.code(), Some(2), "{bad:?}");
    assert!(
        text(&bad.stderr).contains("is not a recorded run"),
        "{bad:?}"
    );
}

#[test]
fn help_is_exit_code_0_and_bad_arguments_are_2() {
    let help = example(EXAMPLE).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let help = text(&help.stdout);
    for word in [
        "--cache-dir",
        "--json",
        "--keep",
        "Exit codes",
        "another machine",
        "without cache",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    // What it tells itself is not for users.
    assert!(!help.contains("worker"), "{help}");

    let bad = example(EXAMPLE).arg("--no-such-thing").output().unwrap();
    assert_eq!(bad.status.code(), Some(2));
}
