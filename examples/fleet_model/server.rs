//! A server that all machines share, and an edge in front of it: what requests wait for, and what it
//! answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::lease_table::LeaseTable;
use crate::network::{Link, Wire, Workers, lock};
use crate::outage::{Down, Outage};
use crate::programs::ProgramSet;
use crate::server_kind::ServerKind;
use crate::tally::Tally;
use crate::workload::{ProgramId, Workload};

/// What a request or an answer takes on the wire beside an artifact.
const HEAD_BYTES: u64 = 300;

/// Requests that wait for longer are turned away.
const LONGEST_QUEUE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) program: ProgramId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Put,
    /// Leases have holders, told apart by numbers.
    Acquire(u64),
    Renew(u64),
    Release(u64),
    /// Learn when a lease ends.
    Watch,
}

#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Hit,
    Miss,
    Done,
    Granted,
    Held,
    Stored,
    Watching(Arc<Notify>),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused,
    Overloaded,
    TimedOut,
}

#[derive(Debug)]
pub(crate) struct Server {
    clock: Clock,
    kind: ServerKind,
    workload: Arc<Workload>,
    workers: Workers,
    up: Link,
    down: Link,
    stored: Mutex<ProgramSet>,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Origin {
        leases: LeaseTable,
        outage: Option<Outage>,
        tally: Arc<Tally>,
    },
    /// Keeps what it fetched, and passes the rest on.
    Edge {
        wire: Wire,
        origin: Arc<Server>,
        fetches: Fetches,
    },
}

/// Of each program one at a time. Whether it was a hit.
type Fetches = Mutex<HashMap<ProgramId, Arc<OnceCell<bool>>>>;

impl Server {
    pub(crate) fn origin(
        clock: Clock,
        kind: ServerKind,
        workload: Arc<Workload>,
        outage: Option<Outage>,
        tally: Arc<Tally>,
    ) -> Self {
        let leases = LeaseTable::default();
        let role = Role::Origin {
            leases,
            outage,
            tally,
        };
        Self::new(clock, kind, workload, role)
    }

    pub(crate) fn edge(
        clock: Clock,
        workload: Arc<Workload>,
        wire: Wire,
        origin: Arc<Self>,
    ) -> Self {
        let fetches = Fetches::default();
        let role = Role::Edge {
            wire,
            origin,
            fetches,
        };
        Self::new(clock, ServerKind::Edge, workload, role)
    }

    fn new(clock: Clock, kind: ServerKind, workload: Arc<Workload>, role: Role) -> Self {
        let costs = kind.costs();
        Self {
            clock,
            kind,
            workers: Workers::new(costs.workers, LONGEST_QUEUE),
            up: Link::new(costs.gigabits),
            down: Link::new(costs.gigabits),
            stored: Mutex::new(ProgramSet::new(workload.programs.len())),
            workload,
            role,
        }
    }

    /// How many of these it does not have.
    pub(crate) fn missing(&self, programs: &ProgramSet) -> usize {
        programs.missing_in(&lock(&self.stored))
    }

    /// Sends a request over this wire. `begun` is cancelled when the answer begins to arrive.
    ///
    /// While the server hangs there is no answer, ever: whoever asks gives up.
    pub(crate) async fn ask(
        &self,
        wire: &Wire,
        request: Request,
        begun: &CancellationToken,
    ) -> Result<Answer, Failure> {
        let clock = self.clock;
        let bytes = match request.operation {
            Operation::Put => self.workload.program(request.program).bytes,
            _ => 0,
        };
        let sent = wire.up.send(clock.now(), HEAD_BYTES + bytes);
        let received = self.up.send(sent, HEAD_BYTES + bytes);
        clock.sleep_until(received + wire.latency).await;

        self.fail_if_down(wire).await?;
        self.count_in(request.operation, HEAD_BYTES + bytes);
        let costs = self.kind.costs();
        let work = costs.work(request.operation, self.bytes_of_a_hit(request).max(bytes));
        let done = self.workers.serve(clock.now(), work);
        let done = done.ok_or(Failure::Overloaded)?;
        clock
            .sleep_until(done + costs.wait(request.operation))
            .await;
        self.fail_if_down(wire).await?;

        let answer = self.answer(request).await?;
        let bytes = match answer {
            Answer::Hit => self.workload.program(request.program).bytes,
            _ => 0,
        };
        let begins = clock.now() + wire.latency;
        let sent = self.down.send(clock.now(), HEAD_BYTES + bytes);
        self.count_out(sent, HEAD_BYTES + bytes);
        let received = wire.down.send(sent, HEAD_BYTES + bytes);
        // Answers share the line, so each begins at once.
        clock.sleep_until(begins).await;
        begun.cancel();
        clock.sleep_until(received + wire.latency).await;
        Ok(answer)
    }

