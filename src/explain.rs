//! Why a lookup missed: the parts of keys, stored beside artifacts and compared.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::key::{CompileScope, KeyPart, Program, ToWire, Unkeyable, WireWriter, write_program};
use crate::store::{PipelineCacheStore, StoreError};
use crate::sync::blocking;

/// The context of the keys under which parts are kept; part of their format.
const CONTEXT: &str = "pipeline-cache 2026-11 kept parts of a key v1";

/// The first line of parts as text.
const TITLE: &str = "pipeline-cache key parts 1";

/// A key and a digest of each part that it is made of: the schema, every field of the scope by
/// name, every function or section.
///
/// Taking a program apart costs about what its fingerprint costs. Parts that are
/// [kept](Self::keep) when an artifact is stored let a later miss be explained when the program
/// that was hit is long gone. As text ([`Display`](fmt::Display), [`FromStr`]) they have a line for
/// each part.
///
/// ```
/// use pipeline_cache::explain::{KeyParts, explain};
/// use pipeline_cache::{CompileScope, OpaqueProgram, PipelineFingerprint};
///
/// let program = OpaqueProgram::new("ast", "a + b");
/// let scope = CompileScope::new("compiler 1.0", "x86_64")?;
/// let scope = |level| scope.clone().option("opt-level", level);
///
/// let yesterday = KeyParts::of(&program)?.scoped(&scope("2"));
/// let today = KeyParts::of(&program)?.scoped(&scope("3"));
/// assert_eq!(today.key(), PipelineFingerprint::of(&program)?.scoped(&scope("3")));
///
/// let why: Vec<_> = explain(&yesterday, &today).iter().map(ToString::to_string).collect();
/// assert_eq!(why, ["scope: option opt-level differs"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyParts {
    key: PipelineFingerprint,
    parts: Vec<KeyPart>,
}

impl KeyParts {
    /// The parts of a bare fingerprint.
    ///
    /// # Errors
    ///
    /// [`Unkeyable`], as [`PipelineFingerprint::of`].
    pub fn of<P: Program + ?Sized>(program: &P) -> Result<Self, Unkeyable> {
        Ok(Self::of_canonical(&program.canonicalize()?))
    }

    fn of_canonical<C: ToWire>(canonical: &C) -> Self {
        let mut wire = WireWriter::recording_parts();
        write_program(canonical, &mut wire);
        let (digest, parts) = wire.into_parts();
        let key = PipelineFingerprint::from_bytes(digest);
        Self { key, parts }
    }

    /// The parts of [`PipelineFingerprint::scoped`]: these, and the fields of the scope.
    #[must_use]
    pub fn scoped(mut self, scope: &CompileScope) -> Self {
        let mut wire = WireWriter::recording_parts();
        wire.part("scope", |wire| scope.write(wire));
        self.parts.extend(wire.into_parts().1);
        self.key = self.key.scoped(scope);
        self
    }

    /// The key that these are the parts of.
    #[must_use]
    pub const fn key(&self) -> PipelineFingerprint {
        self.key
    }

    /// The parts, in the order in which they stand on the wire.
    #[must_use]
    pub fn parts(&self) -> &[KeyPart] {
        &self.parts
    }

    /// Keeps the parts in a store, beside the artifact of their key and under a key of their own.
    ///
    /// # Errors
    ///
    /// As [`PipelineCacheStore::put`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, where there are many parts.
    ///
    /// # Cancel safety
    ///
    /// As `put`.
    ///
    /// ```
    /// use pipeline_cache::explain::{KeyParts, explain};
    /// use pipeline_cache::{CompileScope, InMemoryPipelineCache, OpaqueProgram};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = InMemoryPipelineCache::new();
    /// # let scope = CompileScope::new("compiler 1.0", "x86_64")?;
    /// // Where the artifact is stored:
    /// let parts = KeyParts::of(&OpaqueProgram::new("ast", "a + b"))?.scoped(&scope);
    /// parts.keep(&store).await?;
    /// # let key = parts.key();
    ///
    /// // Where a key misses that should have been the same:
    /// let missed = KeyParts::of(&OpaqueProgram::new("ast", "a + c"))?.scoped(&scope);
    /// if let Some(kept) = KeyParts::kept(&store, &key).await? {
    ///     for difference in explain(&kept, &missed) {
    ///         println!("{difference}");
    ///     }
    ///     let bytes: u64 = kept.parts().iter().map(|part| part.bytes()).sum();
    ///     println!("the program and its scope have {bytes} bytes");
    /// }
    /// # assert_eq!(explain(&parts, &missed).len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn keep(&self, store: &(impl PipelineCacheStore + ?Sized)) -> Result<(), StoreError> {
        let (parts, lines) = (self.clone(), self.parts.len());
        // A line is about a hundred bytes.
        let artifact = blocking::run(lines * 100, move || Artifact::new(parts.to_string()));
        let parts = artifact.await;
        store.put(&kept_under(&self.key), parts).await
    }

    /// The parts that were kept of a key; `None` where there are none that can be read.
    ///
    /// # Errors
    ///
    /// As [`PipelineCacheStore::get`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn kept(
        store: &(impl PipelineCacheStore + ?Sized),
        key: &PipelineFingerprint,
    ) -> Result<Option<Self>, StoreError> {
        let Some(artifact) = store.get(&kept_under(key)).await? else {
            return Ok(None);
        };
        let read = blocking::run(artifact.len(), move || {
            std::str::from_utf8(artifact.payload()).ok()?.parse().ok()
        })
        .await;
        let read = read.filter(|parts: &Self| parts.key == *key);
        if read.is_none() {
            tracing::warn!(%key, "stored key parts ignored: malformed");
        }
        Ok(read)
    }
}

