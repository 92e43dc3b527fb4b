//! Why something is not copied.

use crate::key::Unkeyable;

/// The result of a translation.
pub(in super::super) type Rebased<T> = Result<T, Refusal>;

/// Why a module has no canonical form. As small as a pointer, unlike [`Unkeyable`], because most
/// results on the way through a module are a number of four bytes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Refusal(pub(in super::super) &'static &'static str);

impl From<Refusal> for Unkeyable {
    fn from(refusal: Refusal) -> Self {
        Self::new(*refusal.0)
    }
}
