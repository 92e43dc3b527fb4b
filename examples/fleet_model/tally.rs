//! What happened in a run: counted as it happens, by the second.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::Mutex;
use std::time::Duration;

use crate::network::lock;
use crate::programs::ProgramSet;
use crate::server::Operation;
use crate::workload::ProgramId;

/// Of one second, at the remote.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Second {
    pub(crate) requests: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Compiles that began, on all machines.
    pub(crate) compiles: u64,
}

#[derive(Debug)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) seconds: Vec<Second>,
    pub(crate) requests: u64,
    pub(crate) from_memory: u64,
    pub(crate) failed: u64,
    /// Artifacts that are not those of their programs.
    pub(crate) wrong: u64,
    pub(crate) compiles: u64,
    /// Requests that came to the remote, without those about leases.
    pub(crate) gets_and_puts: u64,
    /// The programs that were asked for, and those that were compiled.
    pub(crate) wanted: ProgramSet,
    pub(crate) compiled: ProgramSet,
    /// Times to artifact in microseconds, of requests that memory did not answer.
    pub(crate) times: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new(programs: usize) -> Self {
        let longest = Duration::from_secs(3600).as_micros() as u64;
        Self(Mutex::new(Counts {
            seconds: Vec::new(),
            requests: 0,
            from_memory: 0,
            failed: 0,
            wrong: 0,
            compiles: 0,
            gets_and_puts: 0,
            wanted: ProgramSet::new(programs),
            compiled: ProgramSet::new(programs),
            times: Histogram::new_with_max(longest, 3).expect("valid bounds"),
        }))
    }

    pub(crate) fn request_came(&self, now: Duration, operation: Operation, bytes: u64) {
        if matches!(operation, Operation::Get | Operation::Put) {
            lock(&self.0).gets_and_puts += 1;
        }
        self.second(now, |second| {
            second.requests += 1;
            second.bytes_in += bytes;
        });
    }

    pub(crate) fn answer_left(&self, at: Duration, bytes: u64) {
        self.second(at, |second| second.bytes_out += bytes);
    }

    pub(crate) fn compile_began(&self, now: Duration, program: ProgramId) {
        self.second(now, |second| second.compiles += 1);
        let mut counts = lock(&self.0);
        counts.compiles += 1;
        counts.compiled.insert(program);
    }

    pub(crate) fn answered(&self, program: ProgramId, time: Duration, answered: Answered) {
        let mut counts = lock(&self.0);
        counts.requests += 1;
        counts.wanted.insert(program);
        match answered {
            Answered::FromMemory => counts.from_memory += 1,
            Answered::Otherwise => counts.times.saturating_record(time.as_micros() as u64),
            Answered::Failed => counts.failed += 1,
            Answered::Wrong => counts.wrong += 1,
        }
    }

    pub(crate) fn with<T>(&self, read: impl FnOnce(&Counts) -> T) -> T {
        read(&lock(&self.0))
    }

    fn second(&self, at: Duration, count: impl FnOnce(&mut Second)) {
        let seconds = &mut lock(&self.0).seconds;
        let index = at.as_secs() as usize;
        if seconds.len() <= index {
            seconds.resize(index + 1, Second::default());
        }
        count(&mut seconds[index]);
    }
}

/// Where an artifact came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    FromMemory,
    Otherwise,
    Failed,
    Wrong,
}
