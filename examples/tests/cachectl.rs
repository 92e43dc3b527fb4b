//! What `cachectl` promises to whoever looks after a folder.
#![cfg(unix)]

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use pipeline_cache::{
    Artifact, ArtifactMetadata, DiskCache, DiskCacheBuilder, InMemoryPipelineCache,
    LayeredPipelineCache, PipelineCacheStore as _, PipelineFingerprint, RemoteCache, SharedSecret,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// More entries than this are what the tool is for; the test has them in a few seconds.
const ENTRIES: u64 = 10_000;

fn key(number: u64) -> PipelineFingerprint {
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    PipelineFingerprint::from_bytes(bytes)
}

fn artifact(number: u64) -> Artifact {
    let metadata = ArtifactMetadata::new().with_toolchain("test\u{1b}[2J");
    Artifact::with_metadata(number.to_le_bytes().repeat(20), metadata)
}

fn filled(entries: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        // Nothing here has to survive a power loss.
        let settings = DiskCache::builder().max_pending_flushes(usize::MAX / 4);
        let cache = settings.root(folder.path()).open().await.unwrap();
        let puts = stream::iter(0..entries).map(|number| {
            let cache = cache.clone();
            async move { cache.put(&key(number), artifact(number)).await }
        });
        puts.buffer_unordered(32).try_collect::<()>().await.unwrap();
    });
    folder
}

fn entry(root: &Path, number: u64) -> PathBuf {
    root.join(format!("{}.bin", key(number)))
}

fn text_path(folder: &TempDir, name: &str) -> String {
    let path = folder.path().join(name).into_os_string();
    path.into_string().unwrap()
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cachectl"))
}

