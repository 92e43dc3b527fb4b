//! A caller may go at every await: whatever it was waiting for, nothing is stuck after it.

use super::support::{FRONT_END, Front, Gate, SyntaxError, Words, key, scope, until};
use bytes::Bytes;
use pipeline_cache::layered::{Abandoned, CompileContext};
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, CompileError, Compiled, LayeredPipelineCache, SourceAliases, StoreOperation,
};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

type Answer = Result<Compiled, CompileError<SyntaxError>>;
type Request<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// More than a request is polled from its start to its answer.
const MAX_POLLS: usize = 64;

/// What is compiled.
#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Source,
    Program,
    Key,
}

/// Where the request is held up until its caller has gone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum HeldUp {
    Nowhere,
    /// In the store of aliases.
    Alias,
    /// In the queue for a place for keys.
    KeyQueue,
    /// In the parse function.
    Parse,
    /// In a tier.
    Search,
    /// In the queue for a place for compiles.
    CompileQueue,
    /// In the compile function.
    Compile,
}

/// A cache with one place for compiles and two for keys, and what can hold a request up in it.
struct Site {
    cache: LayeredPipelineCache,
    tier: Arc<FaultyStore>,
    aliases: Arc<FaultyStore>,
    front: Front,
    /// Of the requests that hold places.
    places: Gate,
    /// Of the parse function.
    parse: Gate,
    /// Of the compile function.
    compile: Gate,
}

impl Site {
    fn new(held_up: HeldUp) -> Self {
        let tier = Arc::new(FaultyStore::new("tier"));
        let aliases = Arc::new(FaultyStore::new("aliases"));
        match held_up {
            HeldUp::Alias => aliases.set(StoreOperation::Get, Fault::Gate),
            HeldUp::Search => tier.set(StoreOperation::Get, Fault::Gate),
            _ => {}
        }
        let cache = LayeredPipelineCache::builder()
            .tier(Arc::clone(&tier))
            .source_aliases(SourceAliases::new().kept_in(Arc::clone(&aliases)))
            .compile_places(1)
            .build();
        let site = Self {
            cache,
            tier,
            aliases,
            front: Front::default(),
            places: Gate::default(),
            parse: Gate::default(),
            compile: Gate::default(),
        };
        if held_up != HeldUp::Parse {
            site.parse.open(MAX_POLLS);
        }
        if held_up != HeldUp::Compile {
            site.compile.open(MAX_POLLS);
        }
        site
    }

    fn request(&self, from: From, abandoned: Abandoned) -> Request<'static> {
        let (cache, front) = (self.cache.clone(), self.front.clone());
        let (parse, compile) = (self.parse.clone(), self.compile.clone());
        Box::pin(async move {
            let scope = scope();
            let request = cache.compile(&scope).when_abandoned(abandoned);
            let made = front.compile();
            match from {
                From::Source => {
                    let front_end = front.parse();
                    let parse = move |source: &Bytes| {
                        parse.wait();
                        front_end(source)
                    };
                    let request = request.source(FRONT_END, "b a", parse);
                    let compile = move |input, cx: &CompileContext| {
                        compile.wait();
                        made(input, cx)
                    };
                    request.run(compile).await
                }
                From::Program => {
                    let words = ["b", "a"].map(str::to_owned).to_vec();
                    let compile = move |input, cx: &CompileContext| {
                        compile.wait();
                        made(input, cx)
                    };
                    request.program(Words(words)).run(compile).await
                }
                From::Key => {
                    let compile = move |(), cx: &CompileContext| {
                        compile.wait();
                        let words = ["a", "b"].map(str::to_owned).to_vec();
                        made(pipeline_cache::CompileInput::Canonical(Words(words)), cx)
                    };
                    request.key(key(1)).run(compile).await
                }
            }
        })
    }

    /// A request that holds a place for keys until the gate is opened.
    fn key_holder(&self, number: usize) -> Request<'static> {
        let (cache, gate) = (self.cache.clone(), self.places.clone());
        Box::pin(async move {
            let scope = scope();
            let parse = move |_: &Bytes| {
                gate.wait();
                Ok(Words(vec!["held".to_owned()]))
            };
            let request = cache.compile(&scope);
            let request = request.source(FRONT_END, format!("holder {number}"), parse);
            request.run(|_, _| Ok(Artifact::new("held"))).await
        })
    }

    /// A request that holds the place for compiles until the gate is opened.
    fn compile_holder(&self, number: u8) -> Request<'static> {
        let (cache, gate) = (self.cache.clone(), self.places.clone());
        Box::pin(async move {
            let scope = scope();
            let request = cache.compile(&scope).key(key(number));
            let compile = move |(), _: &CompileContext| {
                gate.wait();
                Ok(Artifact::new("held"))
            };
            request.run(compile).await
        })
    }

    /// Lets everything go on.
    fn open(&self) {
        self.tier.set(StoreOperation::Get, Fault::None);
        self.tier.open(StoreOperation::Get, MAX_POLLS);
        self.aliases.set(StoreOperation::Get, Fault::None);
        self.aliases.open(StoreOperation::Get, MAX_POLLS);
        self.parse.open(MAX_POLLS);
        self.compile.open(MAX_POLLS);
    }

    /// All places are free: as many as there are can be held at once, and nothing else is counted.
    async fn is_idle(&self, case: &str) {
        let idle = || {
            let metrics = self.cache.layered_metrics();
            metrics.running_compiles + metrics.queued_compiles + metrics.abandoned_compiles == 0
        };
        soon(until(idle), case).await;
        let arrived = self.places.arrived();
        let mut held = vec![
            tokio::spawn(self.key_holder(arrived + 1)),
            tokio::spawn(self.key_holder(arrived + 2)),
            tokio::spawn(self.compile_holder(201)),
        ];
        soon(self.places.until_arrived(arrived + 3), case).await;
        self.places.open(3);
        for held in held.drain(..) {
            held.await.unwrap().unwrap();
        }
    }
}

