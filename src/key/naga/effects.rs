//! What calling a function does to its neighbours in control flow.

/// What a function does, itself or by what it calls.
#[derive(Clone, Copy, Default)]
pub(super) struct Effects {
    /// It takes a derivative, or samples with an implicit one: it compares neighbours.
    pub(super) compares: bool,
    /// It may end an invocation.
    pub(super) discards: bool,
}