fn kept_under(key: &PipelineFingerprint) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(blake3::derive_key(CONTEXT, key.as_bytes()))
}

impl fmt::Display for KeyParts {
    /// The form that [`FromStr`] reads back: a title, the key, and for each part a line of its
    /// digest, its length in bytes and its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}\n{}", self.key)?;
        for KeyPart {
            name,
            bytes,
            digest,
        } in &self.parts
        {
            let digest = blake3::Hash::from_bytes(*digest).to_hex();
            writeln!(f, "{digest} {bytes} {name}")?;
        }
        Ok(())
    }
}

/// Malformed text of [`KeyParts`].
///
/// ```
/// use pipeline_cache::explain::KeyParts;
///
/// let error = "not the parts of a key".parse::<KeyParts>().unwrap_err();
/// println!("{error}");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid key parts: line {line} is malformed")]
pub struct ParseKeyPartsError {
    line: usize,
}

impl FromStr for KeyParts {
    type Err = ParseKeyPartsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut lines = text.lines();
        let fault = |line| ParseKeyPartsError { line };
        if lines.next() != Some(TITLE) {
            return Err(fault(1));
        }
        let key = lines.next().and_then(|line| line.parse().ok());
        let key = key.ok_or(fault(2))?;
        let parts = lines
            .enumerate()
            .map(|(at, line)| part(line).ok_or(fault(at + 3)))
            .collect::<Result<_, _>>()?;
        Ok(Self { key, parts })
    }
}

fn part(line: &str) -> Option<KeyPart> {
    let mut fields = line.splitn(3, ' ');
    let digest: PipelineFingerprint = fields.next()?.parse().ok()?;
    let bytes = fields.next()?.parse().ok()?;
    let name = fields.next()?.to_owned();
    // Escapes stand for these, and a terminal must not be led astray.
    if name.contains(char::is_control) {
        return None;
    }
    Some(KeyPart {
        name,
        bytes,
        digest: *digest.as_bytes(),
    })
}

/// One part in which two keys differ.
///
/// See [`KeyParts`] for an example.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyDifference {
    /// Both have the part, with other content.
    Changed {
        /// The name of the part.
        part: String,
    },
    /// The first alone has the part.
    OnlyInFirst {
        /// The name of the part.
        part: String,
    },
    /// The second alone has the part.
    OnlyInSecond {
        /// The name of the part.
        part: String,
    },
    /// Both have the same parts in another order.
    Order,
}

impl fmt::Display for KeyDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { part } => write!(f, "{part} differs"),
            Self::OnlyInFirst { part } => write!(f, "{part} is only in the first"),
            Self::OnlyInSecond { part } => write!(f, "{part} is only in the second"),
            Self::Order => f.write_str("the order of the parts differs"),
        }
    }
}

/// Which parts of two keys differ, in the order of the first and then of the second.
///
/// Empty if and only if the keys are equal. Parts are matched by name; parts of one name are matched
/// in order. An early insertion shifts later names, so read the first difference first. See [`KeyParts`] for an example.
#[must_use]
pub fn explain(first: &KeyParts, second: &KeyParts) -> Vec<KeyDifference> {
    let mut unmatched: HashMap<(&str, u32), &KeyPart> = occurrences(second).collect();
    let mut differences = Vec::new();
    for (name, part) in occurrences(first) {
        let name_of = || part.name.clone();
        match unmatched.remove(&name) {
            Some(other) if other.digest == part.digest => {}
            Some(_) => differences.push(KeyDifference::Changed { part: name_of() }),
            None => differences.push(KeyDifference::OnlyInFirst { part: name_of() }),
        }
    }
    let left = occurrences(second).filter(|(name, _)| unmatched.contains_key(name));
    differences.extend(left.map(|(_, part)| KeyDifference::OnlyInSecond {
        part: part.name.clone(),
    }));
    if differences.is_empty() && first.key != second.key {
        differences.push(KeyDifference::Order);
    }
    differences
}

/// Each part under its name and how many of that name came before it.
fn occurrences(parts: &KeyParts) -> impl Iterator<Item = ((&str, u32), &KeyPart)> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    parts.parts.iter().map(move |part| {
        let count = seen.entry(&part.name).or_default();
        *count += 1;
        ((part.name.as_str(), *count), part)
    })
}
