//! A spelling seen before costs one hash, and never another answer than the long way's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, OpaqueProgram, PipelineCacheStore as _,
    PipelineFingerprint, Program, SourceAliases, ToWire, Unkeyable, WireWriter,
};

/// A language of words, in which white space and the order of words mean nothing.
struct Words(Vec<String>);

impl Program for Words {
    const DOMAIN: &'static str = "test/words";
    const SCHEMA: u32 = 1;
    type Canonical = Self;

    fn canonicalize(&self) -> Result<Self, Unkeyable> {
        let mut words = self.0.clone();
        words.sort();
        match words.first() {
            Some(_) => Ok(Self(words)),
            None => Err(Unkeyable::new("no words")),
        }
    }
}

impl ToWire for Words {
    type Program = Self;

    fn write_body(&self, wire: &mut WireWriter) {
        wire.seq(&self.0, |wire, word| wire.str(word));
    }
}

/// The same language after a change of its rules.
struct NewWords(Words);

impl Program for NewWords {
    const DOMAIN: &'static str = Words::DOMAIN;
    const SCHEMA: u32 = 2;
    type Canonical = Self;

    fn canonicalize(&self) -> Result<Self, Unkeyable> {
        Ok(Self(self.0.canonicalize()?))
    }
}

impl ToWire for NewWords {
    type Program = Self;

    fn write_body(&self, wire: &mut WireWriter) {
        self.0.write_body(wire);
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Failure {
    Syntax,
    Unkeyable,
}

impl From<Unkeyable> for Failure {
    fn from(_: Unkeyable) -> Self {
        Self::Unkeyable
    }
}

fn parse(source: &Bytes) -> Result<Words, Failure> {
    let text = std::str::from_utf8(source).map_err(|_| Failure::Syntax)?;
    Ok(Words(text.split_whitespace().map(Into::into).collect()))
}

/// Counts how often the long way is gone.
#[derive(Clone, Default)]
struct Parser(Arc<AtomicU32>);

impl Parser {
    async fn key(
        &self,
        aliases: &SourceAliases,
        source: &Bytes,
    ) -> Result<PipelineFingerprint, Failure> {
        let count = Arc::clone(&self.0);
        aliases
            .fingerprint("words 1", source, move |source| {
                count.fetch_add(1, Relaxed);
                parse(source)
            })
            .await
            .map_err(|failure| (*failure).clone())
    }

    fn calls(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

fn long_way(source: &Bytes) -> Result<PipelineFingerprint, Failure> {
    Ok(PipelineFingerprint::of(&parse(source)?)?)
}

/// Sources of a few words, many of which mean the same, some of which mean nothing.
fn sources() -> Vec<Bytes> {
    let mut sources: Vec<Bytes> = vec!["".into(), " ".into(), vec![0xff].into()];
    for seed in 0..600_usize {
        let words = (0..1 + seed % 4).map(|at| ["a", "b", "c ", "ab"][(seed >> (2 * at)) % 4]);
        let text = words.collect::<Vec<_>>().join([" ", "  ", "\n"][seed % 3]);
        sources.push(text.into());
    }
    sources
}

#[tokio::test]
async fn every_answer_is_that_of_the_long_way() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(DiskCache::new(folder.path()).await.unwrap());
    // The second table has room for a few sources only, so that they come and go.
    for aliases in [
        SourceAliases::new(),
        SourceAliases::with_capacity(10),
        SourceAliases::new().kept_in(Arc::clone(&disk)),
        SourceAliases::new().kept_in(disk),
    ] {
        let parser = Parser::default();
        for _ in 0..2 {
            for source in sources() {
                let key = parser.key(&aliases, &source).await;
                assert_eq!(key, long_way(&source), "{source:?}");
                let known = aliases.peek::<Words>("words 1", &source);
                assert!(known.is_none() || known.map(Ok) == Some(key));
            }
        }
    }
}

#[tokio::test]
async fn a_known_spelling_is_not_parsed_again() {
    let aliases = SourceAliases::new();
    let parser = Parser::default();
    let source = Bytes::from("b a");
    assert_eq!(aliases.peek::<Words>("words 1", &source), None);
    let key = parser.key(&aliases, &source).await.unwrap();
    assert_eq!(parser.key(&aliases, &source).await, Ok(key));
    assert_eq!(parser.calls(), 1);
    assert_eq!(aliases.peek::<Words>("words 1", &source), Some(key));

    // Another spelling goes the long way once, to the same key.
    let other = Bytes::from("a  b");
    assert_eq!(parser.key(&aliases, &other).await, Ok(key));
    assert_eq!(parser.calls(), 2);
}

/// All that decides what a source means is part of what it is known by.
#[tokio::test]
async fn another_front_end_schema_or_program_is_not_known() {
    let aliases = SourceAliases::new();
    let source = Bytes::from("a");
    let key = Parser::default().key(&aliases, &source).await.unwrap();
    assert_eq!(aliases.peek::<Words>("words 1", &source), Some(key));
    assert_eq!(aliases.peek::<Words>("words 2", &source), None);
    assert_eq!(aliases.peek::<Words>("words 1", b"a\n"), None);
    assert_eq!(aliases.peek::<Words>("words 1a", b""), None);
    assert_eq!(aliases.peek::<NewWords>("words 1", &source), None);
    assert_eq!(aliases.peek::<OpaqueProgram>("words 1", &source), None);
}

#[tokio::test]
async fn failures_are_not_remembered() {
    let aliases = SourceAliases::new().kept_in(InMemoryPipelineCache::new());
    let parser = Parser::default();
    for calls in 1..3 {
        let syntax = parser.key(&aliases, &Bytes::from_static(&[0xff])).await;
        assert_eq!(syntax, Err(Failure::Syntax));
        let empty = parser.key(&aliases, &Bytes::from_static(b" ")).await;
        assert_eq!(empty, Err(Failure::Unkeyable));
        assert_eq!(parser.calls(), calls * 2);
    }
}

#[tokio::test]
async fn a_kept_alias_serves_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let source = Bytes::from("x y");
    let parser = Parser::default();
    for _ in 0..3 {
        let disk = DiskCache::new(folder.path()).await.unwrap();
        let aliases = SourceAliases::new().kept_in(disk);
        assert_eq!(parser.key(&aliases, &source).await, long_way(&source));
    }
    assert_eq!(parser.calls(), 1);
}

#[tokio::test]
async fn what_is_no_alias_is_passed_over_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let source = Bytes::from("x y");
    let parser = Parser::default();
    let open = async || DiskCache::new(folder.path()).await.unwrap();
    let aliases = SourceAliases::new().kept_in(open().await);
    parser.key(&aliases, &source).await.unwrap();

    // Damage on the disk.
    let aliases_folder = folder.path().join("aliases");
    let file = std::fs::read_dir(&aliases_folder).unwrap();
    let file = file
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|name| name == "bin"))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for _ in 0..2 {
        let aliases = SourceAliases::new().kept_in(open().await);
        assert_eq!(parser.key(&aliases, &source).await, long_way(&source));
    }
    assert_eq!(parser.calls(), 2, "parsed once for the damage, and healed");

    // A whole artifact that is no fingerprint.
    let key = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let disk = DiskCache::new(aliases_folder).await.unwrap();
    disk.remove(&key).await.unwrap();
    disk.put(
        &key,
        Artifact::new("thirty-one bytes, which is short"[..31].to_owned()),
    )
    .await
    .unwrap();
    let aliases = SourceAliases::new().kept_in(open().await);
    assert_eq!(parser.key(&aliases, &source).await, long_way(&source));
    assert_eq!(parser.calls(), 3);
}

