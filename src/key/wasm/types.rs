//! Types: equal recursion groups are one, and are numbered by first use.
//!
//! WebAssembly compares types by structure, a whole recursion group at a time: two groups are
//! equal when their members are, with references into the group compared by place and references
//! out of it by type. A plain function type is a group of one.

use std::collections::HashMap;
use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{Encode as _, TypeSection};
use wasmparser::{CompositeInnerType, FuncType, RecGroup, SubType};

use super::{Unkeyable, encode};

/// Marks a reference to a member of the same group. Modules hold far fewer types.
const WITHIN: u32 = 1 << 31;

/// The distinct recursion groups of a module, and their numbers.
#[derive(Debug, Default)]
pub(super) struct Types {
    groups: Vec<Group>,
    /// The group and the member that each type of the source is.
    of: Vec<(usize, u32)>,
    /// The groups that are used, by first use.
    used: Vec<usize>,
    next: u32,
}

#[derive(Debug)]
struct Group {
    members: Vec<SubType>,
    /// Types of the source that members refer to, outside of the group, by first mention.
    needs: Vec<u32>,
    /// What tells types apart while the canonical numbers are not known.
    identity: u32,
    /// The canonical number of the first member.
    number: Option<u32>,
    visited: bool,
}

impl Types {
    pub(super) fn new(rec_groups: Vec<RecGroup>) -> Result<Self, Unkeyable> {
        let mut types = Self::default();
        let mut known = HashMap::new();
        let mut identity = 0;
        for rec_group in rec_groups {
            let members: Vec<SubType> = rec_group.into_types().collect();
            let mut writer = Structure {
                types: &types,
                first: types.of.len() as u32,
                needs: Vec::new(),
            };
            let mut section = TypeSection::new();
            encode::group(&mut writer, &members, &mut section)?;
            let needs = writer.needs;
            let mut structure = Vec::new();
            section.encode(&mut structure);
            let count = members.len() as u32;
            let group = *known.entry(structure).or_insert_with(|| {
                types.groups.push(Group {
                    members,
                    needs,
                    identity,
                    number: None,
                    visited: false,
                });
                identity += count;
                types.groups.len() - 1
            });
            types.of.extend((0..count).map(|member| (group, member)));
        }
        Ok(types)
    }

    /// The canonical number of a type. Its group is numbered if it is not, after those it needs.
    pub(super) fn number(&mut self, source: u32) -> u32 {
        let (group, member) = self.of[source as usize];
        if self.groups[group].number.is_none() {
            self.visit(group);
        }
        self.groups[group].number.unwrap_or_default() + member
    }

    /// Depth first without recursion, since a chain of types may be as long as the module.
    fn visit(&mut self, group: usize) {
        let mut stack = vec![group];
        while let Some(&top) = stack.last() {
            let (groups, of) = (&mut self.groups, &self.of);
            if groups[top].number.is_some() {
                stack.pop();
            } else if groups[top].visited {
                groups[top].number = Some(self.next);
                self.next += groups[top].members.len() as u32;
                self.used.push(top);
                stack.pop();
            } else {
                groups[top].visited = true;
                let needs = groups[top].needs.iter().rev();
                stack.extend(needs.map(|&need| of[need as usize].0));
            }
        }
    }

    /// The plain function type that a type is, if it is one.
    pub(super) fn function(&self, source: u32) -> Option<&FuncType> {
        let (group, member) = self.of[source as usize];
        match &self.groups[group].members[member as usize]
            .composite_type
            .inner
        {
            CompositeInnerType::Func(function) => Some(function),
            CompositeInnerType::Array(_)
            | CompositeInnerType::Struct(_)
            | CompositeInnerType::Cont(_) => None,
        }
    }

    /// The types in use, by number.
    pub(super) fn section(&mut self) -> Result<TypeSection, Unkeyable> {
        let mut section = TypeSection::new();
        for group in self.used.clone() {
            let members = self.groups[group].members.clone();
            let mut writer = Numbered { types: self };
            encode::group(&mut writer, &members, &mut section)?;
        }
        Ok(section)
    }
}

/// Writes a group by structure, and gathers what it needs.
struct Structure<'t> {
    types: &'t Types,
    first: u32,
    needs: Vec<u32>,
}

impl Reencode for Structure<'_> {
    type Error = Infallible;

    fn type_index(&mut self, source: u32) -> Result<u32, Error> {
        if source >= self.first {
            return Ok(WITHIN | (source - self.first));
        }
        self.needs.push(source);
        let (group, member) = self.types.of[source as usize];
        Ok(self.types.groups[group].identity + member)
    }
}

/// Writes a group whose types have all been numbered.
struct Numbered<'t> {
    types: &'t mut Types,
}

impl Reencode for Numbered<'_> {
    type Error = Infallible;

    fn type_index(&mut self, source: u32) -> Result<u32, Error> {
        Ok(self.types.number(source))
    }
}