fn cachectl(root: &Path, arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("--cache-dir").arg(root).args(arguments);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Vec<Value> {
    let lines = text(output);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn verify_finds_each_damage_among_ten_thousand() {
    let folder = filled(ENTRIES);
    let root = folder.path();
    let mut expected = BTreeMap::new();
    for number in (0..ENTRIES).step_by(97) {
        let path = entry(root, number);
        let mut frame = fs::read(&path).unwrap();
        let health = match number / 97 % 8 {
            // One bit, somewhere else in each.
            0 => {
                let bit = number as usize * 31 % (frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, frame).unwrap();
                "corrupt"
            }
            1 => {
                fs::write(&path, &frame[..number as usize % frame.len()]).unwrap();
                "corrupt"
            }
            2 => {
                frame.push(0);
                fs::write(&path, frame).unwrap();
                "corrupt"
            }
            3 => {
                fs::copy(entry(root, number + 1), &path).unwrap();
                "corrupt"
            }
            4 => {
                frame.fill(0);
                fs::write(&path, frame).unwrap();
                "corrupt"
            }
            5 => {
                fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
                "corrupt"
            }
            6 => {
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink(entry(root, number + 1), &path).unwrap();
                "unsafe"
            }
            _ => {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
                "unsafe"
            }
        };
        expected.insert(key(number).to_hex(), health.to_owned());
    }
    let output = cachectl(root, &["verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.is_empty(),
        "no bar where there is no terminal"
    );
    let mut lines = json(&output);
    let summary = lines.pop().unwrap();
    assert_eq!(summary["verified"], ENTRIES);
    assert_eq!(summary["bad"], expected.len() as u64);
    let found: BTreeMap<_, _> = lines
        .iter()
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            (text("key"), text("health"))
        })
        .collect();
    assert_eq!(found, expected);

    // What was corrupt is set aside; what no cache made is still there.
    let output = cachectl(root, &["verify"]);
    assert_eq!(output.status.code(), Some(1));
    let left = expected
        .values()
        .filter(|health| *health == "unsafe")
        .count();
    assert!(text(&output).ends_with(&format!("{left} bad\n")));
}

/// An entry that the tool cannot judge is somebody's good entry.
#[test]
fn what_the_settings_cannot_judge_is_named_and_left() {
    const LARGE: usize = 65 << 20;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let secret = || SharedSecret::new("the team's secret");
    let put = |settings: DiskCacheBuilder, number, artifact| {
        let settings = settings.root(&root).max_artifact_bytes(256 << 20);
        runtime.block_on(async {
            let cache = settings.open().await.unwrap();
            cache.put(&key(number), artifact).await.unwrap();
        });
    };
    put(DiskCache::builder(), 1, Artifact::new(vec![7; LARGE]));
    put(DiskCache::builder(), 2, artifact(2));
    put(DiskCache::builder().shared_secret(secret()), 3, artifact(3));
    let file = |name: &str, content: &str| {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        file.into_os_string().into_string().unwrap()
    };
    // As cache_server reads it: without the line break.
    let (team, other) = (
        file("team", "the team's secret\n"),
        file("other", "another"),
    );

    let verify = |arguments: &[&str]| {
        let output = cachectl(&root, &[arguments, &["verify", "--json"]].concat());
        let mut lines = json(&output);
        let summary = lines.pop().unwrap();
        assert_eq!(
            (&summary["verified"], &summary["bad"]),
            (&3.into(), &0.into())
        );
        let whole = summary["whole"].as_u64().unwrap();
        assert_eq!(summary["not_judged"], 3 - whole);
        assert_eq!(lines.len() as u64, 3 - whole);
        for line in lines {
            assert_eq!(line["health"], "not judged", "{line}");
        }
        // Nothing was found wrong, and not all was judged.
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        for number in [1, 2, 3] {
            assert!(entry(&root, number).exists(), "{arguments:?}");
        }
        whole
    };
    assert_eq!(verify(&[]), 1, "64 MiB, and no secret");
    assert_eq!(verify(&["--max-artifact", "256M"]), 2);
    assert_eq!(verify(&["--secret-file", &team]), 1);
    assert_eq!(verify(&["--secret-file", &other]), 0);
    let both = ["--secret-file", &other, "--secret-file", &team];
    assert_eq!(verify(&both), 1);
    let said = text(&cachectl(&root, &["verify"]));
    assert!(said.contains("2 not judged and left"), "{said}");

    let listed = text(&cachectl(&root, &["ls"]));
    let signed = listed
        .lines()
        .find(|line| line.starts_with(&key(3).to_hex()));
    assert!(
        signed
            .unwrap()
            .contains("not judged: the frame was made with a secret"),
        "{listed}"
    );
    let hex = key(3).to_hex();
    assert_eq!(cachectl(&root, &["show", &hex]).status.code(), Some(3));
    let with_secret = ["--secret-file", &team, "show", &hex];
    assert!(cachectl(&root, &with_secret).status.success());
}

#[test]
fn a_folder_is_listed_shown_and_trimmed() {
    let folder = filled(50);
    let root = folder.path();
    let stat = &json(&cachectl(root, &["stat", "--json"]))[0];
    assert_eq!(stat["entries"], 50);
    let bytes = stat["bytes"].as_u64().unwrap();
    assert!(text(&cachectl(root, &["stat"])).contains("entries      50\n"));

    let entries = json(&cachectl(root, &["ls", "--json"]));
    assert_eq!(entries.len(), 50);
    assert_eq!(
        entries
            .iter()
            .map(|e| e["bytes"].as_u64().unwrap())
            .sum::<u64>(),
        bytes
    );
    let listed = text(&cachectl(root, &["ls"]));
    assert_eq!(listed.lines().count(), 50);
    assert!(
        !listed.contains('\u{1b}'),
        "an entry does not steer the terminal"
    );

    let hex = key(7).to_hex();
    let output = cachectl(root, &["show", &hex, "--json"]);
    assert!(output.status.success());
    assert_eq!(json(&output)[0]["metadata"]["toolchain"], "test\u{1b}[2J");
    assert!(cachectl(root, &["rm", &hex]).status.success());
    for command in ["show", "rm"] {
        assert_eq!(
            cachectl(root, &[command, &hex]).status.code(),
            Some(1),
            "{command}"
        );
    }

    let max = (bytes / 2).to_string();
    let output = cachectl(root, &["trim", "--max-bytes", &max, "--json"]);
    let report = &json(&output)[0];
    assert_eq!(
        (&report["scanned"], &report["removed"]),
        (&49.into(), &24.into())
    );
    let stat = &json(&cachectl(root, &["stat", "--json"]))[0];
    assert!(stat["bytes"].as_u64().unwrap() <= bytes / 2);
}

#[test]
fn a_trim_may_keep_what_saves_most() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cache = DiskCache::new(root).await.unwrap();
        for (number, compile_time) in [(0, 1000), (1, 1), (2, 2000)] {
            let metadata =
                ArtifactMetadata::new().with_compile_time(Duration::from_millis(compile_time));
            let artifact = Artifact::with_metadata(vec![0; 1000], metadata);
            cache.put(&key(number), artifact).await.unwrap();
        }
    });
    let used = |number, hours: u64| {
        let file = fs::File::open(entry(root, number)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600))
            .unwrap();
    };
    used(0, 2);
    used(1, 0);
    used(2, 1);
    let bytes = fs::metadata(entry(root, 0)).unwrap().len();
    let trim = |entries: u64, more: &[&str]| {
        let max = (bytes * entries).to_string();
        let arguments = [&["trim", "--max-bytes", &max][..], more].concat();
        assert!(cachectl(root, &arguments).status.success());
    };
    trim(2, &["--by-time-saved"]);
    assert!(entry(root, 0).exists() && !entry(root, 1).exists());
    trim(1, &[]);
    assert!(!entry(root, 0).exists() && entry(root, 2).exists());
}

