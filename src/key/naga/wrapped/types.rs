//! Structures that become arguments and results of entry points.

use std::collections::BTreeMap;

use naga::{Binding, Handle, Interpolation, Module, Sampling, ScalarKind, Span, Type, TypeInner};

/// The bindings of the members of a structure.
pub(super) type Bindings = Vec<Option<Binding>>;

/// How many copies of structures there may be. Real modules have a handful, and each new one is
/// compared with all of them.
const MAX_COPIES: usize = 100;

/// The bindings that the members of structures take on.
#[derive(Default)]
pub(super) struct Bound {
    bindings: BTreeMap<Handle<Type>, Bindings>,
    /// The structures that are like others and have other bindings.
    copies: Vec<(Handle<Type>, Bindings, Handle<Type>)>,
}

impl Bound {
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
        let predeclared = &module.special_types.predeclared_types;
        let is_free = members.iter().all(|member| member.binding.is_none())
            && members.len() == bindings.len()
            // Back ends know these by their role.
            && !predeclared.values().any(|special| *special == ty);
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
            inner: bound(inner, &bindings),
        };
        let copy = module.types.insert(copy, Span::UNDEFINED);
        self.copies.push((ty, bindings, copy));
        Some(copy)
    }

    /// Says how the members of a result are interpolated.
    pub(super) fn say_interpolation(&mut self, module: &Module, ty: Handle<Type>) {
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
        self.bindings.insert(ty, bindings.collect());
    }

    pub(super) fn finish(self, module: &mut Module) {
        for (ty, bindings) in self.bindings {
            let inner = bound(&module.types[ty].inner, &bindings);
            // Types of one name and content are one type: this one is another than any.
            let name = Some(format!("bound {}", ty.index()));
            let bound = Type { name, inner };
            if module.types.get(&bound).is_none() {
                module.types.replace(ty, bound);
            }
        }
    }
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