/// A hang is a failure.
async fn soon<T>(future: impl Future<Output = T>, case: &str) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(20), future).await;
    waited.unwrap_or_else(|_| panic!("stuck: {case}"))
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls a request so many times, each time once it was woken, as a runtime does. Returns whether it
/// was ready, or was not woken any more because it is held up.
async fn poll(request: &mut Request<'_>, polls: usize, held_up: HeldUp) -> bool {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    for _ in 0..polls {
        woken.0.store(false, Ordering::SeqCst);
        if request
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            return true;
        }
        let mut patience = match held_up {
            HeldUp::Nowhere => usize::MAX,
            _ => 30,
        };
        while !woken.0.load(Ordering::SeqCst) {
            if patience == 0 {
                return true;
            }
            patience -= 1;
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    false
}

async fn leaves_nothing_stuck(from: From, held_up: HeldUp) {
    for abandoned in [Abandoned::FinishAndKeep, Abandoned::Cancel] {
        for polls in 0.. {
            let case = format!("{from:?}, held up: {held_up:?}, {abandoned:?}, {polls} polls");
            assert!(polls < MAX_POLLS, "{case}");
            let site = Site::new(held_up);
            let holders = match held_up {
                HeldUp::KeyQueue => vec![site.key_holder(1), site.key_holder(2)],
                HeldUp::CompileQueue => vec![site.compile_holder(200)],
                _ => Vec::new(),
            };
            let places = holders.len();
            let holders: Vec<_> = holders.into_iter().map(tokio::spawn).collect();
            soon(site.places.until_arrived(places), &case).await;

            let mut gone = site.request(from, abandoned);
            let is_last = soon(poll(&mut gone, polls, held_up), &case).await;
            drop(gone);
            // Somebody else asks for the same while all that is still held up, and goes as well.
            let mut impatient = site.request(from, abandoned);
            soon(poll(&mut impatient, polls / 2, held_up), &case).await;
            drop(impatient);
            site.open();
            site.places.open(places);
            for holder in holders {
                soon(holder, &case).await.unwrap().unwrap();
            }
            let next = site.request(from, Abandoned::FinishAndKeep);
            let next = soon(next, &case).await.unwrap();
            assert_eq!(&next.artifact.payload()[..], b"a b for x86_64", "{case}");
            soon(site.cache.flush(), &case).await.unwrap();
            assert_eq!(site.front.compiles(), 1, "{case}");
            // Who goes while it is parsed leaves the alias and not what was parsed.
            assert!(site.front.parses() <= 2, "{case}");
            site.is_idle(&case).await;
            if is_last {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_caller_with_a_source_may_go_at_every_await() {
    for held_up in [
        HeldUp::Nowhere,
        HeldUp::Alias,
        HeldUp::KeyQueue,
        HeldUp::Parse,
        HeldUp::Search,
        HeldUp::CompileQueue,
        HeldUp::Compile,
    ] {
        leaves_nothing_stuck(From::Source, held_up).await;
    }
}

#[tokio::test]
async fn a_caller_with_a_program_may_go_at_every_await() {
    for held_up in [
        HeldUp::Nowhere,
        HeldUp::KeyQueue,
        HeldUp::Search,
        HeldUp::CompileQueue,
        HeldUp::Compile,
    ] {
        leaves_nothing_stuck(From::Program, held_up).await;
    }
}

#[tokio::test]
async fn a_caller_with_a_key_may_go_at_every_await() {
    for held_up in [
        HeldUp::Nowhere,
        HeldUp::Search,
        HeldUp::CompileQueue,
        HeldUp::Compile,
    ] {
        leaves_nothing_stuck(From::Key, held_up).await;
    }
}
