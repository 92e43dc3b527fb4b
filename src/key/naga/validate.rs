//! What naga's validator says of a module.

use std::error::Error;
use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};

use naga::valid::{Capabilities, ModuleInfo, ValidationError, ValidationFlags, Validator};
use naga::{Module, WithSpan};

use super::deep::with_stack;
use super::rebase::{Rebased, Refusal};
use crate::key::Unkeyable;

/// Why a module is not valid.
///
/// See [`ValidatedModule`](super::ValidatedModule) for an example.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidModule {
    /// naga says what is wrong, and where.
    #[error("naga finds the module invalid: {}", chain(error))]
    Invalid {
        /// What naga says.
        error: Box<WithSpan<ValidationError>>,
    },
    /// The module was not put before naga's validator, or its validator did not come to an end.
    #[error(transparent)]
    Refused(#[from] Unkeyable),
}

impl From<Refusal> for InvalidModule {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<InvalidModule> for Unkeyable {
    fn from(error: InvalidModule) -> Self {
        match error {
            InvalidModule::Invalid { error: _ } => Self::new(error.to_string()),
            InvalidModule::Refused(reason) => reason,
        }
    }
}

/// Validates a module that [nests](super::limits::check) to a depth, with all that naga can check and every capability that is allowed.
///
/// On some modules that are not valid naga's validator panics: a member whose offset overflows, an
/// immediate whose length is overridable. That is a refusal as any other, in a program that
/// unwinds.
pub(super) fn validate(
    module: &Module,
    depth: usize,
    flags: ValidationFlags,
    capabilities: Capabilities,
) -> Result<ModuleInfo, InvalidModule> {
    let validate = || {
        let mut validator = Validator::new(flags, capabilities);
        validator
            .validate(module)
            .map_err(|error| InvalidModule::Invalid {
                error: Box::new(error),
            })
    };
    let validate = || {
        panic::catch_unwind(AssertUnwindSafe(validate))
            .unwrap_or_else(|_| Err(Unkeyable::new("naga's validator panics on the module").into()))
    };
    with_stack(depth, validate)?
}

/// Validates a canonical module that is made anew. The source was uniform by its filters.
pub(super) fn validate_again(module: &Module) -> Rebased<ModuleInfo> {
    let flags = ValidationFlags::all() - ValidationFlags::CONTROL_FLOW_UNIFORMITY;
    let validate = || {
        let mut validator = Validator::new(flags, Capabilities::all());
        validator.validate(module).ok()
    };
    let validated = panic::catch_unwind(AssertUnwindSafe(validate));
    let info = validated.ok().flatten();
    info.ok_or(Refusal(
        &"a canonical form on the way to the last is not valid",
    ))
}

/// An error and all its causes.
fn chain(error: &WithSpan<ValidationError>) -> String {
    let mut text = error.as_inner().to_string();
    let mut cause = error.as_inner().source();
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
