//! Types that back ends know by their role and their names.
//!
//! naga's own tables name them (`SpecialTypes`), and back ends write their members by name, so
//! these types keep their names. They are kept where they are used.

use std::collections::HashMap;

use naga::{Handle, Module, PredeclaredType, SpecialTypes, Type, TypeInner};

use super::rebase::{Rebased, Refusal};
use super::wire::{Construct as _, Part, Target as _};

/// What a special type is for.
#[derive(Clone)]
pub(super) enum Role {
    RayDesc,
    RayIntersection,
    RayVertexReturn,
    ExternalTextureParams,
    ExternalTextureTransferFunction,
    Predeclared(PredeclaredType),
}

/// The special types of a module, by handle.
pub(super) struct SpecialRoles {
    roles: HashMap<Handle<Type>, Vec<Role>>,
    ray: Vec<Handle<Type>>,
    external: Vec<Handle<Type>>,
}

impl SpecialRoles {
    /// Reads a module's table.
    pub(super) fn new(module: &Module) -> Rebased<Self> {
        let SpecialTypes {
            ray_desc,
            ray_intersection,
            ray_vertex_return,
            external_texture_params,
            external_texture_transfer_function,
            predeclared_types,
        } = &module.special_types;
        let ray = [
            (*ray_desc, Role::RayDesc),
            (*ray_intersection, Role::RayIntersection),
            (*ray_vertex_return, Role::RayVertexReturn),
        ];
        let external = [
            (*external_texture_params, Role::ExternalTextureParams),
            (
                *external_texture_transfer_function,
                Role::ExternalTextureTransferFunction,
            ),
        ];
        let mut special = Self {
            roles: HashMap::new(),
            ray: ray.iter().filter_map(|(ty, _)| *ty).collect(),
            external: external.iter().filter_map(|(ty, _)| *ty).collect(),
        };
        for (ty, role) in ray.into_iter().chain(external) {
            if let Some(ty) = ty {
                special.insert(module, ty, role)?;
            }
        }
        for (key, ty) in predeclared_types {
            special.insert(module, *ty, Role::Predeclared(key.clone()))?;
        }
        Ok(special)
    }

    /// naga's validator does not look at all of these handles.
    fn insert(&mut self, module: &Module, ty: Handle<Type>, role: Role) -> Rebased<()> {
        let named = module.types.get_handle(ty).map(|ty| ty.name.is_some());
        if !matches!(named, Ok(true)) {
            return Err(Refusal(&"a special type is missing or has no name"));
        }
        self.roles.entry(ty).or_default().push(role);
        Ok(())
    }

    /// Whether the module has no special type.
    pub(super) fn is_empty(&self) -> bool {
        self.roles.is_empty()
    }

    /// Whether a type is special.
    pub(super) fn contains(&self, ty: Handle<Type>) -> bool {
        self.roles.contains_key(&ty)
    }

    /// What a type is for.
    pub(super) fn roles(&self, ty: Handle<Type>) -> &[Role] {
        self.roles.get(&ty).map_or(&[], Vec::as_slice)
    }

    /// The special types that back ends look for where this type is used: those that the code
    /// need not name itself.
    pub(super) fn implied_by(&self, inner: &TypeInner) -> &[Handle<Type>] {
        match inner {
            TypeInner::AccelerationStructure { vertex_return: _ }
            | TypeInner::RayQuery { vertex_return: _ } => &self.ray,
            TypeInner::Image {
                dim: _,
                arrayed: _,
                class: naga::ImageClass::External,
            } => &self.external,
            TypeInner::Image {
                dim: _,
                arrayed: _,
                class:
                    naga::ImageClass::Sampled { kind: _, multi: _ }
                    | naga::ImageClass::Depth { multi: _ }
                    | naga::ImageClass::Storage {
                        format: _,
                        access: _,
                    },
            }
            | TypeInner::Scalar(_)
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
            | TypeInner::Pointer { base: _, space: _ }
            | TypeInner::ValuePointer {
                size: _,
                scalar: _,
                space: _,
            }
            | TypeInner::Array {
                base: _,
                size: _,
                stride: _,
            }
            | TypeInner::Struct {
                members: _,
                span: _,
            }
            | TypeInner::Sampler { comparison: _ }
            | TypeInner::BindingArray { base: _, size: _ } => &[],
        }
    }
}

/// Writes the canonical module's table: which type has which role, in the order in which they
/// came.
pub(super) fn write(roles: &[(Role, u32)], to: &mut Part) {
    let plain = |wanted: fn(&Role) -> bool| {
        let role = roles.iter().find(|(role, _)| wanted(role));
        role.map(|(_, ty)| *ty)
    };
    to.optional(plain(|role| matches!(role, Role::RayDesc)));
    to.optional(plain(|role| matches!(role, Role::RayIntersection)));
    to.optional(plain(|role| matches!(role, Role::RayVertexReturn)));
    to.optional(plain(|role| matches!(role, Role::ExternalTextureParams)));
    to.optional(plain(|role| {
        matches!(role, Role::ExternalTextureTransferFunction)
    }));
    let predeclared = roles.iter().filter_map(|(role, ty)| match role {
        Role::Predeclared(key) => Some((key, *ty)),
        _ => None,
    });
    to.count(predeclared.clone().count());
    for (key, ty) in predeclared {
        key.write(to);
        to.reference(ty);
    }
}
