//! A storm of clients: a hundred programs in four spellings each, asked for by many at once, some of
//! them far more often than others.

use super::support::{FRONT_END, Front, Gate, MS, SyntaxError, Words, memory, request, scope};
use bytes::Bytes;
use pipeline_cache::layered::CompileContext;
use pipeline_cache::{
    Artifact, CompileInput, CompileSource, Compiled, InMemoryPipelineCache, LayeredPipelineCache,
    Program,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PROGRAMS: usize = 100;
const SPELLINGS: usize = 4;

/// How long the answers took that needed no compile, in order.
#[derive(Debug, Default)]
struct Hits {
    /// By a spelling that was known. These wait for nobody.
    known: Vec<Duration>,
    /// By a spelling that was not: it was parsed first, by this caller or by one that it joined, and
    /// its program was in the cache already. The parse waits for its place behind other parses.
    parsed: Vec<Duration>,
}

impl Hits {
    fn count(&mut self, compiled: &Compiled, took: Duration) {
        match compiled.source {
            CompileSource::Cache(_) if compiled.times.parse.is_zero() => self.known.push(took),
            CompileSource::Cache(_) => self.parsed.push(took),
            _ => {}
        }
    }
}

/// `spell` makes one spelling of a program.
async fn storm<P, F, C, E>(
    (clients, requests): (usize, usize),
    spell: impl Fn(usize, usize) -> String,
    parse: F,
    compile: C,
) -> Hits
where
    P: Program + Send + 'static,
    P::Canonical: Send + 'static,
    F: Fn(&Bytes) -> Result<P, E> + Clone + Send + Sync + 'static,
    C: Fn(CompileInput<P>, &CompileContext) -> Result<Artifact, E> + Clone + Send + Sync + 'static,
    E: fmt::Debug + Send + Sync + 'static,
{
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .compile_places(1)
        .build();
    let (scope, parses) = (Arc::new(scope()), Arc::new(AtomicUsize::new(0)));
    let sources: Vec<Bytes> = (0..PROGRAMS * SPELLINGS)
        .map(|number| spell(number / SPELLINGS, number % SPELLINGS).into())
        .collect();
    let sources = Arc::new(sources);
    let clients = (0..clients).map(|client| {
        let (cache, scope, sources) = (cache.clone(), Arc::clone(&scope), Arc::clone(&sources));
        let (parse, compile) = (parse.clone(), compile.clone());
        let parses = Arc::clone(&parses);
        let parse = move |source: &Bytes| {
            parses.fetch_add(1, Ordering::SeqCst);
            parse(source)
        };
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(client as u64);
            let mut hits = Hits::default();
            for _ in 0..requests {
                // The weight of a program is about one over its number.
                let program = (PROGRAMS as f64).powf(random.f64()) as usize;
                let program = program.min(PROGRAMS) - 1;
                let source = &sources[program * SPELLINGS + random.usize(..SPELLINGS)];
                let start = Instant::now();
                let request = cache.compile(&scope);
                let request = request.source(FRONT_END, source.clone(), parse.clone());
                let compiled = request.run(compile.clone()).await.unwrap();
                hits.count(&compiled, start.elapsed());
            }
            hits
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut hits = Hits::default();
    for client in clients {
        let of_client = client.await.unwrap();
        hits.known.extend(of_client.known);
        hits.parsed.extend(of_client.parsed);
    }
    hits.known.sort();
    hits.parsed.sort();
    let metrics = cache.layered_metrics();
    assert!(metrics.compiles <= PROGRAMS as u64, "one for each program");
    let parses = parses.load(Ordering::SeqCst);
    assert!(parses <= PROGRAMS * SPELLINGS, "one for each spelling");
    assert_eq!(metrics.aliases.misses, parses as u64);
    hits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_clients_parses_each_spelling_and_compiles_each_program_once() {
    let front = Front::default();
    let spell = |program, spelling| format!("program{}{program}", " ".repeat(1 + spelling));
    let parse = Arc::new(front.parse());
    let parse = move |source: &Bytes| parse(source);
    let compile = move |input: CompileInput<Words>, cx: &CompileContext| front.compile()(input, cx);
    let hits = storm((256, 20), spell, parse, compile).await;
    assert!(!hits.known.is_empty());
}

/// Every place of the pool is held, for keys as well as for compiles.
#[tokio::test]
async fn a_known_spelling_waits_for_no_place() {
    let (cache, scope, front) = (memory(), scope(), Front::default());
    request(&cache, &front, &scope, "a").await.unwrap();
    cache.flush().await.unwrap();
    let gate = Gate::default();
    let parsed = |source: &'static str| {
        let gate = gate.clone();
        let parse = move |_: &Bytes| {
            gate.wait();
            Ok::<_, SyntaxError>(Words(Vec::new()))
        };
        let request = cache.compile(&scope).source(FRONT_END, source, parse);
        Box::pin(request.run(front.compile()))
    };
    let at = gate.clone();
    let compile = move |_, _: &_| {
        at.wait();
        Ok::<_, SyntaxError>(Artifact::new("code"))
    };
    let compiled = cache.compile(&scope).program(Words(vec!["b".to_owned()]));
    let mut held: Vec<std::pin::Pin<Box<dyn Future<Output = _> + Send>>> = vec![
        parsed("one"),
        parsed("two"),
        Box::pin(compiled.run(compile)),
    ];
    // The program of the compile needs a place for its key first.
    for (last, number) in [(2, 1), (0, 2), (1, 3)] {
        while gate.arrived() < number {
            assert!(futures::poll!(&mut held[last]).is_pending());
            tokio::task::yield_now().await;
        }
    }
    let mut waiting = parsed("three");
    for _ in 0..10 {
        assert!(futures::poll!(&mut waiting).is_pending());
        tokio::task::yield_now().await;
    }
    let known = tokio::time::timeout(
        Duration::from_secs(20),
        request(&cache, &front, &scope, "a"),
    );
    let known = known.await.expect("it waits for no place").unwrap();
    assert!(matches!(known.source, CompileSource::Cache(_)));
    assert!(known.times.queue.is_zero() && known.times.parse.is_zero());
    gate.open(4);
    for held in held {
        held.await.unwrap();
    }
    // Its answer says that it waited, and was parsed.
    let parsed = waiting.await.unwrap();
    assert!(!parsed.times.queue.is_zero() && !parsed.times.parse.is_zero());
}

/// The one place for compiles is held. A new spelling is parsed beside it, and is a hit.
#[tokio::test]
async fn a_new_spelling_of_a_stored_program_waits_for_no_compile() {
    let (cache, scope, front) = (memory(), scope(), Front::default());
    request(&cache, &front, &scope, "a").await.unwrap();
    cache.flush().await.unwrap();
    let gate = Gate::default();
    let at = gate.clone();
    let compiled = cache.compile(&scope).source(FRONT_END, "b", front.parse());
    let mut held = Box::pin(compiled.run(move |_, _: &_| {
        at.wait();
        Ok::<_, SyntaxError>(Artifact::new("code"))
    }));
    while gate.arrived() == 0 {
        assert!(futures::poll!(&mut held).is_pending());
        tokio::task::yield_now().await;
    }
    let respelled = tokio::time::timeout(
        Duration::from_secs(20),
        request(&cache, &front, &scope, " a "),
    );
    let respelled = respelled.await.expect("it waits for no compile").unwrap();
    assert!(matches!(respelled.source, CompileSource::Cache(_)));
    assert_eq!(front.parses(), 3);
    gate.open(1);
    held.await.unwrap();
}

/// Measures, with shaders that take about a millisecond to parse and key. Run it alone, in a release
/// build, on a machine that does nothing else and has two cores:
/// `cargo test --release --all-features --test layered storm -- --ignored --nocapture`.
///
/// The goal is for hits by known spellings. Those that are parsed first wait behind up to 400 parses,
/// which take as long as they take.
#[cfg(feature = "naga")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn hits_by_known_spellings_in_a_cold_storm_take_under_20_ms() {
    use naga::Module;

    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn shader(program: usize, spelling: usize) -> String {
        let shaders = &vello_shaders::SHADERS;
        let of_vello = [
            &shaders.binning.wgsl.code,
            &shaders.coarse.wgsl.code,
            &shaders.draw_leaf.wgsl.code,
            &shaders.flatten.wgsl.code,
            &shaders.path_tiling.wgsl.code,
            &shaders.tile_alloc.wgsl.code,
        ];
        let code = &of_vello[program % of_vello.len()];
        let spaces = " ".repeat(1 + spelling);
        format!("{code}\n@compute @workgroup_size(1) fn{spaces}extra_{program}() {{}}\n")
    }

    let parse = |source: &Bytes| -> Result<Module, Error> {
        Ok(naga::front::wgsl::parse_str(std::str::from_utf8(source)?)?)
    };
    let compile = |input: CompileInput<Module>, _: &CompileContext| {
        let canonical = input.into_canonical()?;
        let options = naga::back::spv::Options::default();
        let (module, info) = (canonical.module(), canonical.info()?);
        let words = naga::back::spv::write_vec(module, info, &options, None)?;
        let bytes: Vec<_> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        Ok::<_, Error>(Artifact::new(bytes))
    };
    let start = Instant::now();
    let Hits { known, parsed } = storm((256, 400), shader, parse, compile).await;
    println!("the storm took {:?}", start.elapsed());
    for (what, hits) in [("known spelling", &known), ("parsed first", &parsed)] {
        let quantile = |thousandths| hits[(hits.len() - 1) * thousandths / 1000];
        println!(
            "{what}: {} hits, median {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
            hits.len(),
            quantile(500),
            quantile(990),
            quantile(999),
            quantile(1000),
        );
    }
    let p99 = known[(known.len() - 1) * 99 / 100];
    assert!(p99 < 20 * MS, "{p99:?}");
}