/// As `cache_server` has it: artifacts in one folder of several.
#[test]
fn a_folder_of_something_else_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["artifacts", "ccache", "sccache", "uploads"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let other = root.join("uploads");
    fs::write(other.join("notes.txt"), "mine").unwrap();
    let empty = root.join("sccache");
    for (root, expected) in [
        (
            root,
            "is the folder of a cache_server: its artifacts are in ",
        ),
        (other.as_path(), "holds no entries of a disk cache"),
        (empty.as_path(), "is empty"),
    ] {
        let before: Vec<_> = fs::read_dir(root)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        for command in [
            &["stat"][..],
            &["ls"],
            &["verify"],
            &["trim", "--max-bytes", "1G"],
        ] {
            let output = cachectl(root, command);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
            assert!(said.contains(expected), "{command:?}: {said}");
        }
        let after: Vec<_> = fs::read_dir(root)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert_eq!(before, after);
    }
    // Of a cache there are traces, also where all entries are gone.
    let used = filled(1);
    fs::remove_file(entry(used.path(), 0)).unwrap();
    assert!(cachectl(used.path(), &["stat"]).status.success());
}

#[test]
fn what_cannot_be_looked_at_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    assert_eq!(cachectl(&missing, &["stat"]).status.code(), Some(2));
    assert!(!missing.exists(), "to look at a cache is not to make one");
    for arguments in [
        &["show", "no key"][..],
        &["trim"],
        &["trim", "--max-bytes", "many"],
        &["trim", "--max-bytes", "99999999T"],
    ] {
        let output = cachectl(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

const TOKEN: &str = "writer-token-0123456789";

/// A cache_server on a port that was free. It dies with the value.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let tokens = folder.join("tokens");
        fs::write(&tokens, format!("read-write writer {TOKEN}\n")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cache_server"))
            .args(["--listen", "127.0.0.1:0", "--tokens"])
            .arg(tokens)
            .arg("--cache-dir")
            .arg(folder.join("served"))
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let mut first = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("listening on ").unwrap();
        let address = address.split(';').next().unwrap();
        Self {
            url: format!("{address}/artifacts"),
            child,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Remembers that these entries are owed to the remote of this URL; how many it has of 50.
fn owe(root: &Path, url: &str, numbers: std::ops::Range<u64>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cache = DiskCache::new(root).await.unwrap();
        let tier = RemoteCache::new(url).unwrap().to_string();
        let keys: Vec<_> = numbers.map(key).collect();
        let intents = cache.write_intents().unwrap();
        intents.add(&tier, &keys).await.unwrap();
    });
}

fn served(url: &str) -> u64 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let remote = RemoteCache::builder().no_proxy().bearer_token(TOKEN);
        let remote = remote.build(url).unwrap();
        let mut served = 0;
        for number in 0..50 {
            if let Some(found) = remote.get(&key(number)).await.unwrap() {
                assert_eq!(found, artifact(number));
                served += 1;
            }
        }
        served
    })
}

