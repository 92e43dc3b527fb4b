//! Starts the processes of a fleet, does to one of them or to their server what the scenario says, and
//! adds up what they did.

use crate::backend::Backend;
use crate::worker::{CONCURRENCY, Report, SETTINGS, Settings, artifact, key, remote};
use pipeline_cache::PipelineCacheStore as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROCESSES: u64 = 4;

/// Longer than any request takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a process stands still: longer than its leases live.
const STOPPED: Duration = Duration::from_secs(10);

/// How long there is no server.
const OUTAGE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Cold,
    HolderKilled,
    HolderStopped,
    ServerFails,
}

impl Scenario {
    const fn name(self) -> &'static str {
        match self {
            Self::Cold => "all cold",
            Self::HolderKilled => "a holder killed",
            Self::HolderStopped => "a holder stopped",
            Self::ServerFails => "the server fails",
        }
    }

    /// How long a lease lives: shorter where a scenario waits for its end.
    const fn lease(self) -> Duration {
        match self {
            Self::Cold => Duration::from_secs(10),
            _ => Duration::from_secs(4),
        }
    }

    /// What the layers wait for the server: where it fails, no longer than a caller would.
    const fn network_budget(self) -> Duration {
        match self {
            Self::ServerFails => Duration::from_millis(500),
            _ => DEADLINE,
        }
    }

    /// An outage is to be a part of the whole.
    const fn slowness(self, programs: u64) -> u32 {
        match self {
            Self::ServerFails if programs < 500 => 40,
            Self::ServerFails => 8,
            _ => 1,
        }
    }
}

/// What a scenario came to.
#[derive(Debug)]
pub(crate) struct Row {
    backend: &'static str,
    scenario: Scenario,
    programs: u64,
    compiles: u64,
    /// Artifacts that the server has at the end, and wrong ones among them.
    stored: u64,
    sum: Report,
}

struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
    settings: Settings,
    _folder: TempDir,
}

impl Process {
    fn start(url: &str, scenario: Scenario, process: u64, programs: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            url: url.to_owned(),
            folder: folder.path().to_owned(),
            process,
            programs,
            slowness: scenario.slowness(programs),
            lease: scenario.lease(),
            network_budget: scenario.network_budget(),
            deadline: DEADLINE,
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker::a_process_of_the_fleet", "--nocapture"])
            .env(SETTINGS, serde_json::to_string(&settings).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            said: BufReader::new(child.stdout.take().unwrap()),
            child,
            settings,
            _folder: folder,
        }
    }

