//! The canonical module, built item by item.
//!
//! Nothing is copied before it is asked for, so what no entry point reaches is never there, and
//! items stand in the order in which they are first needed.

use naga::{
    AddressSpace, ArraySize, Constant, EntryPoint, Expression, Function, GlobalVariable, Handle,
    LocalVariable, Module, Override, Span, StructMember, Type, TypeInner,
};

use super::global_set::GlobalSet;
use super::items::Items;
use super::rebase;
use super::rebase::{Rebase, Rebased, Refusal};
use super::rules;
use super::special::SpecialRoles;

/// The name of every constant that is left: back ends write out a constant without a name at
/// each of its uses, which for a table is a copy of the table.
const CONSTANT_NAME: &str = "constant";

/// The canonical module under construction.
pub(super) struct ModuleBuilder<'m> {
    pub(super) source: &'m Module,
    pub(super) items: &'m Items<'m>,
    pub(super) special: &'m SpecialRoles,
    pub(super) out: Module,
    types: Vec<Option<Handle<Type>>>,
    /// The canonical handle of what has been asked for, by its number.
    constants: Vec<Option<Handle<Constant>>>,
    overrides: Vec<Option<Handle<Override>>>,
    expressions: Vec<Option<Handle<Expression>>>,
    globals: Vec<Option<Handle<GlobalVariable>>>,
    functions: Vec<Option<Handle<Function>>>,
    /// The variables that each canonical function uses.
    globals_of: Vec<GlobalSet>,
    /// The variables that an entry point names in its interface.
    payloads: Vec<Handle<GlobalVariable>>,
}

impl<'m> ModuleBuilder<'m> {
    pub(super) fn new(source: &'m Module, items: &'m Items<'m>, special: &'m SpecialRoles) -> Self {
        Self {
            source,
            items,
            special,
            out: Module::default(),
            types: vec![None; source.types.len()],
            constants: vec![None; items.nodes().len()],
            overrides: vec![None; items.nodes().len()],
            expressions: vec![None; items.nodes().len()],
            globals: vec![None; source.global_variables.len()],
            functions: vec![None; source.functions.len()],
            globals_of: Vec::new(),
            payloads: source.entry_points.iter().flat_map(payloads).collect(),
        }
    }

    pub(super) fn add_function(
        &mut self,
        source: Handle<Function>,
        function: Function,
        globals: GlobalSet,
    ) {
        let handle = self.out.functions.append(function, Span::UNDEFINED);
        self.functions[source.index()] = Some(handle);
        self.globals_of.push(globals);
    }

    /// The variables that a canonical function uses, itself or by what it calls.
    pub(super) fn globals_of(&self, function: Handle<Function>) -> &GlobalSet {
        &self.globals_of[function.index()]
    }

    /// The canonical handle of a global, if any code has asked for it.
    pub(super) fn known_global(
        &self,
        source: Handle<GlobalVariable>,
    ) -> Option<Handle<GlobalVariable>> {
        self.globals[source.index()]
    }

    fn add_type(&mut self, source: Handle<Type>) -> Rebased<Handle<Type>> {
        let Type { name, inner } = &self.source.types[source];
        let named = self.special.contains(source);
        let ty = Type {
            name: name.clone().filter(|_| named),
            inner: self.type_inner(inner, named)?,
        };
        // The arena holds each type once, so that types that differed by name alone are one now.
        let handle = self.out.types.insert(ty, Span::UNDEFINED);
        self.types[source.index()] = Some(handle);
        let special = self.special;
        special.register(source, &mut self.out.special_types, handle);
        for implied in special.implied_by(inner) {
            self.ty(*implied)?;
        }
        Ok(handle)
    }

    fn type_inner(&mut self, inner: &TypeInner, named: bool) -> Rebased<TypeInner> {
        Ok(match *inner {
            TypeInner::Scalar(_)
            | TypeInner::Vector { size: _, scalar: _ }
            | TypeInner::Matrix {
                columns: _,
                rows: _,
                scalar: _,
            }
            | TypeInner::CooperativeMatrix {
                columns: _,
                rows: _,
                scalar: _,
                role: _,
            }
            | TypeInner::Atomic(_)
            | TypeInner::ValuePointer {
                size: _,
                scalar: _,
                space: _,
            }
            | TypeInner::Image {
                dim: _,
                arrayed: _,
                class: _,
            }
            | TypeInner::Sampler { comparison: _ }
            | TypeInner::AccelerationStructure { vertex_return: _ }
            | TypeInner::RayQuery { vertex_return: _ } => inner.clone(),
            TypeInner::Pointer { base, space } => TypeInner::Pointer {
                base: self.ty(base)?,
                space,
            },
            TypeInner::Array { base, size, stride } => TypeInner::Array {
                base: self.ty(base)?,
                size: self.array_size(size)?,
                stride,
            },
            TypeInner::BindingArray { base, size } => TypeInner::BindingArray {
                base: self.ty(base)?,
                size: self.array_size(size)?,
            },
            TypeInner::Struct { ref members, span } => TypeInner::Struct {
                members: members
                    .iter()
                    .map(|member| self.struct_member(member, named))
                    .collect::<Rebased<_>>()?,
                span,
            },
        })
    }

