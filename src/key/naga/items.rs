//! The module-level items by what they are: without names, in any order.
//!
//! Equal items have one [number](Id). They are numbered in one sweep over types and constant
//! expressions, which a valid module lists after all that they refer to.

use naga::{
    ArraySize, Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Module,
    Override, Type, TypeInner,
};

use super::nodes::{Child, Id, Nodes};
use super::rebase::{Rebased, Refusal};
use super::special::SpecialRoles;
use super::wire;
use super::wire::References;
use crate::key::WireWriter;

/// The numbers of a module's items.
pub(super) struct Items<'m> {
    module: &'m Module,
    nodes: &'m mut Nodes,
    known: Known,
}

/// The numbers so far, by the index of the item.
struct Known {
    types: Vec<Id>,
    expressions: Vec<Id>,
    /// The value of each constant.
    constants: Vec<Handle<Expression>>,
    overrides: Vec<Option<Id>>,
    globals: Vec<Id>,
}

impl<'m> Items<'m> {
    /// Numbers all items of a validated module. `globals` is the order of its variables.
    pub(super) fn new(
        module: &'m Module,
        special: &SpecialRoles,
        globals: &[Handle<GlobalVariable>],
        nodes: &'m mut Nodes,
    ) -> Rebased<Self> {
        nodes.clear(module.types.len() + module.global_expressions.len());
        let constants = module.constants.iter();
        let mut items = Self {
            module,
            nodes,
            known: Known {
                types: Vec::with_capacity(module.types.len()),
                expressions: Vec::with_capacity(module.global_expressions.len()),
                constants: constants.map(|(_, constant)| constant.init).collect(),
                overrides: vec![None; module.overrides.len()],
                globals: Vec::new(),
            },
        };
        items.number_globals(globals)?;
        for (handle, ty) in module.types.iter() {
            // An array whose length is overridable needs that override, and so its initial value.
            if let Some(length) = pending_length(&ty.inner) {
                let init = module.overrides[length].init;
                items.number_expressions(init.map_or(0, |init| init.index() + 1))?;
                items.number_override(length)?;
            }
            let named = special.contains(handle);
            let id = items.number(|wire, refs| {
                wire.option(ty.name.as_deref().filter(|_| named), WireWriter::str);
                wire::type_inner(wire, refs, &ty.inner, named);
            })?;
            items.known.types.push(id);
        }
        items.number_expressions(module.global_expressions.len())?;
        for (handle, _) in module.overrides.iter() {
            items.number_override(handle)?;
        }
        Ok(items)
    }

    pub(super) const fn nodes(&self) -> &Nodes {
        self.nodes
    }

    pub(super) fn ty(&self, handle: Handle<Type>) -> Id {
        self.known.types[handle.index()]
    }

    pub(super) fn expression(&self, handle: Handle<Expression>) -> Id {
        self.known.expressions[handle.index()]
    }

    pub(super) fn global(&self, handle: Handle<GlobalVariable>) -> Id {
        self.known.globals[handle.index()]
    }

    /// A constant is its value: what it is called does not count.
    pub(super) fn constant(&self, handle: Handle<Constant>) -> Id {
        self.expression(self.known.constants[handle.index()])
    }

    pub(super) fn override_(&self, handle: Handle<Override>) -> Rebased<Id> {
        self.known.overrides[handle.index()].ok_or(FOLLOWS)
    }

    /// A resource is where it is bound. What is not bound, and what is bound where another is, is
    /// told apart by its place among its likes.
    fn number_globals(&mut self, order: &[Handle<GlobalVariable>]) -> Rebased<()> {
        let mut ids = vec![0; self.module.global_variables.len()];
        let mut likes = Vec::new();
        for handle in order {
            let global = &self.module.global_variables[*handle];
            let head = self.number(|wire, _| wire::global_head(wire, global))?;
            likes.resize(likes.len().max(head as usize + 1), 0_u64);
            likes[head as usize] += 1;
            let place = likes[head as usize];
            ids[handle.index()] = self.nodes.intern(None, |wire, children| {
                children.push(Child::of_set(head));
                wire.str("global");
                wire.u64(place);
            })?;
        }
        self.known.globals = ids;
        Ok(())
    }

