//! Reads a part of the wire.
//!
//! What does not read is `None`. Only a fault of this crate makes such a wire.

use naga::{
    AddressSpace, Arena, Constant, Expression, Function, GlobalVariable, Handle, LocalVariable,
    Override, Span, Type, TypeInner,
};

/// The handles of all arenas of a module, by their index.
#[derive(Default)]
pub(super) struct Handles {
    pub(super) types: Vec<Handle<Type>>,
    pub(super) constants: Vec<Handle<Constant>>,
    pub(super) overrides: Vec<Handle<Override>>,
    pub(super) globals: Vec<Handle<GlobalVariable>>,
    pub(super) functions: Vec<Handle<Function>>,
    /// Those of the module and of any function.
    pub(super) expressions: Vec<Handle<Expression>>,
    pub(super) locals: Vec<Handle<LocalVariable>>,
}

/// How many items each arena of a module holds.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) types: usize,
    pub(super) constants: usize,
    pub(super) overrides: usize,
    pub(super) globals: usize,
    pub(super) functions: usize,
    /// Those of the module.
    pub(super) expressions: usize,
    pub(super) entry_points: usize,
}

impl Handles {
    /// As many as there are items. An arena alone makes handles, so these come from arenas of
    /// placeholders.
    pub(super) fn new(counts: &Counts, most_locals: usize, most_expressions: usize) -> Self {
        let inner = TypeInner::Sampler { comparison: false };
        let types = handles(counts.types.max(1), &Type { name: None, inner });
        let expression = Expression::RayQueryProceedResult;
        let most = counts.expressions.max(most_expressions).max(1);
        let expressions = handles(most, &expression);
        let (ty, init) = (types[0], expressions[0]);
        Self {
            constants: handles(
                counts.constants,
                &Constant {
                    name: None,
                    ty,
                    init,
                },
            ),
            overrides: handles(
                counts.overrides,
                &Override {
                    name: None,
                    id: None,
                    ty,
                    init: None,
                },
            ),
            globals: handles(
                counts.globals,
                &GlobalVariable {
                    name: None,
                    space: AddressSpace::Private,
                    binding: None,
                    ty,
                    init: None,
                    memory_decorations: naga::MemoryDecorations::empty(),
                },
            ),
            functions: handles(counts.functions, &Function::default()),
            locals: handles(
                most_locals,
                &LocalVariable {
                    name: None,
                    ty,
                    init: None,
                },
            ),
            types,
            expressions,
        }
    }
}

fn handles<T: Clone>(count: usize, item: &T) -> Vec<Handle<T>> {
    let mut arena = Arena::new();
    let append = |_| arena.append(item.clone(), Span::UNDEFINED);
    (0..count).map(append).collect()
}

/// What is left of a part.
pub(in super::super) struct Reader<'a> {
    fields: &'a [u8],
    references: &'a [u8],
    pub(super) handles: &'a Handles,
}

impl<'a> Reader<'a> {
    /// Reads the frame of the part that a wire begins with.
    pub(super) fn new(wire: &mut &'a [u8], handles: &'a Handles) -> Option<Self> {
        Some(Self {
            fields: run(wire)?,
            references: run(wire)?,
            handles,
        })
    }

    /// Whether all of the part was read.
    pub(super) fn is_done(&self) -> bool {
        self.fields.is_empty() && self.references.is_empty()
    }

    pub(super) fn fields<const N: usize>(&mut self) -> Option<[u8; N]> {
        take(&mut self.fields)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.fields().map(u8::from_le_bytes)
    }

    pub(super) fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn count(&mut self) -> Option<usize> {
        count(&mut self.fields)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let count = self.count()?;
        let (text, rest) = self.fields.split_at_checked(count)?;
        self.fields = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    /// Reads a reference, as the handle of its index.
    pub(super) fn reference<T: 'static>(
        &mut self,
        of: impl FnOnce(&'a Handles) -> &'a [Handle<T>],
    ) -> Option<Handle<T>> {
        let index = count(&mut self.references)?;
        of(self.handles).get(index).copied()
    }
}

/// Reads a length or an index. It may be written in more bytes than it needs here: what is read is
/// compared as a whole with what would be written.
fn count(from: &mut &[u8]) -> Option<usize> {
    let mut count = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let [byte] = take(from)?;
        count |= usize::from(byte & 0x7f) << shift;
        if byte <= 0x7f {
            return Some(count);
        }
    }
    None
}

/// The run of bytes that a wire begins with.
pub(super) fn run<'a>(wire: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(wire).map(u64::from_le_bytes)?;
    let (run, rest) = wire.split_at_checked(usize::try_from(length).ok()?)?;
    *wire = rest;
    Some(run)
}

pub(super) fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*bytes)
}
