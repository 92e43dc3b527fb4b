//! A language, and compiles that are held at a gate.

use bytes::Bytes;
use pipeline_cache::layered::CompileContext;
use pipeline_cache::{
    Artifact, CompileError, CompileInput, CompileScope, Compiled, InMemoryPipelineCache,
    LayeredPipelineCache, PipelineFingerprint, Program, ToWire, Unkeyable, WireWriter,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const FRONT_END: &str = "words 1";

pub(crate) fn key(number: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([number; 32])
}

pub(crate) fn scope() -> CompileScope {
    CompileScope::new("cc 1", "x86_64").unwrap()
}

pub(crate) fn memory() -> LayeredPipelineCache {
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .compile_places(1)
        .build()
}

/// A language of words, in which white space and the order of words mean nothing. A program that says
/// "secret" has no key, and one that says "crash" cannot be canonicalized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

impl Program for Words {
    const DOMAIN: &'static str = "test/request-words";
    const SCHEMA: u32 = 1;
    type Canonical = Self;

    fn canonicalize(&self) -> Result<Self, Unkeyable> {
        assert!(
            !self.0.iter().any(|word| word == "crash"),
            "no canonical form"
        );
        if self.0.iter().any(|word| word == "secret") {
            return Err(Unkeyable::new("it is secret"));
        }
        let mut words = self.0.clone();
        words.sort();
        Ok(Self(words))
    }
}

impl ToWire for Words {
    type Program = Self;

    fn write_body(&self, wire: &mut WireWriter) {
        wire.seq(&self.0, |wire, word| wire.str(word));
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SyntaxError(pub(crate) String);

impl From<Unkeyable> for SyntaxError {
    fn from(reason: Unkeyable) -> Self {
        Self(reason.to_string())
    }
}

/// Counts what is parsed and what is compiled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Front {
    parses: Arc<AtomicUsize>,
    compiles: Arc<AtomicUsize>,
}

impl Front {
    pub(crate) fn parses(&self) -> usize {
        self.parses.load(Ordering::SeqCst)
    }

    pub(crate) fn compiles(&self) -> usize {
        self.compiles.load(Ordering::SeqCst)
    }

    pub(crate) fn parse(
        &self,
    ) -> impl Fn(&Bytes) -> Result<Words, SyntaxError> + Send + Sync + 'static + use<> {
        let parses = Arc::clone(&self.parses);
        move |source| {
            parses.fetch_add(1, Ordering::SeqCst);
            let text = std::str::from_utf8(source).unwrap();
            match text.contains("error") {
                true => Err(SyntaxError(text.to_owned())),
                false => Ok(Words(text.split_whitespace().map(Into::into).collect())),
            }
        }
    }

    pub(crate) fn compile(
        &self,
    ) -> impl FnOnce(CompileInput<Words>, &CompileContext) -> Result<Artifact, SyntaxError>
    + Send
    + 'static
    + use<> {
        let compiles = Arc::clone(&self.compiles);
        move |input, cx| {
            compiles.fetch_add(1, Ordering::SeqCst);
            let words = match input {
                CompileInput::Canonical(words)
                | CompileInput::Unkeyable(words, _)
                | CompileInput::PassedBy(words) => words,
            };
            match words.0.iter().any(|word| word == "unsupported") {
                true => Err(SyntaxError("unsupported".to_owned())),
                false => Ok(Artifact::new(format!(
                    "{} for {}",
                    words.0.join(" "),
                    cx.scope().target()
                ))),
            }
        }
    }
}

/// A gate that threads wait at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    arrived: usize,
    passes: usize,
}

impl Gate {
    /// Waits at the gate, on a thread.
    pub(crate) fn wait(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.arrived += 1;
        changed.notify_all();
        let mut state = changed
            .wait_while(state, |state| state.passes == 0)
            .unwrap();
        state.passes -= 1;
    }

    pub(crate) fn open(&self, passes: usize) {
        let (state, changed) = &*self.0;
        state.lock().unwrap().passes += passes;
        changed.notify_all();
    }

    pub(crate) fn arrived(&self) -> usize {
        self.0.0.lock().unwrap().arrived
    }

    /// Waits until so many have come.
    pub(crate) async fn until_arrived(&self, count: usize) {
        until(|| self.arrived() >= count).await;
    }
}

/// Polls a future that must not end, while others get their turns.
pub(crate) async fn stays_pending(mut future: impl Future + Unpin) {
    for _ in 0..100 {
        assert!(futures::poll!(&mut future).is_pending());
        tokio::task::yield_now().await;
    }
}

/// Waits for what a thread does.
pub(crate) async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Asks for what the source spells, by the front end's parse and compile.
pub(crate) async fn request(
    cache: &LayeredPipelineCache,
    front: &Front,
    scope: &CompileScope,
    source: &str,
) -> Result<Compiled, CompileError<SyntaxError>> {
    cache
        .compile(scope)
        .source(FRONT_END, source.to_owned(), front.parse())
        .run(front.compile())
        .await
}
