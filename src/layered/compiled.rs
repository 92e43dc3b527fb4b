//! What a compile is given and what it answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::lookup::{LookupSource, TierOutcome, TierReport};
use super::tier::TierNames;
use crate::artifact::Artifact;
use crate::key::{PipelineFingerprint, Program, Unkeyable};

/// The input of a compile function.
///
/// See [`CompileContext`](super::CompileContext) for an example.
#[derive(Debug)]
pub enum CompileInput<P: Program> {
    /// The canonical form: exactly what the key was made from. The artifact is stored.
    Canonical(P::Canonical),
    /// The program itself, because it has no key. The artifact is not stored.
    Unkeyable(P, Unkeyable),
    /// The program itself, because its scope is passed by: see
    /// [`pass_by_losing_scopes`](crate::LayeredPipelineCacheBuilder::pass_by_losing_scopes). The
    /// artifact is not stored.
    PassedBy(P),
}

impl<P: Program> CompileInput<P> {
    /// The canonical form, for compilers that accept nothing else. Made here for a program that was
    /// passed by.
    ///
    /// # Errors
    ///
    /// The reason why the program has no canonical form.
    pub fn into_canonical(self) -> Result<P::Canonical, Unkeyable> {
        match self {
            Self::Canonical(canonical) => Ok(canonical),
            Self::Unkeyable(_, reason) => Err(reason),
            Self::PassedBy(program) => program.canonicalize(),
        }
    }
}

/// An artifact, where it came from, and what each step took.
///
/// `Display` prints one line.
///
/// ```
/// use pipeline_cache::{
///     Artifact, CompileScope, CompileSource, InMemoryPipelineCache, LayeredPipelineCache,
///     OpaqueProgram, Unkeyable,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
/// let scope = CompileScope::new("compiler 1.0", "any")?;
/// let compiled = cache
///     .compile(&scope)
///     .program(OpaqueProgram::new("text", "hello"))
///     .run(|_input, _cx| Ok::<_, Unkeyable>(Artifact::new("code")))
///     .await?;
/// assert_eq!(compiled.source, CompileSource::Compiled);
/// if let Some(tier) = compiled.tier_name() {
///     println!("found in {tier}");
/// }
/// println!("{:?} to make the key, {:?} to compile", compiled.times.key, compiled.times.compile);
/// for tier in compiled.tiers() {
///     println!("{}: {} in {:?}", tier.name, tier.outcome, tier.elapsed);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Compiled {
    /// The key of the artifact; `None` for what was compiled without the cache.
    pub key: Option<PipelineFingerprint>,
    /// The artifact.
    pub artifact: Artifact,
    /// Where it came from.
    pub source: CompileSource,
    /// How long each step of the request took.
    pub times: CompileTimes,
    pub(super) names: TierNames,
    /// `None` if no tier had to be asked.
    pub(super) asked: Option<Arc<[TierReport]>>,
}

/// How long each step of a compile request took. A step that was not needed took no time.
///
/// A caller that joined another's compile is told the times of that compile.
///
/// See [`Compiled`] for an example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CompileTimes {
    /// To hash the source.
    pub hash: Duration,
    /// To look for it in the stores of [source aliases](crate::SourceAliases), where it is not known in
    /// memory.
    pub alias: Duration,
    /// To parse it.
    pub parse: Duration,
    /// To make the canonical form and its key.
    pub key: Duration,
    /// To look into the tiers, before a compile was begun.
    pub lookup: Duration,
    /// To wait for places in the compile pool: for the parse and the key, and for the compile.
    pub queue: Duration,
    /// To compile.
    pub compile: Duration,
}

/// Where the artifact of a compile request came from.
///
/// See [`Compiled`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileSource {
    /// The cache had the artifact.
    Cache(LookupSource),
    /// This call compiled it.
    Compiled,
    /// Another call was compiling it already, and this call waited for that one.
    Joined,
    /// This call compiled it and did not store it, because the program has no key.
    Bypassed(Unkeyable),
    /// This call compiled it and did not store it, because its scope costs more than it saves.
    PassedBy,
}

impl CompileTimes {
    /// Each step that took time, with its name, in the order of the steps.
    fn steps(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let Self {
            hash,
            alias,
            parse,
            key,
            lookup,
            queue,
            compile,
        } = *self;
        let steps = [
            ("hash", hash),
            ("alias", alias),
            ("parse", parse),
            ("key", key),
            ("lookup", lookup),
            ("queue", queue),
            ("compile", compile),
        ];
        steps.into_iter().filter(|(_, time)| !time.is_zero())
    }
}

impl fmt::Display for CompileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache(source) => write!(f, "cache: {source}"),
            Self::Compiled => f.write_str("compiled"),
            Self::Joined => f.write_str("joined a running compile"),
            Self::Bypassed(reason) => write!(f, "compiled without the cache: {reason}"),
            Self::PassedBy => f.write_str("compiled without the cache: its scope is passed by"),
        }
    }
}

