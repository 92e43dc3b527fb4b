//! What answers one compile request, once its key is known.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{Span, dispatcher};

use super::admission::LookupPriority;
use super::compile_error::CompileError;
use super::compiled::{CompileSource, CompileTimes, Compiled};
use super::compiler::{Compiler, next_node};
use super::execution::{Lent, Run};
use super::lookup::{LookupSource, TierSelection};
use super::order::{Finished, Job, JobSlot, Order, Stop};
use super::origin::Located;
use super::savings::{Account, saved_nanos};
use super::waits::{Node, Wait};
use crate::artifact::Artifact;
use crate::key::{CompileScope, PipelineFingerprint, Unkeyable};
use crate::sync::lock::lock;

/// The options of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) deadline: Option<Duration>,
    pub(super) tiers: TierSelection,
    pub(super) writes: TierSelection,
    pub(super) priority: LookupPriority,
    pub(super) race: Option<Duration>,
    pub(super) network_budget: Duration,
    pub(super) remembers_failures: bool,
    pub(super) abandoned: Abandoned,
}

/// What becomes of a compile when nobody waits for it any more.
///
/// ```
/// use pipeline_cache::layered::Abandoned;
/// # use pipeline_cache::{Artifact, CompileScope, InMemoryPipelineCache, LayeredPipelineCache};
/// # use pipeline_cache::{OpaqueProgram, Unkeyable};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
/// # let scope = CompileScope::new("compiler 1.0", "any")?;
/// // For a draft, which the next keystroke replaces.
/// let checked = cache
///     .compile(&scope)
///     .program(OpaqueProgram::new("text", "hell"))
///     .when_abandoned(Abandoned::Cancel)
///     .run(|_input, _cx| Ok::<_, Unkeyable>(Artifact::new("fine")))
///     .await?;
/// # let _ = checked;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abandoned {
    /// It goes on, and its artifact is stored. Whoever asks meanwhile joins it.
    #[default]
    FinishAndKeep,
    /// It is dropped, if no caller wanted it to be kept. A function on a thread cannot be stopped once
    /// it has begun: it may ask [`CompileContext::is_wanted`](super::CompileContext::is_wanted). If it makes an artifact all the same,
    /// that is stored.
    Cancel,
}

/// What answers one request.
pub(super) struct Desk<'a, 'b> {
    pub(super) compiler: &'a Arc<Compiler>,
    pub(super) scope: &'a CompileScope,
    pub(super) options: Options,
    pub(super) parent: Option<Arc<Run>>,
    pub(super) account: Option<Arc<Account>>,
    pub(super) lent: &'b mut Option<Lent>,
}

