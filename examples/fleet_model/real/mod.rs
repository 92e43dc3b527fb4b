//! A real run of a few processes, and the model of the same beside it.

pub(crate) mod member;
mod report;

use anyhow::{Context as _, Result, ensure};
use std::env::current_exe;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::args::{Fleet, RealArgs};
use crate::scenario;
use crate::server_kind::ServerKind;
use member::{Done, Task};
use report::Comparison;

/// One way between processes on one machine, and what they carry.
const LATENCY: Duration = Duration::from_micros(50);
const GIGABITS: f64 = 20.0;

pub(crate) fn compare(args: &RealArgs) -> Result<()> {
    let modelled = scenario::run(&args.load, &fleet(args))?;
    let done = run_processes(args)?;
    let comparison = Comparison::new(&modelled, &done, args.load.seconds);
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &comparison)?;
        writeln!(out)?;
    } else {
        write!(out, "{comparison}")?;
    }
    ensure!(
        comparison.is_clean(),
        "a request failed or got a wrong artifact"
    );
    Ok(())
}

fn fleet(args: &RealArgs) -> Fleet {
    Fleet {
        machines: args.processes as usize,
        remote: match args.server.redis {
            Some(_) => ServerKind::RedisBeside,
            None => ServerKind::CacheServerBeside,
        },
        leases: !args.no_leases,
        edge_of: None,
        latency: LATENCY,
        gigabits: GIGABITS,
        compile_places: args.compile_places.into(),
        outage: None,
    }
}

/// A process that is ready. It ends with this.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_processes(args: &RealArgs) -> Result<Vec<Done>> {
    let folder = tempfile::tempdir()?;
    // No other run has its keys.
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let mut processes = Vec::new();
    for number in 0..args.processes {
        let task = Task {
            number,
            run,
            folder: folder.path().join(number.to_string()),
            server: args.server.clone(),
            leases: !args.no_leases,
            compile_places: args.compile_places.into(),
            load: args.load.clone(),
        };
        processes.push(Process::start(&task)?);
    }
    for process in &mut processes {
        process.line().context("a process did not start")?;
    }
    for process in &mut processes {
        writeln!(process.input, "go")?;
    }
    let lines = processes.iter_mut().map(Process::line);
    let done = lines.map(|line| Ok(serde_json::from_str(&line?)?));
    done.collect()
}

impl Process {
    fn start(task: &Task) -> Result<Self> {
        let mut child = Command::new(current_exe()?)
            .arg("member")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("no stdin")?;
        let output = child.stdout.take().context("no stdout")?;
        let mut process = Self {
            child,
            input,
            output: BufReader::new(output),
        };
        writeln!(process.input, "{}", serde_json::to_string(task)?)?;
        Ok(process)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.output.read_line(&mut line)?;
        ensure!(length > 0, "a process ended early");
        Ok(line)
    }
}
