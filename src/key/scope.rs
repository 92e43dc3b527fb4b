//! What is not the program but changes the artifact.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use super::WireWriter;

/// The context of the hash of a scope; part of the key format.
const CONTEXT: &str = "pipeline-cache 2026-11 compile scope v1";

/// Everything beside the program that shapes what a compiler makes of it.
///
/// If an option is missing here, changing it serves a stale artifact. So name all of them: the build
/// of the compiler (not its version alone, if builds differ), the target, every
/// option with its effective value, and each environment variable the compiler reads. There is no
/// default scope.
///
/// Options and variables are told apart by name and compared by value; the order in which they
/// are named does not matter. Where order matters, as on a command line, use
/// [`arguments`](Self::arguments).
///
/// ```
/// use pipeline_cache::CompileScope;
///
/// # fn main() -> Result<(), pipeline_cache::key::CompileScopeError> {
/// let scope = CompileScope::new("rustc 1.95.0 (59807616e)", "x86_64-unknown-linux-gnu")?
///     .option("opt-level", "3")
///     .option("debuginfo", "0")
///     .arguments(["-C", "link-arg=-s"])
///     .environment("SOURCE_DATE_EPOCH", std::env::var("SOURCE_DATE_EPOCH").ok());
/// assert_eq!(scope.target(), "x86_64-unknown-linux-gnu");
/// # Ok(())
/// # }
/// ```
///
/// A compiler that is a library in this program has the version that Cargo resolved, which may be
/// later than the one in Cargo.toml. [`locked_crates!`](crate::locked_crates) takes it from
/// Cargo.lock, and the features from the manifest:
///
/// ```
/// use pipeline_cache::{CompileScope, LockedCrates, locked_crates};
///
/// const COMPILER: LockedCrates = locked_crates!(
///     concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"),
///     [concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")],
///     ["naga"]
/// );
/// let scope = CompileScope::new(COMPILER.to_string(), "spirv-1.3")?;
/// # assert!(scope.compiler().contains("default-features = false"));
/// # Ok::<(), pipeline_cache::key::CompileScopeError>(())
/// ```
///
/// # What a host refuses
///
/// What the host allows belongs in the scope, too: SIMD, threads, a limit, a policy. A hit skips the
/// compile function, and with it each check that is made there. If two hosts share a scope, the strict
/// one is served what the permissive one compiled, although it would have refused the program. So name
/// each rule whose answer can differ, with its effective value, also where a program does not use the
/// feature:
///
/// ```
/// use pipeline_cache::{
///     Artifact, CompileScope, InMemoryPipelineCache, OpaqueProgram, PipelineCacheStore as _,
///     PipelineFingerprint,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scope = |simd: bool, threads: bool| {
///     let scope = CompileScope::new("wasm-compiler 4f2a91c", "x86_64-unknown-linux-gnu")?;
///     Ok::<_, pipeline_cache::key::CompileScopeError>(
///         scope
///             .option("host: simd", simd.to_string())
///             .option("host: threads", threads.to_string()),
///     )
/// };
/// let module = PipelineFingerprint::of(&OpaqueProgram::new("wasm", "(module ..)"))?;
/// let permissive = module.scoped(&scope(true, true)?);
/// let strict = module.scoped(&scope(false, true)?);
///
/// let cache = InMemoryPipelineCache::new();
/// cache.put(&permissive, Artifact::new("code that uses SIMD")).await?;
/// // So the strict host compiles, and refuses the program.
/// assert_eq!(cache.get(&strict).await?, None);
/// # Ok(())
/// # }
/// ```
///
/// A clone is cheap. A scope is hashed once, for all keys that are made with it and its clones: build
/// it once and keep it.
#[derive(Clone)]
pub struct CompileScope(Arc<Hashed>);