impl Desk<'_, '_> {
    pub(super) async fn find_or_compile<E: Send + Sync + 'static>(
        &mut self,
        mut key: PipelineFingerprint,
        located: Located,
        job: impl FnOnce() -> Job<E> + Send,
    ) -> Result<Compiled, CompileError<E>> {
        let compiler = self.compiler;
        let start = Instant::now();
        if let Some((artifact, source)) = compiler.search.peek_and_promote(&key) {
            let mut times = located.times;
            times.lookup = start.elapsed();
            if let Some(sample) = compiler.verifier.sample() {
                let order = self.order(Duration::ZERO);
                compiler.verify(sample, key, artifact.clone(), &slot(job()), &order);
            }
            self.count_hit(&artifact, source, &times);
            return Ok(Compiled {
                key: Some(key),
                artifact,
                source: CompileSource::Cache(source),
                times,
                names: compiler.names.clone(),
                asked: None,
            });
        }
        if self.options.remembers_failures {
            if let Some(error) = compiler.failures.get(&key) {
                return Err(CompileError::Failed(error));
            }
        }
        let slot = slot(job());
        let order = self.order(located.network);
        self.lend();
        loop {
            let _wait = self.wait_for(compiler.node(key))?;
            let (is_leader, result) = compiler.find_or_compile(key, &slot, &order).await;
            let stop = match result {
                Ok(finished) => return Ok(self.answer(key, &located, is_leader, finished)),
                Err(stop) => stop,
            };
            match stop {
                // The compile that this caller joined is over, and has made nothing for it: or its
                // error has the type of another caller, so that this one cannot be told.
                Stop::Cancelled if is_full(&slot) => continue,
                Stop::Rekeyed(_) if !is_leader && is_full(&slot) => continue,
                Stop::Failed(ref error) if !error.is::<E>() && is_full(&slot) => continue,
                Stop::Rekeyed(right) if is_leader => {
                    if let Some(alias) = &located.alias {
                        let right = right.as_ref().ok().copied();
                        compiler.aliases.correct(alias, right);
                    }
                    match right {
                        Ok(right) => key = right.scoped(self.scope),
                        Err(reason) => return self.bypass_unkeyable(slot, reason, located).await,
                    }
                }
                stop => {
                    let error = stop.into_error();
                    if let CompileError::Failed(error) = &error {
                        self.remember(&key, &located, error);
                    }
                    return Err(error);
                }
            }
        }
    }

    pub(super) async fn bypass_unkeyable<E: Send + Sync + 'static>(
        &mut self,
        slot: JobSlot<E>,
        reason: Unkeyable,
        located: Located,
    ) -> Result<Compiled, CompileError<E>> {
        tracing::debug!(%reason, "the program has no key: compiling without the cache");
        let source = CompileSource::Bypassed(reason);
        self.bypass(slot, source, located.times).await
    }

    /// Compiles past the cache.
    pub(super) async fn bypass<E: Send + Sync + 'static>(
        &mut self,
        slot: JobSlot<E>,
        source: CompileSource,
        times: CompileTimes,
    ) -> Result<Compiled, CompileError<E>> {
        let node = next_node();
        self.lend();
        let _wait = self.wait_for(node)?;
        let order = self.order(Duration::ZERO);
        let finished = self.compiler.bypass(slot, order, node).await;
        let finished = finished.map_err(Stop::into_error)?;
        Ok(self.compiled(None, finished, source, times))
    }

    /// From here on the request waits, and a compile that asks needs no place.
    fn lend(&mut self) {
        if self.lent.is_none() {
            *self.lent = self.parent.as_ref().map(|run| run.place.lend());
        }
    }

    /// Begins the wait of the asking compile for another, if a compile asks.
    fn wait_for<E>(&self, node: Node) -> Result<Option<Wait>, CompileError<E>> {
        let Some(parent) = &self.parent else {
            return Ok(None);
        };
        Wait::begin(parent.node, node)
            .map(Some)
            .map_err(|chain| CompileError::Recursive(chain.iter().filter_map(Node::key).collect()))
    }

    fn order(&self, network: Duration) -> Order {
        Order {
            scope: self.scope.clone(),
            tiers: self.options.tiers,
            writes: self.options.writes,
            priority: self.options.priority,
            race: self.options.race,
            network_budget: self.options.network_budget.saturating_sub(network),
            keep: self.options.abandoned == Abandoned::FinishAndKeep,
            span: Span::current(),
            dispatch: dispatcher::get_default(Clone::clone),
        }
    }

    fn answer(
        &self,
        key: PipelineFingerprint,
        located: &Located,
        is_leader: bool,
        finished: Finished,
    ) -> Compiled {
        let source = match (finished.source, is_leader) {
            (Some(source), _) => CompileSource::Cache(source),
            (None, true) => CompileSource::Compiled,
            (None, false) => CompileSource::Joined,
        };
        let compiled = self.compiled(Some(key), finished, source, located.times);
        self.compiler.search.record(&key, Some(&compiled.artifact));
        match &compiled.source {
            CompileSource::Cache(source) => {
                self.count_hit(&compiled.artifact, *source, &compiled.times);
            }
            CompileSource::Compiled => {
                if let Some(account) = &self.account {
                    account.miss(cost(&compiled.times));
                }
            }
            _ => {}
        }
        compiled
    }

    fn compiled(
        &self,
        key: Option<PipelineFingerprint>,
        finished: Finished,
        source: CompileSource,
        mut times: CompileTimes,
    ) -> Compiled {
        let run = finished.run;
        times.parse += run.parse;
        times.key += run.key;
        times.lookup = finished.lookup;
        times.queue += finished.queue;
        times.compile = run.compile;
        Compiled {
            key,
            artifact: finished.artifact,
            source,
            times,
            names: self.compiler.names.clone(),
            asked: finished.asked,
        }
    }

    /// Counts what a hit saves, where it is known how long its compile took.
    fn count_hit(&self, artifact: &Artifact, source: LookupSource, times: &CompileTimes) {
        if let Some(compile) = artifact.metadata().compile_time() {
            let saved = saved_nanos(compile, cost(times));
            self.compiler.count_saved(source, saved);
            if let Some(account) = &self.account {
                account.hit(saved);
            }
        }
    }

    fn remember<E: Send + Sync + 'static>(
        &self,
        key: &PipelineFingerprint,
        located: &Located,
        error: &Arc<E>,
    ) {
        if self.options.remembers_failures {
            let failures = &self.compiler.failures;
            failures.remember(*key, error);
            if let Some(alias) = &located.alias {
                failures.remember(alias.scoped(self.scope), error);
            }
        }
    }
}

/// What the cache itself costs a request.
fn cost(times: &CompileTimes) -> Duration {
    times.hash + times.alias + times.key + times.lookup
}

pub(super) fn slot<E>(job: Job<E>) -> JobSlot<E> {
    Arc::new(Mutex::new(Some(job)))
}

fn is_full<E>(slot: &JobSlot<E>) -> bool {
    lock(slot).is_some()
}