#[tokio::test]
async fn the_table_is_bounded() {
    let aliases = SourceAliases::with_capacity(50);
    let parser = Parser::default();
    let sources: Vec<_> = (0..2_000).map(|n| Bytes::from(n.to_string())).collect();
    for source in &sources {
        parser.key(&aliases, source).await.unwrap();
    }
    // What is over the bound goes with the next maintenance, which every few calls bring.
    let count_known = || {
        let known = |source: &&Bytes| aliases.peek::<Words>("words 1", source).is_some();
        sources.iter().filter(known).count()
    };
    count_known();
    assert!(count_known() <= 50);
}

/// A source of any size is hashed where it stalls nobody, and known by all of its bytes.
#[tokio::test]
async fn a_large_source_is_known_by_every_byte() {
    let aliases = SourceAliases::new();
    let parser = Parser::default();
    let text = "word ".repeat(200_000);
    let key = parser
        .key(&aliases, &Bytes::from(text.clone()))
        .await
        .unwrap();
    for at in [0, text.len() / 2, text.len() - 2] {
        let mut other = text.clone();
        other.replace_range(at..=at, "X");
        let other = Bytes::from(other);
        let found = parser.key(&aliases, &other).await.unwrap();
        assert_ne!(found, key);
        assert_eq!(Ok(found), long_way(&other));
    }
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn a_store_that_fails_costs_nothing_but_the_long_way() {
    use pipeline_cache::StoreErrorKind;
    use pipeline_cache::testing::{Fault, FaultyStore};

    let source = Bytes::from("x y");
    for fault in [
        Fault::Error(StoreErrorKind::Io),
        Fault::Corrupt,
        Fault::None,
    ] {
        let store = FaultyStore::new("faulty");
        store.set_all(fault);
        let aliases = SourceAliases::new().kept_in(store);
        assert_eq!(
            Parser::default().key(&aliases, &source).await,
            long_way(&source)
        );
    }
}