    fn number_expressions(&mut self, end: usize) -> Rebased<()> {
        let done = self.known.expressions.len();
        let module = self.module;
        let missing = end.saturating_sub(done);
        for (_, expression) in module.global_expressions.iter().skip(done).take(missing) {
            let id = match *expression {
                // The use of a constant is its value.
                Expression::Constant(constant) => {
                    let init = module.constants[constant].init;
                    let known = self.known.expressions.get(init.index());
                    *known.ok_or(FOLLOWS)?
                }
                _ => {
                    if let Expression::Override(item) = *expression {
                        self.number_override(item)?;
                    }
                    self.number(|wire, refs| wire::expression(wire, refs, expression))?
                }
            };
            self.known.expressions.push(id);
        }
        Ok(())
    }

    /// An override is how a pipeline sets it and what it is otherwise. Its type is a scalar and
    /// so refers to nothing.
    fn number_override(&mut self, handle: Handle<Override>) -> Rebased<()> {
        if self.known.overrides[handle.index()].is_none() {
            let Override { name, id, ty, init } = &self.module.overrides[handle];
            let inner = &self.module.types[*ty].inner;
            let number = self.number(|wire, refs| {
                wire.str("override");
                wire.option(name.as_deref(), WireWriter::str);
                wire.option(*id, WireWriter::u16);
                wire::type_inner(wire, refs, inner, false);
                wire.option(*init, |wire, init| refs.expression(wire, init));
            })?;
            self.known.overrides[handle.index()] = Some(number);
        }
        Ok(())
    }

    fn number(&mut self, write: impl FnOnce(&mut WireWriter, &mut Numbers<'_>)) -> Rebased<Id> {
        let Self { nodes, known, .. } = self;
        let mut missing = false;
        let id = nodes.intern(None, |wire, children| {
            let mut numbers = Numbers {
                known,
                children,
                missing: &mut missing,
            };
            write(wire, &mut numbers);
        })?;
        if missing { Err(FOLLOWS) } else { Ok(id) }
    }
}

const FOLLOWS: Refusal = Refusal("an item refers to one that follows it");

const fn pending_length(inner: &TypeInner) -> Option<Handle<Override>> {
    let (TypeInner::Array {
        base: _,
        size,
        stride: _,
    }
    | TypeInner::BindingArray { base: _, size }) = inner
    else {
        return None;
    };
    match *size {
        ArraySize::Pending(length) => Some(length),
        ArraySize::Constant(_) | ArraySize::Dynamic => None,
    }
}

/// References of items to each other.
struct Numbers<'n> {
    known: &'n Known,
    children: &'n mut Vec<Child>,
    /// Set when something refers to what is not listed before it.
    missing: &'n mut bool,
}

impl Numbers<'_> {
    fn refer(&mut self, id: Option<Id>) {
        match id {
            Some(id) => self.children.push(Child::of_set(id)),
            None => *self.missing = true,
        }
    }
}

impl References for Numbers<'_> {
    fn ty(&mut self, _: &mut WireWriter, handle: Handle<Type>) {
        self.refer(self.known.types.get(handle.index()).copied());
    }

    fn expression(&mut self, _: &mut WireWriter, handle: Handle<Expression>) {
        self.refer(self.known.expressions.get(handle.index()).copied());
    }

    fn constant(&mut self, wire: &mut WireWriter, handle: Handle<Constant>) {
        match self.known.constants.get(handle.index()) {
            Some(init) => self.expression(wire, *init),
            None => *self.missing = true,
        }
    }

    fn override_(&mut self, _: &mut WireWriter, handle: Handle<Override>) {
        self.refer(self.known.overrides.get(handle.index()).copied().flatten());
    }

    fn global(&mut self, _: &mut WireWriter, handle: Handle<GlobalVariable>) {
        self.refer(self.known.globals.get(handle.index()).copied());
    }

    /// A constant expression refers to no local: naga has refused it.
    fn local(&mut self, _: &mut WireWriter, _: Handle<LocalVariable>) {
        *self.missing = true;
    }

    /// A constant expression calls no function: naga has refused it.
    fn function(&mut self, _: &mut WireWriter, _: Handle<Function>) {
        *self.missing = true;
    }
}
