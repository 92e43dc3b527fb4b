//! Variables of a function that have one value wherever they are read.
//!
//! Such a variable is its value, as a `let` is. It is written whole, once at most, in a block that
//! every read of it stands in, further on; or never, and keeps its initial value. Nothing else is
//! done with it, so that nobody but its reads can see that it is a variable. What is indexed by
//! what is not constant stays a variable: targets bound and store a value otherwise.

use naga::{Expression, Handle, LocalVariable};

use super::context::Context;
use super::events::{BlockId, Event, Events};
use super::wire::each_operand;

/// What the variables of a function are.
#[derive(Default)]
pub(super) struct Settled {
    locals: Vec<Local>,
    /// The variable that an expression points to or into, or [reads](READ), by the index of the
    /// expression; or [none](NONE).
    roots: Vec<u32>,
    /// Whether any variable is settled.
    any: bool,
}

/// Marks a variable that is read. An index of a variable does not come to it, since no memory holds
/// as many.
const READ: u32 = 1 << 31;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Default)]
struct Local {
    is_open: bool,
    stores: u32,
    store: Option<(usize, BlockId, Handle<Expression>)>,
    init: Option<Handle<Expression>>,
}

impl Settled {
    /// Reads the events of a function, and takes the stores of settled variables from them.
    pub(super) fn read(&mut self, context: &Context<'_>, events: &mut Events) {
        let function = context.function;
        self.locals.clear();
        self.roots.clear();
        self.any = false;
        if function.local_variables.is_empty() {
            return;
        }
        let locals = function.local_variables.iter();
        self.locals.extend(locals.map(|(_, local)| Local {
            init: local.init,
            ..Local::default()
        }));
        self.find_roots(context);
        for store in events.stores() {
            let Some(local) = self.root(store.pointer) else {
                continue;
            };
            let is_whole = matches!(
                function.expressions[store.pointer],
                Expression::LocalVariable(_)
            );
            let local = &mut self.locals[local];
            local.stores += 1;
            local.is_open |= !is_whole || local.stores > 1;
            local.store = Some((store.event, store.block, store.value));
        }
        self.look_at_events(events);
        for local in &self.locals {
            if !local.is_open {
                self.any = true;
                if let Some((event, _, _)) = local.store {
                    events.drop_store(event);
                }
            }
        }
    }

    /// Finds what points to variables, and the variables that more is done with.
    fn find_roots(&mut self, context: &Context<'_>) {
        let expressions = &context.function.expressions;
        self.roots.resize(expressions.len(), NONE);
        for (handle, expression) in expressions.iter() {
            match *expression {
                Expression::LocalVariable(local) => {
                    self.roots[handle.index()] = local.index() as u32;
                }
                Expression::AccessIndex { base, index: _ } => {
                    if let Some(local) = self.root(base) {
                        self.roots[handle.index()] = local as u32;
                    }
                }
                Expression::Access { base, index } => {
                    self.open(base);
                    self.open(index);
                    // Open as it is, whoever reads it for nothing still has to be found.
                    if let Some(local) = self.root(base) {
                        self.roots[handle.index()] = local as u32;
                    }
                }
                Expression::Load { pointer } => {
                    if let Some(local) = self.root(pointer) {
                        self.roots[handle.index()] = local as u32 | READ;
                    }
                }
                Expression::Binary { op: _, left, right } => {
                    self.open(left);
                    self.open(right);
                }
                _ => each_operand(expression, |operand| self.open(operand)),
            }
        }
    }

    /// Notes that more than a read or a store is done with what an expression points to.
    #[inline]
    fn open(&mut self, operand: Handle<Expression>) {
        if let Some(local) = self.root(operand) {
            self.locals[local].is_open = true;
        }
    }

    fn look_at_events(&mut self, events: &Events) {
        let mut stores = events.stores().iter().peekable();
        for (index, (event, block)) in events.iter().enumerate() {
            match event {
                Event::Evaluation(source) => {
                    if let Some(local) = self.local_read(source) {
                        let local = &mut self.locals[local];
                        if let Some((event, home, _)) = local.store {
                            local.is_open |= index < event || events.common(home, block) != home;
                        }
                    }
                }
                Event::Use(source) | Event::Unless(source) | Event::Compared(source) => {
                    while stores.peek().is_some_and(|store| store.event + 1 < index) {
                        stores.next();
                    }
                    let is_store = stores
                        .peek()
                        .is_some_and(|store| store.event == index && store.pointer == source);
                    if let Some(local) = self.root(source).filter(|_| !is_store) {
                        self.locals[local].is_open = true;
                    }
                }
                Event::Nothing => {}
            }
        }
    }

    /// The variable that an expression points to or into.
    #[inline]
    fn root(&self, pointer: Handle<Expression>) -> Option<usize> {
        let root = self.roots[pointer.index()];
        (root & READ == 0).then_some(root as usize)
    }

    /// The variable that an expression reads.
    #[inline]
    fn local_read(&self, expression: Handle<Expression>) -> Option<usize> {
        let root = self.roots[expression.index()];
        (root & READ != 0 && root != NONE).then_some((root & !READ) as usize)
    }

    /// The settled variable that an expression reads.
    #[inline]
    fn settled(&self, read: Handle<Expression>) -> Option<&Local> {
        if !self.any {
            return None;
        }
        let local = &self.locals[self.local_read(read)?];
        Some(local).filter(|local| !local.is_open)
    }

    /// Whether an expression reads a settled variable.
    #[inline]
    pub(super) fn is_read(&self, expression: Handle<Expression>) -> bool {
        self.settled(expression).is_some()
    }

    /// The expression whose value a read of a settled variable has, if it is not zero.
    pub(super) fn value_of(&self, read: Handle<Expression>) -> Option<Handle<Expression>> {
        let local = self.settled(read)?;
        local.store.map(|(_, _, value)| value).or(local.init)
    }

    /// Whether there are no variables.
    pub(super) fn is_empty(&self) -> bool {
        self.locals.is_empty()
    }

    /// Whether any variable is settled.
    pub(super) const fn is_any(&self) -> bool {
        self.any
    }

    /// Whether a store is of a settled variable.
    pub(super) fn drops(&self, pointer: Handle<Expression>) -> bool {
        if !self.any {
            return false;
        }
        let local = self.root(pointer).map(|local| &self.locals[local]);
        local.is_some_and(|local| !local.is_open)
    }

    /// Whether an expression reads a variable that is written and not settled.
    pub(super) fn reads_open(&self, expression: Handle<Expression>) -> bool {
        let local = self.local_read(expression).map(|local| &self.locals[local]);
        local.is_some_and(|local| local.is_open)
    }
}

/// The variable that a read is of, and the way into it, from the last step to the first.
pub(super) fn path(
    context: &Context<'_>,
    read: Handle<Expression>,
) -> Option<(Handle<LocalVariable>, Vec<u32>)> {
    let expressions = &context.function.expressions;
    let Expression::Load { pointer } = expressions[read] else {
        return None;
    };
    let mut path = Vec::new();
    let mut next = pointer;
    loop {
        match expressions[next] {
            Expression::LocalVariable(local) => return Some((local, path)),
            Expression::AccessIndex { base, index } => {
                path.push(index);
                next = base;
            }
            _ => return None,
        }
    }
}
