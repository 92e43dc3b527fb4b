//! Where constructs are written to.

use naga::{Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Override, Type};

/// Where a construct is written to: what it says of itself, and what it refers to, apart.
pub(in super::super) trait Target {
    /// Takes what a construct says of itself.
    fn fields<const N: usize>(&mut self, bytes: [u8; N]);

    fn expression(&mut self, handle: Handle<Expression>);
    fn ty(&mut self, handle: Handle<Type>);
    fn constant(&mut self, handle: Handle<Constant>);
    fn override_(&mut self, handle: Handle<Override>);
    fn global(&mut self, handle: Handle<GlobalVariable>);
    fn local(&mut self, handle: Handle<LocalVariable>);
    fn function(&mut self, handle: Handle<Function>);

    /// Takes an expression that a statement defines. It comes after all that the statement uses.
    #[inline]
    fn definition(&mut self, handle: Handle<Expression>) {
        self.expression(handle);
    }

    /// Takes a name. What drops names overrides it.
    fn name(&mut self, name: Option<&str>) {
        self.bool(name.is_some());
        if let Some(name) = name {
            self.text(name);
        }
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        text.bytes().for_each(|byte| self.u8(byte));
    }

    /// Takes a length: seven bits a byte, the low ones first, the last byte below 128.
    #[inline]
    fn count(&mut self, count: usize) {
        let mut rest = count;
        while rest > 0x7f {
            self.u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.u8(rest as u8);
    }

    #[inline(always)]
    fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    #[inline(always)]
    fn u8(&mut self, value: u8) {
        self.fields([value]);
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.fields(value.to_le_bytes());
    }
}

/// Keeps nothing, and names the expressions that it sees, and whether each is defined here.
pub(in super::super) struct Listing<F>(pub(in super::super) F);

/// References that are not looked at.
macro_rules! unseen {
    ($($name:ident: $type:ident,)+) => {
        $(#[inline]
        fn $name(&mut self, _: Handle<$type>) {})+
    };
}

impl<F: FnMut(Handle<Expression>, bool)> Target for Listing<F> {
    #[inline]
    fn fields<const N: usize>(&mut self, _: [u8; N]) {}

    #[inline]
    fn expression(&mut self, handle: Handle<Expression>) {
        (self.0)(handle, false);
    }

    #[inline]
    fn definition(&mut self, handle: Handle<Expression>) {
        (self.0)(handle, true);
    }

    #[inline]
    fn count(&mut self, _: usize) {}

    unseen! {
        ty: Type,
        constant: Constant,
        override_: Override,
        global: GlobalVariable,
        local: LocalVariable,
        function: Function,
    }
}

/// A part of the wire in the making: what it says, and beside it what it refers to, by index.
#[derive(Default)]
pub(in super::super) struct Part {
    pub(in super::super) fields: Vec<u8>,
    references: Vec<u8>,
}

impl Part {
    pub(in super::super) fn clear(&mut self) {
        let Self { fields, references } = self;
        fields.clear();
        references.clear();
    }

    /// How many bytes there is room for.
    pub(in super::super) fn capacity(&self) -> usize {
        self.fields.capacity().max(self.references.capacity())
    }

    /// Takes an index as [lengths](Target::count) are taken: most are small.
    #[inline]
    pub(in super::super) fn reference(&mut self, index: u32) {
        let [low, high] = [index as u8 | 0x80, (index >> 7) as u8];
        if index < 1 << 7 {
            self.references.push(low & 0x7f);
        } else if index < 1 << 14 {
            self.references.extend_from_slice(&[low, high]);
        } else {
            self.large_reference(index);
        }
    }

    #[cold]
    fn large_reference(&mut self, index: u32) {
        let mut rest = index;
        while rest > 0x7f {
            self.references.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.references.push(rest as u8);
    }

    pub(in super::super) fn optional(&mut self, reference: Option<u32>) {
        self.bool(reference.is_some());
        if let Some(index) = reference {
            self.reference(index);
        }
    }

    /// Fills in four bytes that were left open at a place.
    pub(in super::super) fn fill_in(&mut self, place: usize, value: u32) {
        if let Some(open) = self.fields.get_mut(place..place + size_of_val(&value)) {
            open.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Writes parts as one, with the lengths of both of its runs.
pub(in super::super) fn frame(parts: &[&Part], wire: &mut Vec<u8>) {
    let runs: [fn(&Part) -> &Vec<u8>; 2] = [|part| &part.fields, |part| &part.references];
    for run in runs {
        let length: usize = parts.iter().map(|part| run(part).len()).sum();
        wire.extend_from_slice(&(length as u64).to_le_bytes());
        parts
            .iter()
            .for_each(|part| wire.extend_from_slice(run(part)));
    }
}

macro_rules! by_index {
    ($($name:ident: $type:ident,)+) => {
        $(#[inline]
        fn $name(&mut self, handle: Handle<$type>) {
            // An arena holds at most `u32::MAX` items, so that the index always fits.
            self.reference(handle.index() as u32);
        })+
    };
}

impl Target for Part {
    #[inline]
    fn fields<const N: usize>(&mut self, bytes: [u8; N]) {
        self.fields.extend_from_slice(&bytes);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.fields.extend_from_slice(text.as_bytes());
    }

    by_index! {
        expression: Expression,
        ty: Type,
        constant: Constant,
        override_: Override,
        global: GlobalVariable,
        local: LocalVariable,
        function: Function,
    }
}
