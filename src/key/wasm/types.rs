//! Types: equal recursion groups are one, and are numbered by first use.
//!
//! WebAssembly compares types by structure, a whole recursion group at a time: two groups are
//! equal when their members are, with references into the group compared by place and references
//! out of it by type. A plain function type is a group of one.

use std::convert::Infallible;

use wasm_encoder::TypeSection;
use wasm_encoder::reencode::{Error, Reencode};
use wasmparser::types::{RecGroupId, TypesRef};
use wasmparser::{CompositeInnerType, FuncType, RecGroup, SubType};

use super::references::each_reference;
use super::{Unkeyable, encode};

/// The distinct recursion groups of a module, and their numbers.
#[derive(Debug, Default)]
pub(super) struct Types {
    groups: Vec<Group>,
    /// The group and the member that each type of the source is.
    of: Vec<(u32, u32)>,
    /// The groups that are used, by first use.
    used: Vec<u32>,
    next: u32,
}

#[derive(Debug)]
struct Group {
    members: Vec<SubType>,
    /// The canonical number of the first member.
    number: Option<u32>,
    visited: bool,
}

impl Types {
    /// The groups of a module, with what its validator knows of them: equal ones have one id, and
    /// the ids of new ones ascend.
    pub(super) fn new(rec_groups: Vec<RecGroup>, validated: TypesRef<'_>) -> Self {
        let mut types = Self::default();
        let mut known: Vec<RecGroupId> = Vec::new();
        for rec_group in rec_groups {
            let members = rec_group.into_types();
            let first = types.of.len() as u32;
            let count = members.len() as u32;
            if count == 0 {
                continue;
            }
            let id = validated.rec_group_id_of(validated.core_type_at_in_module(first));
            let group = if known.last().is_none_or(|last| *last < id) {
                known.push(id);
                types.groups.push(Group {
                    members: members.collect(),
                    number: None,
                    visited: false,
                });
                known.len() - 1
            } else {
                known.partition_point(|earlier| *earlier < id)
            };
            let group = group as u32;
            types.of.extend((0..count).map(|member| (group, member)));
        }
        types
    }

    /// The canonical number of a type. Its group is numbered if it is not, after those it needs.
    pub(super) fn number(&mut self, source: u32) -> u32 {
        let (group, member) = self.of[source as usize];
        if self.groups[group as usize].number.is_none() {
            self.visit(group);
        }
        self.groups[group as usize].number.unwrap_or_default() + member
    }

    /// Depth first without recursion, since a chain of types may be as long as the module.
    fn visit(&mut self, group: u32) {
        let mut stack = vec![group];
        while let Some(&top) = stack.last() {
            let group = &mut self.groups[top as usize];
            if group.number.is_some() {
                stack.pop();
            } else if group.visited {
                group.number = Some(self.next);
                self.next += group.members.len() as u32;
                self.used.push(top);
                stack.pop();
            } else {
                group.visited = true;
                let first = stack.len();
                for member in &self.groups[top as usize].members {
                    each_reference(member, |source| {
                        let (need, _) = self.of[source as usize];
                        let is_new = !self.groups[need as usize].visited;
                        // A member may refer to others of its own group.
                        if is_new {
                            stack.push(need);
                        }
                    });
                }
                stack[first..].reverse();
            }
        }
    }

    /// The plain function type that a type is, if it is one.
    pub(super) fn function(&self, source: u32) -> Option<&FuncType> {
        let (group, member) = self.of[source as usize];
        match &self.groups[group as usize].members[member as usize]
            .composite_type
            .inner
        {
            CompositeInnerType::Func(function) => Some(function),
            CompositeInnerType::Array(_)
            | CompositeInnerType::Struct(_)
            | CompositeInnerType::Cont(_) => None,
        }
    }

    /// The types in use, by number. It is the last that is asked for: they are moved into it.
    pub(super) fn section(&mut self) -> Result<TypeSection, Unkeyable> {
        let mut section = TypeSection::new();
        for group in std::mem::take(&mut self.used) {
            let members = std::mem::take(&mut self.groups[group as usize].members);
            encode::group(&mut Numbered { types: self }, members, &mut section)?;
        }
        Ok(section)
    }
}

/// Writes a group whose types have all been numbered.
struct Numbered<'t> {
    types: &'t Types,
}

impl Reencode for Numbered<'_> {
    type Error = Infallible;

    fn type_index(&mut self, source: u32) -> Result<u32, Error> {
        let (group, member) = self.types.of[source as usize];
        Ok(self.types.groups[group as usize].number.unwrap_or_default() + member)
    }
}
