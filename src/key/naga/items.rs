//! The module-level items by what they are: without names, in any order.
//!
//! Equal items have one [number](Id). They are numbered in one sweep over types and constant
//! expressions, which a valid module lists after all that they refer to.

use std::borrow::Cow;
use std::collections::HashSet;

use naga::{
    ArraySize, Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Module,
    Override, ShaderStage, Type, TypeInner,
};

use super::nodes::{Child, Id, Kind, NodeWriter, Nodes};
use super::rebase::{Rebased, Refusal};
use super::rules;
use super::special::SpecialRoles;
use super::wire::{Construct as _, Target};

/// The numbers of a module's items.
pub(super) struct Items<'m> {
    module: &'m Module,
    nodes: &'m mut Nodes,
    known: Known,
    /// What has a number in the source, by the number. Of several, the first.
    sources: Vec<Source>,
}

/// Items of the source with one number. A constant has that of its value.
#[derive(Clone, Copy, Default)]
pub(super) struct Source {
    pub(super) ty: Option<Handle<Type>>,
    pub(super) constant: Option<Handle<Constant>>,
    pub(super) override_: Option<Handle<Override>>,
    pub(super) global: Option<Handle<GlobalVariable>>,
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
            sources: Vec::new(),
        };
        items.number_globals(globals)?;
        let targets = targets(module);
        for (handle, ty) in module.types.iter() {
            // An array whose length is overridable needs that override, and so its initial value.
            if let Some(length) = pending_length(&ty.inner) {
                let init = module.overrides[length].init;
                items.number_expressions(init.map_or(0, |init| init.index() + 1))?;
                items.number_override(length)?;
            }
            let is_special = special.contains(handle);
            let targets = targets.contains(&handle).then_some(TARGETS_NAME);
            let id = items.number(true, |numbers| {
                let special = ty.name.as_deref().filter(|_| is_special);
                numbers.name(special.or(targets));
                numbers.named = is_special;
                spelled(&ty.inner).write(numbers);
            })?;
            items.known.types.push(id);
        }
        items.number_expressions(module.global_expressions.len())?;
        for (handle, _) in module.overrides.iter() {
            items.number_override(handle)?;
        }
        items.note_sources();
        Ok(items)
    }

    fn note_sources(&mut self) {
        let Self {
            module,
            nodes,
            known,
            sources,
        } = self;
        sources.resize(nodes.len(), Source::default());
        for ((handle, _), id) in module.types.iter().zip(&known.types) {
            sources[*id as usize].ty.get_or_insert(handle);
        }
        for ((handle, _), init) in module.constants.iter().zip(&known.constants) {
            let id = known.expressions[init.index()];
            sources[id as usize].constant.get_or_insert(handle);
        }
        for ((handle, _), id) in module.overrides.iter().zip(&known.overrides) {
            if let Some(id) = *id {
                sources[id as usize].override_.get_or_insert(handle);
            }
        }
        for ((handle, _), id) in module.global_variables.iter().zip(&known.globals) {
            sources[*id as usize].global.get_or_insert(handle);
        }
    }

    /// The items of the source that have a number.
    pub(super) fn source(&self, id: Id) -> Source {
        self.sources.get(id as usize).copied().unwrap_or_default()
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

    pub(super) fn override_(&self, handle: Handle<Override>) -> Option<Id> {
        self.known.overrides[handle.index()]
    }

    /// A resource is where it is bound. What is not bound, and what is bound where another is, is
    /// told apart by its place among its likes.
    fn number_globals(&mut self, order: &[Handle<GlobalVariable>]) -> Rebased<()> {
        let mut ids = vec![0; self.module.global_variables.len()];
        let mut likes = Vec::new();
        for handle in order {
            let global = &self.module.global_variables[*handle];
            let GlobalVariable {
                name: _,
                space,
                binding,
                ty: _,
                init: _,
                memory_decorations,
            } = global;
            let head = self.number(false, |numbers| {
                space.write(numbers);
                binding.write(numbers);
                memory_decorations.write(numbers);
            })?;
            likes.resize(likes.len().max(head as usize + 1), 0_u64);
            likes[head as usize] += 1;
            let place = likes[head as usize];
            ids[handle.index()] = self.number(false, |numbers| {
                numbers.refer(Kind::Value, Some(head));
                numbers.fields(*b"global");
                place.write(numbers);
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
                    self.number(false, |numbers| expression.write(numbers))?
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
            let number = self.number(true, |numbers| {
                numbers.fields(*b"override");
                name.write(numbers);
                id.write(numbers);
                inner.write(numbers);
                init.write(numbers);
            })?;
            self.known.overrides[handle.index()] = Some(number);
        }
        Ok(())
    }

    /// The number of what is written, with the names that it has or without.
    fn number(&mut self, named: bool, write: impl FnOnce(&mut Numbers<'_>)) -> Rebased<Id> {
        let Self { nodes, known, .. } = self;
        let mut numbers = Numbers {
            writer: nodes.writer(),
            known,
            named,
        };
        write(&mut numbers);
        let written = numbers.writer.finish();
        nodes.intern(None, written)
    }
}

/// The structures that fragment shaders return. naga's writer of HLSL takes their locations for
/// those of targets wherever the type is used, so that they are no other type, however equal.
fn targets(module: &Module) -> HashSet<Handle<Type>> {
    let mains = module.entry_points.iter();
    let fragments = mains.filter(|main| main.stage == ShaderStage::Fragment);
    let results = fragments.filter_map(|main| main.function.result.as_ref());
    let structures = results.filter(|result| result.binding.is_none());
    structures.map(|result| result.ty).collect()
}

/// The name of what a fragment shader returns.
const TARGETS_NAME: &str = "targets";

const FOLLOWS: Refusal = Refusal(&"an item refers to one that follows it");

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

/// A type whose bindings are in their one spelling.
fn spelled(inner: &TypeInner) -> Cow<'_, TypeInner> {
    let is_bound = |members: &[naga::StructMember]| members.iter().any(|it| it.binding.is_some());
    match inner {
        TypeInner::Struct { members, span } if is_bound(members) => {
            let mut members = members.clone();
            for member in &mut members {
                member.binding = member.binding.as_ref().map(rules::binding);
            }
            let span = *span;
            Cow::Owned(TypeInner::Struct { members, span })
        }
        _ => Cow::Borrowed(inner),
    }
}

/// Writes items, with references to each other as numbers.
struct Numbers<'n> {
    writer: NodeWriter<'n>,
    known: &'n Known,
    named: bool,
}

impl Numbers<'_> {
    /// Refers to an item, if it is listed before.
    fn refer(&mut self, kind: Kind, id: Option<Id>) {
        let child = id.map_or(Child::MISSING, |id| Child::new(kind, id));
        self.writer.child(child);
    }
}