#[test]
fn what_a_remote_could_not_take_is_pushed_by_hand() {
    let folder = filled(50);
    let (root, beside) = (folder.path(), tempfile::tempdir().unwrap());
    let server = Server::start(beside.path());
    let url = server.url.as_str();
    owe(root, url, 0..20);
    owe(root, "http://127.0.0.1:9/artifacts", 0..5);
    fs::remove_file(entry(root, 0)).unwrap();
    let stat = &json(&cachectl(root, &["stat", "--json"]))[0];
    let of = |n: usize| &stat["intents"][n];
    let mut owed = [&of(0)["intents"], &of(1)["intents"]].map(|n| n.as_u64().unwrap());
    owed.sort_unstable();
    assert_eq!(owed, [5, 20]);
    let said = text(&cachectl(root, &["stat"]));
    assert!(said.contains(&format!("20 to remote({url})")), "{said}");

    let token = beside.path().join("token");
    let token = token.to_str().unwrap();
    let right = &text_path(&beside, "right");
    fs::write(token, "not-the-right-token-at-all\n").unwrap();
    fs::write(right, TOKEN).unwrap();
    let push = ["push", url, "--token-file", token, "--json"];
    let all = [&push[..], &["--all"]].concat();
    let base = url.strip_suffix("artifacts").unwrap();
    owe(root, base, 1..20);
    // Nothing can be pushed: that is told at once, and not of each entry.
    for (arguments, why, hint) in [
        (&push[..], "HTTP status 401", "the token is that of"),
        (&all, "HTTP status 401", "the token is that of"),
        (
            &["push", base, "--token-file", right],
            "HTTP status 400",
            "which for a cache_server ends in /artifacts",
        ),
    ] {
        let output = cachectl(root, arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why) && said.contains(hint), "{said}");
        assert!(!said.contains("not-the-right"), "{said}");
    }
    assert_eq!(served(url), 0);

    fs::write(token, format!("{TOKEN}\n")).unwrap();
    let output = cachectl(root, &push);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&output)[0]["pushed"], 19);
    assert_eq!(served(url), 19);
    let stat = &json(&cachectl(root, &["stat", "--json"]))[0];
    let owed = stat["intents"].as_array().unwrap().iter();
    let mut owed: Vec<_> = owed.map(|owed| owed["intents"].as_u64()).collect();
    owed.sort_unstable();
    assert_eq!(owed, [Some(5), Some(19)], "of the other remotes");
    let said = text(&cachectl(root, &push[..4]));
    let other = "; 5 waiting for remote(http://127.0.0.1:9/artifacts)";
    assert!(
        said.contains("pushed 0, 0 B") && said.contains(other),
        "{said}"
    );
    assert!(said.contains("send them here: --all"), "{said}");

    // All that it does not have, of a folder that once had no remote.
    let pushed = &json(&cachectl(root, &all))[0];
    assert_eq!(
        (&pushed["pushed"], &pushed["was_there"]),
        (&30.into(), &19.into())
    );
    assert_eq!(served(url), 49);
}

