//! Whether a request reads from the server or changes what it has.
//!
//! Many tokens may only read, and many servers refuse writes while they serve reads. So each policy
//! keeps two states, and the trouble of the one costs the other nothing.

use std::fmt;

use crate::store::StoreOperation;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Access {
    pub(super) const fn of(operation: StoreOperation) -> Self {
        match operation {
            StoreOperation::Put | StoreOperation::Remove | StoreOperation::CompileLease => {
                Self::Write
            }
            _ => Self::Read,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reads",
            Self::Write => "writes",
        })
    }
}

/// One of each for reads and for writes.
#[derive(Debug)]
pub(super) struct PerAccess<T> {
    pub(super) reads: T,
    pub(super) writes: T,
}

impl<T> PerAccess<T> {
    pub(super) fn new(make: impl Fn(Access) -> T) -> Self {
        Self {
            reads: make(Access::Read),
            writes: make(Access::Write),
        }
    }

    pub(super) const fn of(&self, access: Access) -> &T {
        match access {
            Access::Read => &self.reads,
            Access::Write => &self.writes,
        }
    }
}
