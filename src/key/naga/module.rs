//! The canonical module, built item by item.
//!
//! Nothing is copied before it is asked for, so what no entry point reaches is never there, and
//! items stand in the order in which they are first needed.

use naga::{
    AddressSpace, Constant, EntryPoint, Expression, Function, GlobalVariable, Handle, Module,
    Override, Type,
};

use super::global_set::GlobalSet;
use super::items::Items;
use super::nodes::{Child, Id, Kind};
use super::rebase::{Rebased, Refusal};
use super::special::{self, Role, SpecialRoles};
use super::twins::Twins;
use super::wire::{Construct as _, FunctionParts, Part, Sections, Target as _};

/// The name of every constant that is left: back ends write out a constant without a name at
/// each of its uses, which for a table is a copy of the table.
const CONSTANT_NAME: &str = "constant";

/// The canonical module under construction.
pub(super) struct ModuleBuilder<'m> {
    pub(super) source: &'m Module,
    pub(super) items: &'m Items<'m>,
    pub(super) special: &'m SpecialRoles,
    pub(super) out: &'m mut Sections,
    /// The canonical index of what has been asked for, by its number.
    known: Vec<Known>,
    functions: Vec<Option<u32>>,
    /// The variables that each canonical function uses.
    globals_of: Vec<GlobalSet>,
    /// The variables that an entry point names in its interface.
    payloads: Vec<Handle<GlobalVariable>>,
    /// The special types that are there, and what for.
    roles: Vec<(Role, u32)>,
}

/// The canonical index of each kind of item.
#[derive(Clone, Copy, Default)]
struct Known {
    ty: Option<u32>,
    expression: Option<u32>,
    constant: Option<u32>,
    override_: Option<u32>,
    global: Option<u32>,
}

const UNKNOWN: Refusal = Refusal(&"an item is not there");

impl<'m> ModuleBuilder<'m> {
    pub(super) fn new(
        source: &'m Module,
        items: &'m Items<'m>,
        special: &'m SpecialRoles,
        out: &'m mut Sections,
    ) -> Self {
        out.clear();
        Self {
            source,
            items,
            special,
            out,
            known: vec![Known::default(); items.nodes().len()],
            functions: vec![None; source.functions.len()],
            globals_of: Vec::new(),
            payloads: source.entry_points.iter().flat_map(payloads).collect(),
            roles: Vec::new(),
        }
    }

    /// The wire of the module.
    pub(super) fn finish(self) -> Vec<u8> {
        special::write(&self.roles, &mut self.out.special_types);
        self.out.assemble()
    }

    /// Adds a function, or lets it be the one of its `twins` that is equal to it.
    pub(super) fn add_function(
        &mut self,
        source: Handle<Function>,
        function: &mut FunctionParts,
        globals: GlobalSet,
        twins: Option<&mut Twins>,
    ) {
        let start = self.out.functions.wire().len();
        let added = self.out.push_function(function);
        let twin = twins.and_then(|twins| twins.find(self.out.functions.wire(), start, added));
        if twin.is_some() {
            self.out.functions.pop(start);
        } else {
            self.globals_of.push(globals);
        }
        self.functions[source.index()] = twin.or(Some(added));
    }

    /// The variables that a canonical function uses, itself or by what it calls.
    pub(super) fn globals_of(&self, function: u32) -> &GlobalSet {
        &self.globals_of[function as usize]
    }

    /// The canonical index of a global, if any code has asked for it.
    pub(super) fn known_global(&self, source: Handle<GlobalVariable>) -> Option<u32> {
        self.known[self.items.global(source) as usize].global
    }
}