    fn bytes_of_a_hit(&self, request: Request) -> u64 {
        let is_hit = request.operation == Operation::Get && self.has(request.program);
        if is_hit {
            self.workload.program(request.program).bytes
        } else {
            0
        }
    }

    async fn fail_if_down(&self, wire: &Wire) -> Result<(), Failure> {
        let Role::Origin {
            outage: Some(outage),
            ..
        } = &self.role
        else {
            return Ok(());
        };
        if !outage.includes(self.clock.now()) {
            return Ok(());
        }
        if outage.down == Down::Hangs {
            std::future::pending::<()>().await;
        }
        self.clock.sleep(wire.latency).await;
        Err(Failure::Refused)
    }

    fn count_in(&self, operation: Operation, bytes: u64) {
        if let Role::Origin { tally, .. } = &self.role {
            tally.request_came(self.clock.now(), operation, bytes);
        }
    }

    /// Counts an answer in the second in which its last byte leaves.
    fn count_out(&self, sent: Duration, bytes: u64) {
        if let Role::Origin { tally, .. } = &self.role {
            tally.answer_left(sent, bytes);
        }
    }

    async fn answer(&self, request: Request) -> Result<Answer, Failure> {
        match &self.role {
            Role::Origin { leases, .. } => Ok(self.answer_as_origin(request, leases)),
            Role::Edge {
                wire,
                origin,
                fetches,
            } => match request.operation {
                Operation::Get => self.fetch(request, wire, origin, fetches).await,
                _ => Box::pin(origin.ask(wire, request, &CancellationToken::new())).await,
            },
        }
    }

    fn answer_as_origin(&self, request: Request, leases: &LeaseTable) -> Answer {
        let (program, now) = (request.program, self.clock.now());
        match request.operation {
            Operation::Get if self.has(program) => Answer::Hit,
            Operation::Get => Answer::Miss,
            Operation::Put => {
                lock(&self.stored).insert(program);
                Answer::Done
            }
            Operation::Acquire(_) if self.has(program) => Answer::Stored,
            Operation::Acquire(holder) => match leases.acquire(program, holder, now) {
                true => Answer::Granted,
                false => Answer::Held,
            },
            Operation::Renew(holder) => match leases.renew(program, holder, now) {
                true => Answer::Granted,
                false => Answer::Held,
            },
            Operation::Release(holder) => {
                let told = leases.release(program, holder);
                // To tell them keeps a worker busy, and the next requests wait.
                let work = self.kind.costs().notice * told as u32;
                self.workers.serve(now, work);
                Answer::Done
            }
            Operation::Watch => Answer::Watching(leases.watch(program)),
        }
    }

    /// From the edge, or from its origin: one fetch for all who ask at the same time. A miss is
    /// shared by nobody, since the artifact may have come meanwhile, and it is not kept.
    async fn fetch(
        &self,
        request: Request,
        wire: &Wire,
        origin: &Arc<Self>,
        fetches: &Fetches,
    ) -> Result<Answer, Failure> {
        if self.has(request.program) {
            return Ok(Answer::Hit);
        }
        let fetch = Arc::clone(lock(fetches).entry(request.program).or_default());
        let is_own = AtomicBool::new(false);
        let ask = || async {
            is_own.store(true, Ordering::Relaxed);
            let begun = CancellationToken::new();
            let answer = Box::pin(origin.ask(wire, request, &begun)).await?;
            Ok(matches!(answer, Answer::Hit))
        };
        let is_hit = fetch.get_or_try_init(ask).await.copied();
        lock(fetches).remove(&request.program);
        if is_hit? {
            lock(&self.stored).insert(request.program);
            return Ok(Answer::Hit);
        }
        if is_own.into_inner() {
            return Ok(Answer::Miss);
        }
        let answer = Box::pin(origin.ask(wire, request, &CancellationToken::new())).await?;
        if matches!(answer, Answer::Hit) {
            lock(&self.stored).insert(request.program);
        }
        Ok(answer)
    }

    fn has(&self, program: ProgramId) -> bool {
        lock(&self.stored).has(program)
    }
}
