//! Statements by what they nest.

use naga::{Block, Expression, Function, GatherMode, Handle, Range, Statement, SwitchCase};

/// A statement by what holds it together: what it nests, or that it nests nothing.
pub(in super::super) enum Shape<'a> {
    Emit(&'a Range<Expression>),
    Block(&'a Block),
    If {
        condition: Handle<Expression>,
        accept: &'a Block,
        reject: &'a Block,
    },
    Switch {
        selector: Handle<Expression>,
        cases: &'a [SwitchCase],
    },
    Loop {
        body: &'a Block,
        continuing: &'a Block,
        break_if: Option<Handle<Expression>>,
    },
    /// A statement that nests none.
    Leaf(Leaf<'a>),
}

/// A statement that nests no other.
#[derive(Clone, Copy)]
pub(in super::super) struct Leaf<'a>(&'a Statement);

/// Tells what a statement nests.
#[inline]
pub(in super::super) fn shape(statement: &Statement) -> Shape<'_> {
    match *statement {
        Statement::Emit(ref range) => Shape::Emit(range),
        Statement::Block(ref block) => Shape::Block(block),
        Statement::If {
            condition,
            ref accept,
            ref reject,
        } => Shape::If {
            condition,
            accept,
            reject,
        },
        Statement::Switch {
            selector,
            ref cases,
        } => Shape::Switch { selector, cases },
        Statement::Loop {
            ref body,
            ref continuing,
            break_if,
        } => Shape::Loop {
            body,
            continuing,
            break_if,
        },
        Statement::Break
        | Statement::Continue
        | Statement::Return { value: _ }
        | Statement::Kill
        | Statement::ControlBarrier(_)
        | Statement::MemoryBarrier(_)
        | Statement::Store {
            pointer: _,
            value: _,
        }
        | Statement::ImageStore {
            image: _,
            coordinate: _,
            array_index: _,
            value: _,
        }
        | Statement::Atomic {
            pointer: _,
            fun: _,
            value: _,
            result: _,
        }
        | Statement::ImageAtomic {
            image: _,
            coordinate: _,
            array_index: _,
            fun: _,
            value: _,
        }
        | Statement::WorkGroupUniformLoad {
            pointer: _,
            result: _,
        }
        | Statement::Call {
            function: _,
            arguments: _,
            result: _,
        }
        | Statement::RayQuery { query: _, fun: _ }
        | Statement::RayPipelineFunction(_)
        | Statement::SubgroupBallot {
            result: _,
            predicate: _,
        }
        | Statement::SubgroupGather {
            mode: _,
            argument: _,
            result: _,
        }
        | Statement::SubgroupCollectiveOperation {
            op: _,
            collective_op: _,
            argument: _,
            result: _,
        }
        | Statement::CooperativeStore { target: _, data: _ } => Shape::Leaf(Leaf(statement)),
    }
}

impl<'a> Leaf<'a> {
    /// A leaf of a statement that is known to be one.
    pub(in super::super) const fn of(statement: &'a Statement) -> Self {
        Self(statement)
    }

    /// Whether it goes on with the next round of a loop.
    pub(in super::super) const fn continues(&self) -> bool {
        matches!(self.0, Statement::Continue)
    }

    /// Whether it returns without a value.
    pub(in super::super) const fn is_plain_return(&self) -> bool {
        matches!(self.0, Statement::Return { value: None })
    }

    /// The pointer and the value of a plain store.
    pub(in super::super) const fn store(&self) -> Option<(Handle<Expression>, Handle<Expression>)> {
        if let Statement::Store { pointer, value } = *self.0 {
            Some((pointer, value))
        } else {
            None
        }
    }

    /// Whether neighbours in control flow may part here: it ends an invocation or leaves a block.
    pub(in super::super) const fn leaves(&self) -> bool {
        matches!(
            self.0,
            Statement::Kill
                | Statement::Return { value: _ }
                | Statement::Break
                | Statement::Continue
        )
    }

    /// Whether it ends the invocation.
    pub(in super::super) const fn discards(&self) -> bool {
        matches!(self.0, Statement::Kill)
    }

    /// What it reads of another invocation, which need not be there any more.
    pub(in super::super) const fn gathers(&self) -> Option<Handle<Expression>> {
        let Statement::SubgroupGather {
            ref mode,
            argument,
            result: _,
        } = *self.0
        else {
            return None;
        };
        match *mode {
            // It is read of one that is there.
            GatherMode::BroadcastFirst => None,
            GatherMode::Broadcast(_)
            | GatherMode::Shuffle(_)
            | GatherMode::ShuffleDown(_)
            | GatherMode::ShuffleUp(_)
            | GatherMode::ShuffleXor(_)
            | GatherMode::QuadBroadcast(_)
            | GatherMode::QuadSwap(_) => Some(argument),
        }
    }

    /// The function this statement calls.
    pub(in super::super) const fn callee(&self) -> Option<Handle<Function>> {
        if let Statement::Call {
            function,
            arguments: _,
            result: _,
        } = *self.0
        {
            Some(function)
        } else {
            None
        }
    }

    /// The statement itself.
    pub(in super::super) const fn statement(&self) -> &Statement {
        self.0
    }
}