/// What one tier did for a compile request.
///
/// See [`Compiled`] for an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TierAnswer<'a> {
    /// The tier's name, as it prints itself.
    pub name: &'a str,
    /// Its answer, or why there is none.
    pub outcome: TierOutcome,
    /// The time from the call to its answer, or to the end of the search.
    pub elapsed: Duration,
}

impl Compiled {
    /// What each tier did, in the order of the tiers.
    pub fn tiers(&self) -> impl ExactSizeIterator<Item = TierAnswer<'_>> + '_ {
        (0..self.names.len()).map(|tier| {
            let report = self.report(tier);
            TierAnswer {
                name: self.names.name(tier),
                outcome: report.outcome,
                elapsed: report.elapsed,
            }
        })
    }

    fn report(&self, tier: usize) -> TierReport {
        match (&self.asked, &self.source) {
            (Some(asked), _) => asked[tier].clone(),
            (None, CompileSource::Cache(LookupSource::Tier(source))) if *source == tier => {
                TierReport {
                    outcome: TierOutcome::Hit,
                    elapsed: self.times.lookup,
                }
            }
            (None, _) => TierReport::SKIPPED,
        }
    }

    /// The name of the tier that had the artifact, if the cache had it.
    #[must_use]
    pub fn tier_name(&self) -> Option<&str> {
        match self.source {
            CompileSource::Cache(LookupSource::Tier(tier) | LookupSource::Promotion(tier)) => {
                Some(self.names.name(tier))
            }
            _ => None,
        }
    }

    /// Where it came from, in a word for a header or a label: the kind of the tier, as in `memory` or
    /// `disk`, or `write_behind`, `compiled`, `joined`, `bypassed` or `passed_by`. No folder and no
    /// URL is told.
    ///
    /// ```
    /// # use pipeline_cache::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let scope = CompileScope::new("upper-caser 1.0", "ascii")?;
    /// let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
    /// for source in ["compiled", "memory"] {
    ///     let compiled = cache
    ///         .compile(&scope)
    ///         .program(OpaqueProgram::new("text", "hello"))
    ///         .run(|input, _cx| Ok::<_, Unkeyable>(Artifact::new(input.into_canonical()?.bytes().clone())))
    ///         .await?;
    ///     assert_eq!(compiled.source_label(), source);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn source_label(&self) -> &str {
        match &self.source {
            CompileSource::Cache(LookupSource::Tier(tier) | LookupSource::Promotion(tier)) => {
                self.names.label(*tier)
            }
            CompileSource::Cache(LookupSource::WriteBehind) => "write_behind",
            CompileSource::Compiled => "compiled",
            CompileSource::Joined => "joined",
            CompileSource::Bypassed(_) => "bypassed",
            CompileSource::PassedBy => "passed_by",
        }
    }

    /// The times in the form of the HTTP header `Server-Timing`, in milliseconds. Tiers are named by
    /// their kind, so that no folder and no URL is told.
    ///
    /// ```
    /// # use pipeline_cache::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
    /// # let scope = CompileScope::new("upper-caser 1.0", "ascii")?;
    /// let compiled = cache
    ///     .compile(&scope)
    ///     .program(OpaqueProgram::new("text", "hello"))
    ///     .run(|input, _cx| Ok::<_, Unkeyable>(Artifact::new(input.into_canonical()?.bytes().clone())))
    ///     .await?;
    /// // key;dur=0.021, lookup;dur=0.010, queue;dur=…, compile;dur=…, memory;desc="miss";dur=0.001
    /// assert!(compiled.timing().starts_with("key;dur="));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn timing(&self) -> String {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let steps = self.times.steps();
        let mut entries: Vec<_> = steps
            .map(|(name, time)| format!("{name};dur={:.3}", millis(time)))
            .collect();
        for tier in 0..self.names.len() {
            let report = self.report(tier);
            if !matches!(report.outcome, TierOutcome::Skipped) {
                let label = self.names.label(tier);
                let (outcome, time) = (report.outcome.label(), millis(report.elapsed));
                entries.push(format!("{label};desc=\"{outcome}\";dur={time:.3}"));
            }
        }
        entries.join(", ")
    }
}

impl fmt::Display for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{key}: ")?,
            None => f.write_str("without a key: ")?,
        }
        match self.tier_name() {
            Some(name) => write!(f, "from {name}")?,
            None => write!(f, "{}", self.source)?,
        }
        write!(f, ", {} bytes", self.artifact.len())?;
        for (step, time) in self.times.steps() {
            write!(f, ", {step} {time:.1?}")?;
        }
        for tier in self.tiers() {
            if !matches!(tier.outcome, TierOutcome::Skipped) {
                write!(
                    f,
                    "; {} {} in {:.1?}",
                    tier.name, tier.outcome, tier.elapsed
                )?;
            }
        }
        Ok(())
    }
}