    /// The next it says. `None` at its end.
    fn says(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.said.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.trim_end().split_once('@') {
                return Some(said.to_owned());
            }
        }
    }

    /// How many compiles it has begun.
    fn compiles(&self) -> u64 {
        let lines = std::fs::read(self.settings.compiles()).unwrap_or_default();
        lines.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until these processes have begun so many compiles, all together.
fn wait_for_compiles(processes: &[Process], compiles: u64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while processes.iter().map(Process::compiles).sum::<u64>() < compiles {
        assert!(Instant::now() < deadline, "too few compiles");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn run(backend: &mut Backend, scenario: Scenario, programs: u64) -> Row {
    let url = backend.url();
    warm_up(&url);
    let start = |process| Process::start(&url, scenario, process, programs);
    let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
    for process in &mut processes {
        assert_eq!(process.says().unwrap(), "ready");
    }
    for process in &processes {
        let mut stdin = process.child.stdin.as_ref().unwrap();
        stdin.write_all(b"go\n").unwrap();
    }
    match scenario {
        Scenario::Cold => {}
        Scenario::HolderKilled => {
            wait_for_compiles(&processes[..1], programs / 20);
            processes[0].signal("KILL");
        }
        Scenario::HolderStopped => {
            wait_for_compiles(&processes[..1], programs / 20);
            processes[0].signal("STOP");
            std::thread::sleep(STOPPED);
            processes[0].signal("CONT");
        }
        Scenario::ServerFails => {
            wait_for_compiles(&processes, programs / 4);
            backend.fail();
            std::thread::sleep(OUTAGE);
            backend.recover();
        }
    }
    let mut sum = Report::default();
    for (number, process) in processes.iter_mut().enumerate() {
        let Some(report) = process.says() else {
            let is_killed = scenario == Scenario::HolderKilled && number == 0;
            assert!(is_killed, "process {number} has ended");
            continue;
        };
        let report: Report = serde_json::from_str(&report).unwrap();
        assert_eq!(report.requests, programs);
        // Its own requests stood still with it.
        let is_stopped = scenario == Scenario::HolderStopped && number == 0;
        sum.add(&report, !is_stopped);
    }
    let (stored, wrong) = stored(&url, programs);
    sum.wrong += wrong;
    Row {
        backend: backend.name(),
        scenario,
        programs,
        compiles: processes.iter().map(Process::compiles).sum(),
        stored,
        sum,
    }
}

impl Report {
    fn add(&mut self, other: &Self, with_times: bool) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.wrong += other.wrong;
        self.granted += other.granted;
        self.followed += other.followed;
        self.timed_out += other.timed_out;
        self.expired += other.expired;
        self.unshared += other.unshared;
        if with_times {
            self.slowest = self.slowest.max(other.slowest);
        }
    }
}

/// Waits until the server takes writes. The first may take long: SeaweedFS makes its volumes then.
fn warm_up(url: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        let remote = remote(url, DEADLINE);
        while let Err(error) = remote.put(&key(u64::MAX), artifact(0)).await {
            assert!(began.elapsed() < Duration::from_secs(120), "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

/// How many artifacts the server has, and how many of them are wrong.
fn stored(url: &str, programs: u64) -> (u64, u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let remote = remote(url, DEADLINE);
        let (mut stored, mut wrong) = (0, 0);
        for number in 0..programs {
            let Ok(found) = remote.get(&key(number)).await else {
                continue;
            };
            stored += u64::from(found.is_some());
            let is_wrong =
                |found: pipeline_cache::Artifact| found.payload() != artifact(number).payload();
            wrong += u64::from(found.is_some_and(is_wrong));
        }
        (stored, wrong)
    })
}

pub(crate) const HEAD: &str = "| backend | scenario | programs | compiles per program | followed | timed out | expired | \
     without a lease | slowest request | failed | wrong | on the server |\n\
     |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

impl Row {
    pub(crate) fn print(&self) {
        let sum = &self.sum;
        println!(
            "| {} | {} | {} | {:.3} | {} | {} | {} | {} | {:.2} s | {} | {} | {} |",
            self.backend,
            self.scenario.name(),
            self.programs,
            self.compiles as f64 / self.programs as f64,
            sum.followed,
            sum.timed_out,
            sum.expired,
            sum.unshared,
            sum.slowest.as_secs_f64(),
            sum.failed,
            sum.wrong,
            self.stored,
        );
    }

    /// Compiles beyond one for each program that the scenario explains.
    fn explained(&self) -> u64 {
        let (sum, few) = (&self.sum, self.programs / 50);
        match self.scenario {
            Scenario::Cold => few,
            // What was being compiled then, or waited for its turn.
            Scenario::HolderKilled | Scenario::HolderStopped => few + CONCURRENCY,
            // What was compiled without a lease the server may not have got: the others compile it,
            // too. The same holds for what was being compiled when the server failed.
            Scenario::ServerFails => {
                let others = PROCESSES - 1;
                others * (sum.unshared + sum.expired + PROCESSES * CONCURRENCY)
            }
        }
    }

    pub(crate) fn check(&self) {
        let (sum, programs) = (&self.sum, self.programs);
        assert_eq!((sum.wrong, sum.failed), (0, 0), "{self:?}");
        assert!(sum.slowest < DEADLINE, "{self:?}");
        let extra = self.compiles - programs;
        assert!(extra <= self.explained(), "{self:?}");
        if self.scenario != Scenario::ServerFails {
            assert_eq!(self.stored, programs, "{self:?}");
            assert!(sum.followed > 0, "{self:?}");
        }
    }
}
