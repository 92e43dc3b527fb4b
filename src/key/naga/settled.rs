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
    /// The variable that an expression points to or into, by the index of the expression.
    roots: Vec<Option<u32>>,
    /// The variables whose reads are values.
    any: bool,
    /// By the index of the expression: whether it reads a variable.
    reads: Vec<bool>,
}

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
        self.reads.clear();
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
        for (_, expression) in context.function.expressions.iter() {
            let mut is_read = false;
            let root = match *expression {
                Expression::LocalVariable(local) => Some(local.index()),
                Expression::AccessIndex { base, index: _ } => self.root(base),
                Expression::Access { base, index } => {
                    for pointer in [base, index] {
                        if let Some(local) = self.root(pointer) {
                            self.locals[local].is_open = true;
                        }
                    }
                    None
                }
                Expression::Load { pointer } => {
                    is_read = self.root(pointer).is_some();
                    None
                }
                _ => {
                    each_operand(expression, |operand| {
                        if let Some(local) = self.root(operand) {
                            self.locals[local].is_open = true;
                        }
                    });
                    None
                }
            };
            let pointer = match *expression {
                Expression::Load { pointer } if is_read => self.roots[pointer.index()],
                _ => root.map(|local| local as u32),
            };
            self.roots.push(pointer);
            self.reads.push(is_read);
        }
    }

    fn look_at_events(&mut self, events: &Events) {
        let mut stores = events.stores().iter().peekable();
        for (index, (event, block)) in events.iter().enumerate() {
            match event {
                Event::Evaluation(source) => {
                    if self.reads[source.index()] {
                        if let Some(local) = self.roots[source.index()] {
                            let local = &mut self.locals[local as usize];
                            if let Some((event, home, _)) = local.store {
                                local.is_open |=
                                    index < event || events.common(home, block) != home;
                            }
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
    fn root(&self, pointer: Handle<Expression>) -> Option<usize> {
        if *self.reads.get(pointer.index())? {
            return None;
        }
        self.roots[pointer.index()].map(|local| local as usize)
    }

    /// Whether the variable has one value.
    fn settled(&self, read: Handle<Expression>) -> Option<&Local> {
        if !self.any || !self.reads[read.index()] {
            return None;
        }
        let local = &self.locals[self.roots[read.index()]? as usize];
        Some(local).filter(|local| !local.is_open)
    }

    /// Whether an expression reads a settled variable.
    pub(super) fn is_read(&self, expression: Handle<Expression>) -> bool {
        self.settled(expression).is_some()
    }

    /// The expression whose value a read of a settled variable has, if it is not zero.
    pub(super) fn value_of(&self, read: Handle<Expression>) -> Option<Handle<Expression>> {
        let local = self.settled(read)?;
        local.store.map(|(_, _, value)| value).or(local.init)
    }

    /// Whether any variable is settled.
    pub(super) const fn is_any(&self) -> bool {
        self.any
    }

    /// Whether a store is of a settled variable.
    pub(super) fn drops(&self, pointer: Handle<Expression>) -> bool {
        let local = self.root(pointer).map(|local| &self.locals[local]);
        local.is_some_and(|local| !local.is_open)
    }

    /// Whether an expression reads a variable that is written and not settled.
    pub(super) fn reads_open(&self, expression: Handle<Expression>) -> bool {
        let index = expression.index();
        if !self.reads.get(index).copied().unwrap_or_default() {
            return false;
        }
        let local = self.roots[index].map(|local| &self.locals[local as usize]);
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
