//! Known spellings: from the hash of a source to the fingerprint of the program it spells.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::key::{Program, Unkeyable, WIRE_VERSION, WireWriter};
use crate::store::PipelineCacheStore;
use crate::sync::blocking;

/// The context of the hash of a source; part of the format of kept aliases.
const CONTEXT: &str = "pipeline-cache 2026-11 alias of a source v1";

/// A bounded table of sources whose fingerprint is known, so that a source seen before costs one
/// hash instead of a parse and a canonical form.
///
/// A source is known by BLAKE3 over its bytes, the build of the front end that reads it, and the
/// domain and schema of the program. Any other spelling, even by a space, is another source: it is
/// parsed and canonicalized once, and then finds the same artifacts. Sources that fail to parse or
/// have no key are not remembered.
///
/// `front_end` must name all that decides what a source means: the parser's build and every option
/// it reads the source with (includes, defines, the language's version). Two front ends that share
/// a name share aliases.
///
/// The fingerprint is the bare one; scope it as any other. Compile the canonical form, as
/// [`get_or_compile`] does by itself: what the key leaves out, such as names, must not get into an
/// artifact that others share.
///
/// [`get_or_compile`]: crate::LayeredPipelineCache::get_or_compile
///
/// ```
/// use pipeline_cache::{
///     Artifact, CompileScope, InMemoryPipelineCache, LayeredPipelineCache, OpaqueProgram,
///     Program as _, SourceAliases, Unkeyable,
/// };
/// # use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
/// let aliases = SourceAliases::new();
/// let source = bytes::Bytes::from_static(b"a + b");
/// let parse = |source: &bytes::Bytes| Ok::<_, Unkeyable>(OpaqueProgram::new("ast", source.clone()));
///
/// let program = aliases.fingerprint("parser 1.0", &source, parse).await?;
/// let again = aliases.peek::<OpaqueProgram>("parser 1.0", &source);
/// assert_eq!(again, Some(program));
///
/// // Parsed only where there is something to compile.
/// let key = program.scoped(&CompileScope::new("compiler 1.0", "x86_64")?);
/// let compiled = cache
///     .get_or_insert_with(&key, async move || {
///         let canonical = parse(&source)?.canonicalize()?;
///         Ok::<_, Unkeyable>(Artifact::new(canonical.bytes().to_ascii_uppercase()))
///     })
///     .await?;
/// assert_eq!(&compiled.artifact.payload()[..], b"A + B");
/// # Ok(())
/// # }
/// ```
pub struct SourceAliases {
    known: moka::sync::Cache<PipelineFingerprint, PipelineFingerprint>,
    store: Option<Arc<dyn PipelineCacheStore>>,
}

impl SourceAliases {
    /// The number of sources in a table made by [`new`](Self::new): some 4 MiB of memory.
    pub const DEFAULT_CAPACITY: u64 = 16_384;

    /// An empty table for [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) sources.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// An empty table for at most `sources` sources; frequently used ones stay.
    #[must_use]
    pub fn with_capacity(sources: u64) -> Self {
        Self {
            known: moka::sync::Cache::new(sources),
            store: None,
        }
    }

    /// Keeps aliases in `store` too, each as an artifact of 32 bytes under a key of its own, so
    /// that the next process or machine knows them.
    ///
    /// A writer of the store decides what a source compiles to: use a store that you would also take
    /// binaries from. An alias is written before
    /// [`fingerprint`](Self::fingerprint) returns; a
    /// [`LayeredPipelineCache`](crate::LayeredPipelineCache) that writes
    /// [behind](crate::WritePolicy::Behind) takes that wait away. Where the store fails, the source is
    /// parsed. A store that hangs is waited for, so give it deadlines.
    #[must_use]
    pub fn kept_in(mut self, store: impl PipelineCacheStore + 'static) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// The fingerprint of a source that the table knows. Hashes the source on the calling thread,
    /// which takes a millisecond for a few megabytes, and does not look into the store.
    #[must_use]
    pub fn peek<P: Program>(&self, front_end: &str, source: &[u8]) -> Option<PipelineFingerprint> {
        self.known.get(&alias_key::<P>(front_end, source))
    }

    /// The fingerprint of the program that `source` spells: from the table, from the store, or by
    /// `parse` and [`PipelineFingerprint::of`] on the blocking pool. All three give the same answer.
    ///
    /// Concurrent callers with one new source may each parse it.
    ///
    /// # Errors
    ///
    /// What `parse` fails with, or the [`Unkeyable`] of the canonical form.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing but whether the alias is remembered. A `parse` that has
    /// begun runs to its end.
    ///
    /// # Panics
    ///
    /// Where `parse` does, and outside of a tokio runtime.
    pub async fn fingerprint<P, E>(
        &self,
        front_end: &str,
        source: &Bytes,
        parse: impl FnOnce(&Bytes) -> Result<P, E> + Send + 'static,
    ) -> Result<PipelineFingerprint, E>
    where
        P: Program,
        E: From<Unkeyable> + Send + 'static,
    {
        let key = {
            let (front_end, source) = (front_end.to_owned(), source.clone());
            blocking::run(source.len(), move || alias_key::<P>(&front_end, &source)).await
        };
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        if let Some(kept) = self.kept(&key).await {
            self.known.insert(key, kept);
            return Ok(kept);
        }
        let source = source.clone();
        let fingerprint = blocking::blocking(move || {
            let program = parse(&source)?;
            Ok::<_, E>(PipelineFingerprint::of(&program)?)
        })
        .await?;
        self.known.insert(key, fingerprint);
        self.keep(&key, fingerprint).await;
        Ok(fingerprint)
    }

    /// The alias in the store. A payload that is not a whole fingerprint is ignored.
    async fn kept(&self, key: &PipelineFingerprint) -> Option<PipelineFingerprint> {
        let artifact = match self.store.as_ref()?.get(key).await {
            Ok(artifact) => artifact?,
            Err(error) => {
                tracing::debug!(%key, error = %format_args!("{error:#}"), "cannot read a source alias from its store; the source is parsed instead");
                return None;
            }
        };
        let fingerprint = artifact.payload()[..].try_into().ok();
        if fingerprint.is_none() {
            tracing::warn!(%key, bytes = artifact.len(), "ignored a source alias whose payload is not a fingerprint of 32 bytes");
        }
        fingerprint.map(PipelineFingerprint::from_bytes)
    }

    async fn keep(&self, key: &PipelineFingerprint, fingerprint: PipelineFingerprint) {
        let Some(store) = &self.store else { return };
        let alias = Artifact::new(fingerprint.as_bytes().to_vec());
        if let Err(error) = store.put(key, alias).await {
            tracing::debug!(%key, error = %format_args!("{error:#}"), "cannot write a source alias to its store; the next process parses the source");
        }
    }
}

impl Default for SourceAliases {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SourceAliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceAliases")
            .field("sources", &self.known.entry_count())
            .field("store", &self.store)
            .finish()
    }
}

/// The key of an alias: the source, and all that decides what fingerprint it has.
fn alias_key<P: Program>(front_end: &str, source: &[u8]) -> PipelineFingerprint {
    let mut wire = WireWriter::hashing_with(blake3::Hasher::new_derive_key(CONTEXT));
    wire.u16(WIRE_VERSION);
    wire.str(P::DOMAIN);
    wire.u32(P::SCHEMA);
    wire.str(front_end);
    wire.bytes(source);
    PipelineFingerprint::from_bytes(wire.into_digest())
}
