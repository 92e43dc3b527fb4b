//! What calling a function does to its neighbours in control flow.

/// What a function does, itself or by what it calls.
#[derive(Clone, Copy, Default)]
pub(super) struct Effects {
    /// It compares neighbours: it takes a derivative, samples with an implicit one, or reads what a
    /// neighbour has computed.
    pub(super) compares: bool,
    /// It may end an invocation.
    pub(super) discards: bool,
}