/// The fields, and their hash as soon as a key needs it.
#[derive(Clone)]
struct Hashed {
    fields: Fields,
    digest: OnceLock<[u8; 32]>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Fields {
    compiler: String,
    target: String,
    options: BTreeMap<String, String>,
    arguments: Vec<String>,
    environment: BTreeMap<String, Option<String>>,
}

impl CompileScope {
    /// The scope of a compiler build and a target, with no options.
    ///
    /// `compiler` must change whenever the compiler's output may change: pass a build id, a commit, or
    /// the hash of its executable. A version number is enough only for compilers that are released
    /// and never patched in place. A compiler whose output is the same for every target still
    /// names one, such as `"any"`.
    ///
    /// # Errors
    ///
    /// [`CompileScopeError`] when the compiler or the target is empty or blank: such a scope would
    /// let artifacts of different compilers share a key.
    ///
    /// ```
    /// use pipeline_cache::key::CompileScopeError;
    /// use pipeline_cache::CompileScope;
    ///
    /// assert_eq!(CompileScope::new("", "x86_64"), Err(CompileScopeError::NoCompiler));
    /// assert_eq!(CompileScope::new("rustc 1.95.0", " "), Err(CompileScopeError::NoTarget));
    /// ```
    pub fn new(
        compiler: impl Into<String>,
        target: impl Into<String>,
    ) -> Result<Self, CompileScopeError> {
        let (compiler, target) = (compiler.into(), target.into());
        if compiler.trim().is_empty() {
            return Err(CompileScopeError::NoCompiler);
        }
        if target.trim().is_empty() {
            return Err(CompileScopeError::NoTarget);
        }
        Ok(Self(Arc::new(Hashed {
            fields: Fields {
                compiler,
                target,
                options: BTreeMap::new(),
                arguments: Vec::new(),
                environment: BTreeMap::new(),
            },
            digest: OnceLock::new(),
        })))
    }

    /// The fields, for a change of them.
    fn change(&mut self) -> &mut Fields {
        let Hashed { fields, digest } = Arc::make_mut(&mut self.0);
        digest.take();
        fields
    }

    /// Sets a named option. The last value set for a name is the one that counts.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change().options.insert(name.into(), value.into());
        self
    }

    /// Adds arguments whose order matters, after those already there.
    #[must_use]
    pub fn arguments<I>(mut self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let added = arguments.into_iter().map(Into::into);
        self.change().arguments.extend(added);
        self
    }

    /// Sets an environment variable that the compiler reads; `None` where it is not set, which
    /// is another scope than an empty value.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: Option<String>) -> Self {
        self.change().environment.insert(name.into(), value);
        self
    }

    /// The compiler's build.
    #[must_use]
    pub fn compiler(&self) -> &str {
        &self.0.fields.compiler
    }

    /// What is compiled for.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.0.fields.target
    }

    /// The hash of the scope on the wire.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        self.0.digest.get_or_init(|| {
            let hasher = blake3::Hasher::new_derive_key(CONTEXT);
            let mut wire = WireWriter::hashing_with(hasher);
            self.write(&mut wire);
            wire.into_digest()
        })
    }

    /// The scope on the wire. A new field is written always, never only when it is set.
    pub(crate) fn write(&self, wire: &mut WireWriter) {
        let Fields {
            compiler,
            target,
            options,
            arguments,
            environment,
        } = &self.0.fields;
        wire.part("scope: compiler", |wire| wire.str(compiler));
        wire.part("scope: target", |wire| wire.str(target));
        let options: Vec<_> = options.iter().collect();
        wire.seq(&options, |wire, (name, value)| {
            wire.part(format_args!("scope: option {name}"), |wire| {
                wire.str(name);
                wire.str(value);
            });
        });
        wire.part("scope: arguments", |wire| {
            wire.seq(arguments, |wire, argument| wire.str(argument));
        });
        let environment: Vec<_> = environment.iter().collect();
        wire.seq(&environment, |wire, (name, value)| {
            wire.part(format_args!("scope: environment {name}"), |wire| {
                wire.str(name);
                wire.option(value.as_deref(), WireWriter::str);
            });
        });
    }
}

impl PartialEq for CompileScope {
    fn eq(&self, other: &Self) -> bool {
        self.0.fields == other.0.fields
    }
}

impl Eq for CompileScope {}

impl Hash for CompileScope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.fields.hash(state);
    }
}

impl fmt::Debug for CompileScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fields {
            compiler,
            target,
            options,
            arguments,
            environment,
        } = &self.0.fields;
        f.debug_struct("CompileScope")
            .field("compiler", compiler)
            .field("target", target)
            .field("options", options)
            .field("arguments", arguments)
            .field("environment", environment)
            .finish()
    }
}

/// Why a [`CompileScope`] is invalid.
///
/// See [`CompileScope::new`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileScopeError {
    /// The compiler is empty or blank.
    #[error("the compile scope names no compiler: pass its build id, commit or exact version")]
    NoCompiler,
    /// The target is empty or blank.
    #[error("the compile scope names no target: pass the platform or language it compiles to")]
    NoTarget,
}