/// The canonical indices of items, which are added where they are not there. Recursion is as deep
/// as these nest, which is bounded.
impl ModuleBuilder<'_> {
    /// The item that a node refers to.
    pub(super) fn item(&mut self, child: Child) -> Rebased<u32> {
        let id = child.index();
        let known = self.known.get(id as usize).ok_or(UNKNOWN)?;
        let (known, add): (_, fn(&mut Self, Id) -> Rebased<u32>) = match child.kind() {
            Kind::Value => (known.expression, Self::add_expression),
            Kind::Type => (known.ty, Self::add_type),
            Kind::Constant => (known.constant, Self::add_constant),
            Kind::Override => (known.override_, Self::add_override),
            Kind::Global => (known.global, Self::add_global),
            Kind::Local => (None, |_, _| Err(UNKNOWN)),
        };
        known.map_or_else(|| add(self, id), Ok)
    }

    pub(super) fn ty(&mut self, source: Handle<Type>) -> Rebased<u32> {
        self.item(Child::new(Kind::Type, self.items.ty(source)))
    }

    pub(super) fn expression(&mut self, source: Handle<Expression>) -> Rebased<u32> {
        self.item(Child::new(Kind::Value, self.items.expression(source)))
    }

    pub(super) fn optional(&mut self, source: Option<Handle<Expression>>) -> Rebased<Option<u32>> {
        source.map(|source| self.expression(source)).transpose()
    }

    pub(super) fn constant(&mut self, source: Handle<Constant>) -> Rebased<u32> {
        self.item(Child::new(Kind::Constant, self.items.constant(source)))
    }

    pub(super) fn override_(&mut self, source: Handle<Override>) -> Rebased<u32> {
        let id = self.items.override_(source).ok_or(UNKNOWN)?;
        self.item(Child::new(Kind::Override, id))
    }

    pub(super) fn global(&mut self, source: Handle<GlobalVariable>) -> Rebased<u32> {
        self.item(Child::new(Kind::Global, self.items.global(source)))
    }

    pub(super) fn function(&self, source: Handle<Function>) -> Rebased<u32> {
        self.functions[source.index()].ok_or(Refusal(&"a function is called before it is known"))
    }

    fn known(&mut self, id: Id) -> &mut Known {
        &mut self.known[id as usize]
    }

    /// Where an item is written before it is pushed.
    fn take_item(&mut self) -> Part {
        let mut item = std::mem::take(&mut self.out.item);
        item.clear();
        item
    }

    fn add_type(&mut self, id: Id) -> Rebased<u32> {
        let items = self.items;
        for child in items.nodes().children(id) {
            self.item(*child)?;
        }
        // A special type can have come with one of these.
        if let Some(known) = self.known(id).ty {
            return Ok(known);
        }
        for child in items.nodes().children(id) {
            let reference = self.item(*child)?;
            self.out.types.part.reference(reference);
        }
        items.nodes().get(id).write_fields(&mut self.out.types.part);
        let ty = self.out.types.next();
        self.known(id).ty = Some(ty);
        let source = items.source(id).ty.ok_or(UNKNOWN)?;
        let roles = self.special.roles(source).iter();
        self.roles.extend(roles.map(|role| (role.clone(), ty)));
        for implied in self.special.implied_by(&self.source.types[source].inner) {
            self.ty(*implied)?;
        }
        Ok(ty)
    }

    /// Adds a constant expression of the module.
    fn add_expression(&mut self, id: Id) -> Rebased<u32> {
        let items = self.items;
        for child in items.nodes().children(id) {
            self.item(*child)?;
        }
        for child in items.nodes().children(id) {
            let reference = self.item(*child)?;
            self.out.expressions.part.reference(reference);
        }
        let expressions = &mut self.out.expressions;
        items.nodes().get(id).write_fields(&mut expressions.part);
        let expression = expressions.next();
        self.known(id).expression = Some(expression);
        Ok(expression)
    }

    fn add_constant(&mut self, id: Id) -> Rebased<u32> {
        let source = self.items.source(id).constant.ok_or(UNKNOWN)?;
        let Constant { name: _, ty, init } = &self.source.constants[source];
        let (ty, init) = (self.ty(*ty)?, self.expression(*init)?);
        let constants = &mut self.out.constants;
        constants.part.name(Some(CONSTANT_NAME));
        constants.part.reference(ty);
        constants.part.reference(init);
        let constant = constants.next();
        self.known(id).constant = Some(constant);
        Ok(constant)
    }

    fn add_override(&mut self, id: Id) -> Rebased<u32> {
        let source = self.items.source(id).override_.ok_or(UNKNOWN)?;
        let Override {
            name,
            id: of,
            ty,
            init,
        } = &self.source.overrides[source];
        if name.is_none() && of.is_none() && init.is_none() {
            return Err(Refusal(
                &"an override has no name, no id and no initial value",
            ));
        }
        let mut part = self.take_item();
        name.write(&mut part);
        of.write(&mut part);
        part.reference(self.ty(*ty)?);
        part.optional(self.optional(*init)?);
        let item = self.out.overrides.push(&[&part]);
        self.out.item = part;
        self.known(id).override_ = Some(item);
        Ok(item)
    }

    fn add_global(&mut self, id: Id) -> Rebased<u32> {
        let source = self.items.source(id).global.ok_or(UNKNOWN)?;
        let GlobalVariable {
            name: _,
            space,
            binding,
            ty,
            init,
            memory_decorations,
        } = &self.source.global_variables[source];
        let mut part = self.take_item();
        space.write(&mut part);
        binding.write(&mut part);
        memory_decorations.write(&mut part);
        self.payload_name(source).write(&mut part);
        part.reference(self.ty(*ty)?);
        part.optional(self.optional(*init)?);
        let global = self.out.globals.push(&[&part]);
        self.out.item = part;
        self.known(id).global = Some(global);
        Ok(global)
    }

    /// naga's WGSL writer prints the name of a payload as it is, and fails where there is none. In
    /// letters alone, since it would change a name that ends in a digit at the declaration.
    fn payload_name(&self, source: Handle<GlobalVariable>) -> Option<String> {
        if !self.payloads.contains(&source) {
            return None;
        }
        let number = self.out.globals.count.to_string();
        let letters = number.bytes().map(|digit| char::from(digit - b'0' + b'a'));
        Some("payload_".chars().chain(letters).collect())
    }
}

/// The variables that an entry point names beside its code.
pub(super) fn payloads(entry: &EntryPoint) -> impl Iterator<Item = Handle<GlobalVariable>> + use<> {
    let mesh = entry.mesh_info.as_ref().map(|mesh| mesh.output_variable);
    let payloads = [mesh, entry.task_payload, entry.incoming_ray_payload];
    payloads.into_iter().flatten()
}

/// Whether a pipeline can see that a shader uses a variable of this address space.
pub(super) const fn is_interface(space: AddressSpace) -> bool {
    match space {
        AddressSpace::Uniform
        | AddressSpace::Storage { access: _ }
        | AddressSpace::Handle
        | AddressSpace::Immediate
        | AddressSpace::TaskPayload
        | AddressSpace::RayPayload
        | AddressSpace::IncomingRayPayload => true,
        AddressSpace::Function | AddressSpace::Private | AddressSpace::WorkGroup => false,
    }
}
