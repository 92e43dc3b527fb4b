//! What stands on the wire, written and read.
//!
//! The tables beside this file list each construct once. The macro here makes its writer and its
//! reader. Their patterns name all variants and all fields, so that a new one upstream fails to
//! compile instead of being left out of the key.

use std::hash::Hash;
use std::num::NonZeroU32;

use naga::{
    Arena, Constant, Expression, FastIndexMap, Function, GlobalVariable, Handle, LocalVariable,
    Override, Span, Type, UniqueArena,
};

use super::reader::Reader;
use super::target::Target;

/// A construct of the IR.
pub(in super::super) trait Construct: Sized {
    fn write(&self, to: &mut impl Target);

    /// Writes whether there is one, and then the one there is.
    #[inline]
    fn write_optional(optional: Option<&Self>, to: &mut impl Target) {
        to.bool(optional.is_some());
        if let Some(some) = optional {
            some.write(to);
        }
    }

    /// Reads back what was written.
    fn read(from: &mut Reader<'_>) -> Option<Self>;
}

/// What a statement defines.
pub(super) trait Definition {
    fn define(&self, to: &mut impl Target);
}

impl Definition for Handle<Expression> {
    #[inline]
    fn define(&self, to: &mut impl Target) {
        to.definition(*self);
    }
}

impl Definition for Option<Handle<Expression>> {
    #[inline]
    fn define(&self, to: &mut impl Target) {
        to.bool(self.is_some());
        if let Some(handle) = *self {
            to.definition(handle);
        }
    }
}

/// Constructs: each field in the order of the wire, and in front of each variant its tag. What
/// stands behind a semicolon is what a statement defines.
macro_rules! constructs {
    () => {};
    (struct $name:ident { $($field:ident),* } $($rest:tt)*) => {
        impl Construct for $name {
            #[inline]
            fn write(&self, to: &mut impl Target) {
                let Self { $($field),* } = self;
                $($field.write(to);)*
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                $(let $field = Construct::read(from)?;)*
                Some(Self { $($field),* })
            }
        }
        constructs! { $($rest)* }
    };
    (
        enum $name:ident {
            $(
                $tag:tt $variant:ident
                $(($inner:ident))?
                $({ $($field:ident),* $(; $result:ident)? })?,
            )*
        }
        $($rest:tt)*
    ) => {
        impl Construct for $name {
            // What is written by a constant is a constant only where it is inlined.
            #[inline(always)]
            fn write(&self, to: &mut impl Target) {
                match self {
                    $(Self::$variant $(($inner))? $({ $($field,)* $($result)? })? => {
                        to.u8($tag);
                        $($inner.write(to);)?
                        $($($field.write(to);)* $($result.define(to);)?)?
                    })*
                }
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                Some(match from.u8()? {
                    $($tag => {
                        $(let $inner = Construct::read(from)?;)?
                        $($(let $field = Construct::read(from)?;)*
                        $(let $result = Construct::read(from)?;)?)?
                        Self::$variant $(($inner))? $({ $($field,)* $($result)? })?
                    })*
                    _ => return None,
                })
            }
        }
        constructs! { $($rest)* }
    };
}
pub(super) use constructs;

macro_rules! handles {
    ($($item:ident: $name:ident of $pool:ident,)*) => {
        $(impl Construct for Handle<$item> {
            #[inline]
            fn write(&self, to: &mut impl Target) {
                to.$name(*self);
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                from.reference(|handles| &handles.$pool)
            }
        })*
    };
}
handles! {
    Type: ty of types,
    Constant: constant of constants,
    Override: override_ of overrides,
    GlobalVariable: global of globals,
    LocalVariable: local of locals,
    Function: function of functions,
    Expression: expression of expressions,
}

/// Numbers, little-endian; floats by their bits: `-0.0` is not `0.0`, and every NaN is its own.
macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Construct for $number {
            #[inline]
            fn write(&self, to: &mut impl Target) {
                to.fields(self.to_le_bytes());
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                from.fields().map(Self::from_le_bytes)
            }
        })*
    };
}
numbers!(u8 u16 u32 u64 i16 i32 i64 f32 f64);

impl Construct for bool {
    #[inline]
    fn write(&self, to: &mut impl Target) {
        to.bool(*self);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        from.bool()
    }
}

impl Construct for NonZeroU32 {
    #[inline]
    fn write(&self, to: &mut impl Target) {
        self.get().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Self::new(u32::read(from)?)
    }
}

impl Construct for String {
    fn write(&self, to: &mut impl Target) {
        to.text(self);
    }

    /// An optional text is a name.
    #[inline]
    fn write_optional(optional: Option<&Self>, to: &mut impl Target) {
        to.name(optional.map(Self::as_str));
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        from.text()
    }
}

macro_rules! flags {
    ($($flags:ty: $bits:ty,)*) => {
        $(impl Construct for $flags {
            #[inline]
            fn write(&self, to: &mut impl Target) {
                self.bits().write(to);
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                Self::from_bits(<$bits>::read(from)?)
            }
        })*
    };
}
flags! {
    naga::StorageAccess: u32,
    naga::MemoryDecorations: u8,
    naga::Barrier: u32,
}

impl<T: Construct> Construct for Option<T> {
    #[inline]
    fn write(&self, to: &mut impl Target) {
        T::write_optional(self.as_ref(), to);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(if from.bool()? {
            Some(T::read(from)?)
        } else {
            None
        })
    }
}

impl<T: Construct, const N: usize> Construct for [T; N] {
    fn write(&self, to: &mut impl Target) {
        self.iter().for_each(|item| item.write(to));
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let items: Option<Vec<T>> = (0..N).map(|_| T::read(from)).collect();
        items?.try_into().ok()
    }
}

impl<T: Construct> Construct for Vec<T> {
    #[inline]
    fn write(&self, to: &mut impl Target) {
        to.count(self.len());
        self.iter().for_each(|item| item.write(to));
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let count = from.count()?;
        (0..count).map(|_| T::read(from)).collect()
    }
}

/// Without their number, which whoever reads them knows.
pub(super) fn write_arena<T: Construct>(arena: &Arena<T>, to: &mut impl Target) {
    arena.iter().for_each(|(_, item)| item.write(to));
}

pub(super) fn read_arena<T: Construct>(from: &mut Reader<'_>, count: usize) -> Option<Arena<T>> {
    let mut arena = Arena::new();
    for _ in 0..count {
        arena.append(T::read(from)?, Span::UNDEFINED);
    }
    Some(arena)
}

pub(super) fn read_unique_arena<T: Construct + Eq + Hash>(
    from: &mut Reader<'_>,
    count: usize,
) -> Option<UniqueArena<T>> {
    let mut arena = UniqueArena::new();
    for _ in 0..count {
        arena.insert(T::read(from)?, Span::UNDEFINED);
    }
    Some(arena)
}

impl<K: Construct + Eq + Hash, V: Construct> Construct for FastIndexMap<K, V> {
    fn write(&self, to: &mut impl Target) {
        to.count(self.len());
        for (key, value) in self {
            key.write(to);
            value.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let count = from.count()?;
        (0..count)
            .map(|_| Some((K::read(from)?, V::read(from)?)))
            .collect()
    }
}