impl Target for Numbers<'_> {
    #[inline]
    fn fields<const N: usize>(&mut self, bytes: [u8; N]) {
        self.writer.fields(bytes);
    }

    fn name(&mut self, name: Option<&str>) {
        let name = name.filter(|_| self.named);
        self.bool(name.is_some());
        if let Some(name) = name {
            self.text(name);
        }
    }

    fn ty(&mut self, handle: Handle<Type>) {
        let id = self.known.types.get(handle.index()).copied();
        self.refer(Kind::Type, id);
    }

    fn expression(&mut self, handle: Handle<Expression>) {
        let id = self.known.expressions.get(handle.index()).copied();
        self.refer(Kind::Value, id);
    }

    /// A use of a constant is its value.
    fn constant(&mut self, handle: Handle<Constant>) {
        match self.known.constants.get(handle.index()) {
            Some(init) => self.expression(*init),
            None => self.refer(Kind::Value, None),
        }
    }

    fn override_(&mut self, handle: Handle<Override>) {
        let id = self.known.overrides.get(handle.index()).copied().flatten();
        self.refer(Kind::Override, id);
    }

    fn global(&mut self, handle: Handle<GlobalVariable>) {
        let id = self.known.globals.get(handle.index()).copied();
        self.refer(Kind::Global, id);
    }

    /// A constant expression refers to no local: naga has refused it.
    fn local(&mut self, _: Handle<LocalVariable>) {
        self.refer(Kind::Value, None);
    }

    /// A constant expression calls no function: naga has refused it.
    fn function(&mut self, _: Handle<Function>) {
        self.refer(Kind::Value, None);
    }
}
