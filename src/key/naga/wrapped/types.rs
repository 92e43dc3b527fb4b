//! Structures that become arguments and results of entry points.

use std::collections::BTreeMap;

use naga::{
    Binding, Handle, Interpolation, Module, Sampling, ScalarKind, Span, SpecialTypes, Type,
    TypeInner,
};

use super::super::module::is_interface;

/// What the members of a structure are bound to.
#[derive(Clone, PartialEq)]
pub(super) struct Bindings {
    pub(super) members: Vec<Option<Binding>>,
    /// Whether a fragment shader returns the structure, whose locations are targets.
    pub(super) are_targets: bool,
}

/// How many copies of structures there may be. Real modules have a handful, and each new one is
/// compared with all of them.
const MAX_COPIES: usize = 100;

/// The bindings that the members of structures take on.
pub(super) struct Bound {
    /// The types that take no bindings, by their index.
    fixed: Vec<bool>,
    bindings: BTreeMap<Handle<Type>, Bindings>,
    /// The structures that are like others and have other bindings.
    copies: Vec<(Handle<Type>, Bindings, Handle<Type>)>,
}

impl Bound {
    pub(super) fn new(module: &Module) -> Self {
        Self {
            fixed: fixed(module),
            bindings: BTreeMap::new(),
            copies: Vec::new(),
        }
    }

    /// A structure whose members have these bindings: the one that is given, if they have none
    /// yet or these, or else a copy of it, if that is wanted.
    ///
    /// A structure is the same with bindings, which count for arguments and results of entry
    /// points alone.
    pub(super) fn bind(
        &mut self,
        module: &mut Module,
        ty: Handle<Type>,
        bindings: Bindings,
        or_copy: bool,
    ) -> Option<Handle<Type>> {
        let inner = &module.types[ty].inner;
        let TypeInner::Struct { members, span: _ } = inner else {
            return None;
        };
        let is_free = members.iter().all(|member| member.binding.is_none())
            && members.len() == bindings.members.len()
            && self.fixed.get(ty.index()) == Some(&false);
        if !is_free {
            return None;
        }
        let known = self.bindings.entry(ty);
        if *known.or_insert_with(|| bindings.clone()) == bindings {
            return Some(ty);
        }
        if !or_copy {
            return None;
        }
        let is_known = |it: &&(_, _, _)| it.0 == ty && it.1 == bindings;
        if let Some((_, _, copy)) = self.copies.iter().find(is_known) {
            return Some(*copy);
        }
        if self.copies.len() == MAX_COPIES {
            return None;
        }
        let copy = Type {
            name: Some(format!("copy {}", self.copies.len())),
            inner: bound(inner, &bindings.members),
        };
        let copy = module.types.insert(copy, Span::UNDEFINED);
        self.copies.push((ty, bindings, copy));
        Some(copy)
    }

    /// Says how the members of a result are interpolated.
    pub(super) fn say_interpolation(
        &mut self,
        module: &Module,
        ty: Handle<Type>,
        are_targets: bool,
    ) {
        let TypeInner::Struct {
            ref members,
            span: _,
        } = module.types[ty].inner
        else {
            return;
        };
        let bindings = members.iter().map(|member| {
            let mut binding = member.binding.clone();
            say_interpolation(module, member.ty, binding.as_mut());
            binding
        });
        let bindings = Bindings {
            members: bindings.collect(),
            are_targets,
        };
        self.bindings.insert(ty, bindings);
    }

    pub(super) fn finish(self, module: &mut Module) {
        for (ty, bindings) in self.bindings {
            let inner = bound(&module.types[ty].inner, &bindings.members);
            // Types of one name and content are one type: this one is another than any.
            let name = Some(format!("bound {}", ty.index()));
            let bound = Type { name, inner };
            if module.types.get(&bound).is_none() {
                module.types.replace(ty, bound);
            }
        }
    }
}

/// The types that take no bindings, by their index: those that back ends know by their role, and
/// those of buffers. HLSL has no offsets: its writer keeps them by members that stand for what is
/// between two others, and leaves these out where the others are bound.
fn fixed(module: &Module) -> Vec<bool> {
    let SpecialTypes {
        ray_desc,
        ray_intersection,
        ray_vertex_return,
        external_texture_params,
        external_texture_transfer_function,
        predeclared_types,
    } = &module.special_types;
    let special = [
        ray_desc,
        ray_intersection,
        ray_vertex_return,
        external_texture_params,
        external_texture_transfer_function,
    ];
    let special = special.into_iter().flatten();
    let globals = module.global_variables.iter();
    let seen = globals.filter(|(_, global)| is_interface(global.space));
    let mut fixed = vec![false; module.types.len()];
    for ty in special.chain(predeclared_types.values()) {
        // naga's validator does not look at these handles.
        if let Some(fixed) = fixed.get_mut(ty.index()) {
            *fixed = true;
        }
    }
    for (_, global) in seen {
        fixed[global.ty.index()] = true;
    }
    // Types stand before those that hold them.
    for (ty, held) in module.types.iter().rev() {
        if !fixed[ty.index()] {
            continue;
        }
        match held.inner {
            TypeInner::Array { base, .. } | TypeInner::BindingArray { base, .. } => {
                fixed[base.index()] = true;
            }
            TypeInner::Struct { ref members, .. } => {
                members
                    .iter()
                    .for_each(|member| fixed[member.ty.index()] = true);
            }
            _ => {}
        }
    }
    fixed
}

/// A structure whose members have bindings.
fn bound(structure: &TypeInner, bindings: &[Option<Binding>]) -> TypeInner {
    let mut bound = structure.clone();
    if let TypeInner::Struct { members, span: _ } = &mut bound {
        for (member, binding) in members.iter_mut().zip(bindings) {
            member.binding.clone_from(binding);
        }
    }
    bound
}

/// Says how a value is interpolated where nothing is said: as all are, which counts only between
/// a vertex and a fragment shader. naga's front end for WGSL says so everywhere.
pub(super) fn say_interpolation(module: &Module, ty: Handle<Type>, binding: Option<&mut Binding>) {
    let Some(Binding::Location {
        location: _,
        interpolation: interpolation @ None,
        // Where a sampling is said, it counts.
        sampling: sampling @ (None | Some(Sampling::Center)),
        blend_src: _,
        per_primitive: _,
    }) = binding
    else {
        return;
    };
    if module.types[ty].inner.scalar_kind() == Some(ScalarKind::Float) {
        *interpolation = Some(Interpolation::Perspective);
        *sampling = Some(Sampling::Center);
    }
}