    fn struct_member(&mut self, member: &StructMember, named: bool) -> Rebased<StructMember> {
        let StructMember {
            name,
            ty,
            binding,
            offset,
        } = member;
        Ok(StructMember {
            name: name.clone().filter(|_| named),
            ty: self.ty(*ty)?,
            binding: binding.as_ref().map(rules::binding),
            offset: *offset,
        })
    }

    fn array_size(&mut self, size: ArraySize) -> Rebased<ArraySize> {
        Ok(match size {
            ArraySize::Constant(count) => ArraySize::Constant(count),
            ArraySize::Pending(length) => ArraySize::Pending(self.override_(length)?),
            ArraySize::Dynamic => ArraySize::Dynamic,
        })
    }

    fn add_override(&mut self, source: Handle<Override>) -> Rebased<Handle<Override>> {
        let Override { name, id, ty, init } = &self.source.overrides[source];
        if name.is_none() && id.is_none() && init.is_none() {
            return Err(Refusal(
                "an override has no name, no id and no initial value",
            ));
        }
        let item = Override {
            name: name.clone(),
            id: *id,
            ty: self.ty(*ty)?,
            init: self.optional(*init)?,
        };
        Ok(self.out.overrides.append(item, Span::UNDEFINED))
    }

    fn add_constant(&mut self, source: Handle<Constant>) -> Rebased<Handle<Constant>> {
        let Constant { name: _, ty, init } = &self.source.constants[source];
        let item = Constant {
            name: Some(CONSTANT_NAME.to_owned()),
            ty: self.ty(*ty)?,
            init: self.operand(*init)?,
        };
        Ok(self.out.constants.append(item, Span::UNDEFINED))
    }

    fn add_global(&mut self, source: Handle<GlobalVariable>) -> Rebased<Handle<GlobalVariable>> {
        let GlobalVariable {
            name: _,
            space,
            binding,
            ty,
            init,
            memory_decorations,
        } = &self.source.global_variables[source];
        let item = GlobalVariable {
            name: self.payload_name(source),
            space: *space,
            binding: *binding,
            ty: self.ty(*ty)?,
            init: self.optional(*init)?,
            memory_decorations: *memory_decorations,
        };
        Ok(self.out.global_variables.append(item, Span::UNDEFINED))
    }

    /// naga's WGSL writer prints the name of a payload as it is, and fails where there is none. In
    /// letters alone, since it would change a name that ends in a digit at the declaration.
    fn payload_name(&self, source: Handle<GlobalVariable>) -> Option<String> {
        let number = self.out.global_variables.len().to_string();
        let letters = number.bytes().map(|digit| char::from(digit - b'0' + b'a'));
        let is_payload = self.payloads.contains(&source);
        is_payload.then(|| "payload_".chars().chain(letters).collect())
    }

    /// Adds a constant expression of the module, once.
    fn add_expression(&mut self, source: Handle<Expression>) -> Rebased<Handle<Expression>> {
        let expression = &self.source.global_expressions[source];
        if let Expression::Constant(constant) = *expression {
            return self.operand(self.source.constants[constant].init);
        }
        let copy = rebase::expression(self, expression)?;
        Ok(self.out.global_expressions.append(copy, Span::UNDEFINED))
    }
}

/// References of module-level items. Recursion is as deep as these nest, which is bounded.
impl Rebase for ModuleBuilder<'_> {
    fn operand(&mut self, source: Handle<Expression>) -> Rebased<Handle<Expression>> {
        let number = self.items.expression(source) as usize;
        if let Some(handle) = self.expressions[number] {
            return Ok(handle);
        }
        let handle = self.add_expression(source)?;
        self.expressions[number] = Some(handle);
        Ok(handle)
    }

    fn definition(&mut self, _: Handle<Expression>) -> Rebased<Handle<Expression>> {
        Err(Refusal("a module-level item holds a statement"))
    }

    fn ty(&mut self, source: Handle<Type>) -> Rebased<Handle<Type>> {
        match self.types[source.index()] {
            Some(handle) => Ok(handle),
            None => self.add_type(source),
        }
    }

    fn constant(&mut self, source: Handle<Constant>) -> Rebased<Handle<Constant>> {
        let number = self.items.constant(source) as usize;
        if let Some(handle) = self.constants[number] {
            return Ok(handle);
        }
        let handle = self.add_constant(source)?;
        self.constants[number] = Some(handle);
        Ok(handle)
    }

    fn override_(&mut self, source: Handle<Override>) -> Rebased<Handle<Override>> {
        let number = self.items.override_(source)? as usize;
        if let Some(handle) = self.overrides[number] {
            return Ok(handle);
        }
        let handle = self.add_override(source)?;
        self.overrides[number] = Some(handle);
        Ok(handle)
    }

    fn global(&mut self, source: Handle<GlobalVariable>) -> Rebased<Handle<GlobalVariable>> {
        if let Some(handle) = self.globals[source.index()] {
            return Ok(handle);
        }
        let handle = self.add_global(source)?;
        self.globals[source.index()] = Some(handle);
        Ok(handle)
    }

    fn local(&mut self, _: Handle<LocalVariable>) -> Rebased<Handle<LocalVariable>> {
        Err(Refusal("a module-level item holds a local variable"))
    }

    fn function(&mut self, source: Handle<Function>) -> Rebased<Handle<Function>> {
        self.functions[source.index()].ok_or(Refusal("a function is called before it is known"))
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
