//! A program, and what has no key.

use std::borrow::Cow;

use super::wire::ToWire;

/// A program of some compiler's intermediate representation.
///
/// Implement it for the form your compiler works on. [`canonicalize`](Self::canonicalize) removes
/// what cannot change the artifact (invisible names, the order of declarations, alternative
/// spellings) and keeps all that can. The compile function of
/// [`LayeredPipelineCache::get_or_compile`] gets the canonical form, so the compiler never sees what
/// was removed.
///
/// Facts of the dispatch (buffers, launch geometry, labels, timeouts) are not part of a program.
/// The compiler, its target and its options are: they go into the [`CompileScope`](super::CompileScope).
///
/// See [`ToWire`] for a whole example.
///
/// [`LayeredPipelineCache::get_or_compile`]: crate::LayeredPipelineCache::get_or_compile
pub trait Program {
    /// Names the representation, as globally as a package name: `example.com/ir`. It stands in
    /// the header of the wire, so that two representations never share a key.
    const DOMAIN: &'static str;

    /// The version of the canonical form. Raise it with every change of a rule or a byte.
    const SCHEMA: u32;

    /// The canonical form: what is hashed, and what is compiled.
    type Canonical: ToWire<Program = Self>;

    /// The one form that all spellings of this program share.
    ///
    /// # Errors
    ///
    /// [`Unkeyable`] when the program is invalid or holds something the rules do not know. It is
    /// then compiled without the cache; it is never given a made-up key.
    fn canonicalize(&self) -> Result<Self::Canonical, Unkeyable>;

    /// Whether the canonical form, its key and its [check](ToWire::check) take less than about 0.1 ms.
    /// A compile request may do all three on a worker of the runtime then, and uses a thread otherwise.
    /// The default says no.
    ///
    /// See [`ToWire::check`] for an example.
    fn is_small(&self) -> bool {
        false
    }
}

/// Why a program has no key.
///
/// ```
/// use pipeline_cache::Unkeyable;
///
/// let reason = Unkeyable::new("the module calls an external function by address");
/// assert_eq!(
///     reason.to_string(),
///     "the program cannot be keyed: the module calls an external function by address"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the program cannot be keyed: {reason}")]
pub struct Unkeyable {
    reason: Cow<'static, str>,
}

impl Unkeyable {
    /// An unkeyable program, with the reason as a readable phrase.
    #[must_use]
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: reason.into(),
        }
    }

    /// Why the program has no key.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