#[test]
fn a_recorded_run_is_shown_with_what_is_worth_most() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("build.run");
    let path = file.to_str().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .record_run()
            .build();
        for number in 0..12 {
            let metadata = ArtifactMetadata::new();
            let metadata = metadata.with_compile_time(Duration::from_millis(number));
            let artifact = Artifact::with_metadata(vec![0; 512], metadata);
            cache.put(&key(number), artifact).await.unwrap();
            cache.get(&key(number)).await.unwrap();
        }
        cache
            .recorded_run()
            .await
            .unwrap()
            .save(&file)
            .await
            .unwrap();
    });
    let manifest = |arguments: &[&str]| {
        let mut command = program();
        command.arg("manifest").arg(path).args(arguments);
        command.output().unwrap()
    };
    let output = manifest(&["--json"]);
    assert!(output.status.success(), "{output:?}");
    let run = &json(&output)[0];
    assert_eq!(
        (&run["artifacts"], &run["bytes"]),
        (&12.into(), &6144.into())
    );
    assert!((run["compile_seconds"].as_f64().unwrap() - 0.066).abs() < 1e-9);
    let top = run["top"].as_array().unwrap();
    assert_eq!(top.len(), 10);
    assert_eq!(top[0]["key"], key(11).to_hex());
    let said = text(&manifest(&[]));
    for word in ["artifacts    12", "6.0 KiB", "66.0ms", "used 1 times"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(
        said.contains(&format!("{}       512 B    11.0ms", key(11))),
        "{said}"
    );

    fs::write(&file, "something else altogether").unwrap();
    let output = manifest(&[]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is not a recorded run"), "{said}");
}

#[test]
fn a_push_that_cannot_begin_is_an_error() {
    let folder = filled(1);
    let missing = folder
        .path()
        .join("no token")
        .into_os_string()
        .into_string();
    for arguments in [
        &["push"][..],
        &["push", "ftp://127.0.0.1/"],
        &["push", "http://user:hunter2@127.0.0.1/"],
        &[
            "push",
            "http://127.0.0.1:9/",
            "--token-file",
            &missing.unwrap(),
        ],
    ] {
        let output = cachectl(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("hunter2"), "{said}");
    }
    // Nothing is owed to it, and nobody is there: its URL may be wrong.
    let output = cachectl(folder.path(), &["push", "http://127.0.0.1:9/", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("unreachable"), "{said}");
}

/// Runs a command that names its folder itself.
fn plain(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

/// A folder of entries and as many known spellings.
fn with_aliases(entries: u64) -> TempDir {
    let folder = filled(entries);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cache = DiskCache::new(folder.path()).await.unwrap();
        for number in 0..entries {
            let (alias, named) = (key(number + 1_000_000), key(number));
            let spelling = Artifact::new(named.as_bytes().to_vec());
            cache
                .aliases()
                .unwrap()
                .put(&alias, spelling)
                .await
                .unwrap();
        }
    });
    folder
}

#[test]
fn a_folder_travels_as_a_bundle() {
    let folder = with_aliases(300);
    let beside = tempfile::tempdir().unwrap();
    let path = |name: &str| text_path(&beside, name);
    let (root, file) = (folder.path().to_str().unwrap(), path("all.bundle"));
    let output = plain(&["bundle", root, "-o", &file, "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stderr.is_empty(),
        "no bar where there is no terminal"
    );
    let said = &json(&output)[0];
    assert_eq!(
        (&said["entries"], &said["aliases"]),
        (&300.into(), &300.into())
    );
    // Of the bundle and of the folder.
    for stat in [
        plain(&["stat", &file, "--json"]),
        cachectl(folder.path(), &["stat", "--json"]),
    ] {
        let stat = &json(&stat)[0];
        assert_eq!(
            (&stat["entries"], &stat["aliases"]),
            (&300.into(), &300.into())
        );
    }
    let said = text(&cachectl(folder.path(), &["stat"]));
    assert!(said.contains("\naliases      300\n"), "{said}");

    let ours = path("ours");
    for stored in [600, 0] {
        let output = plain(&["unbundle", &file, &ours, "--json"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(json(&output)[0]["stored"], stored);
        assert_eq!(json(&output)[0]["kept"], 600 - stored);
    }
    for number in 0..300 {
        let (theirs, ours) = (entry(folder.path(), number), entry(ours.as_ref(), number));
        assert_eq!(fs::read(theirs).unwrap(), fs::read(ours).unwrap());
    }
    let again = path("again.bundle");
    assert!(
        plain(&["bundle", &ours, "-o", &again, "--all"])
            .status
            .success()
    );
    assert_eq!(fs::read(&file).unwrap(), fs::read(&again).unwrap());

    // The folder of the flag, as for the other commands.
    let flagged = path("flagged.bundle");
    let output = cachectl(folder.path(), &["bundle", "-o", &flagged]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(&flagged).unwrap(), fs::read(&file).unwrap());
    let theirs = path("theirs");
    let output = cachectl(theirs.as_ref(), &["unbundle", &flagged]);
    assert!(text(&output).contains("stored 600"), "{output:?}");
    for nowhere in [&["bundle", "-o", &flagged][..], &["unbundle", &flagged]] {
        let output = plain(nowhere);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("--cache-dir"), "{said}");
    }

    let keys = path("keys");
    let wanted = [7, 3].map(|number| format!("{} # wanted\n\n", key(number)));
    fs::write(&keys, wanted.concat()).unwrap();
    let some = path("some.bundle");
    let arguments = [
        "bundle",
        root,
        "-o",
        &some,
        "--keys",
        &keys,
        "--no-aliases",
        "--json",
    ];
    let said = &json(&plain(&arguments))[0];
    assert_eq!((&said["entries"], &said["aliases"]), (&2.into(), &0.into()));
    fs::write(&keys, format!("{}\n{}", key(3), key(5_000))).unwrap();
    let output = plain(&arguments);
    assert_eq!(output.status.code(), Some(1), "one is missing");
    assert_eq!(json(&output)[0]["missing"], 1);
}

/// Killed, as by Ctrl-C, at whatever point: it goes on, and makes what it would have made.
#[test]
fn a_bundle_that_was_interrupted_is_continued() {
    let folder = with_aliases(2_000);
    let beside = tempfile::tempdir().unwrap();
    let path = |name: &str| text_path(&beside, name);
    let (root, whole, file) = (folder.path().to_str().unwrap(), path("whole"), path("file"));
    assert!(plain(&["bundle", root, "-o", &whole]).status.success());
    let expected = fs::read(&whole).unwrap();
    let partial = path("file.partial");
    let mut was_cut = false;
    for _ in 0..20 {
        let mut command = program();
        let mut child = command.args(["bundle", root, "-o", &file]).spawn().unwrap();
        // Some of it is written.
        let has_begun = || fs::metadata(&partial).is_ok_and(|partial| partial.len() > 0);
        while child.try_wait().unwrap().is_none() && !has_begun() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        was_cut |= has_begun();
        if was_cut {
            break;
        }
        let _ = fs::remove_file(&file);
    }
    assert!(was_cut && !Path::new(&file).exists());
    let output = plain(&["bundle", root, "-o", &file, "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert!(json(&output)[0]["kept_bytes"].as_u64().unwrap() > 0);
    assert_eq!(fs::read(&file).unwrap(), expected);
    assert!(!Path::new(&partial).exists());

    let ours = path("ours");
    let mut child = program();
    let mut child = child.args(["unbundle", &file, &ours]).spawn().unwrap();
    let has_begun = || fs::read_dir(&ours).is_ok_and(|entries| entries.count() > 20);
    while child.try_wait().unwrap().is_none() && !has_begun() {
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait().unwrap();
    let output = plain(&["unbundle", &file, &ours, "--json"]);
    assert!(output.status.success(), "{output:?}");
    let said = &json(&output)[0];
    let [stored, kept] = ["stored", "kept"].map(|of| said[of].as_u64().unwrap());
    assert!(stored + kept == 4_000 && kept > 0, "{said}");
    assert!(cachectl(ours.as_ref(), &["verify"]).status.success());
}

#[test]
fn a_bundle_says_what_was_left_out_and_what_is_none() {
    let folder = filled(20);
    let root = folder.path();
    let beside = tempfile::tempdir().unwrap();
    let file = beside
        .path()
        .join("some.bundle")
        .into_os_string()
        .into_string()
        .unwrap();
    let mut torn = fs::read(entry(root, 4)).unwrap();
    torn.pop();
    fs::write(entry(root, 4), torn).unwrap();
    let bundle = ["bundle", root.to_str().unwrap(), "-o", &file];
    let output = plain(&bundle);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("19 entries") && text(&output).contains("1 damaged"));
    let secret = beside
        .path()
        .join("secret")
        .into_os_string()
        .into_string()
        .unwrap();
    fs::write(&secret, "a secret of 16 bytes").unwrap();
    let output = plain(&[&bundle[..], &["--secret-file", &secret]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("19 not judged"), "{output:?}");

    for arguments in [
        &["bundle", beside.path().to_str().unwrap(), "-o", &file][..],
        &[
            "bundle",
            root.to_str().unwrap(),
            "-o",
            &file,
            "--keys",
            &secret,
        ],
        &["unbundle", &secret, beside.path().to_str().unwrap()],
        &["unbundle", &file, beside.path().to_str().unwrap()],
        &["stat", &secret],
    ] {
        let output = plain(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_told_with_the_nearest_one() {
    let folder = filled(1);
    let output = program()
        .arg("stat")
        .env("CACHECTL_CACHE_DIR", folder.path())
        .env("CACHECTL_TOKENFILE", "hunter2")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "cachectl: the environment variable CACHECTL_TOKENFILE is not known and is \
                    ignored: did you mean CACHECTL_TOKEN_FILE?\n";
    assert_eq!(said, expected);
}
