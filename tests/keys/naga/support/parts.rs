//! What naga's IR is made of, as something that can be read from the wire and changed bit by bit.
//!
//! The grammar beside this file lists every construct with its fields; the macros here turn the
//! list into a reader of the wire and into a generator of changes. Their patterns name all variants
//! and all fields, so that a new one upstream fails to compile.

use std::collections::BTreeSet;
use std::fmt::Debug;

use naga::{Arena, Block, Expression, FastIndexMap, Handle, Literal, Range, Span, UniqueArena};

use super::grammar::Pooled;

/// Reads a part of a wire: what it says, and what it refers to. What it does not expect is a panic.
pub(crate) struct Reader<'a> {
    pub(crate) fields: &'a [u8],
    pub(crate) references: &'a [u8],
}

impl Reader<'_> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        take(&mut self.fields)
    }

    pub(crate) fn reference(&mut self) -> usize {
        count(&mut self.references)
    }

    pub(crate) fn count(&mut self) -> usize {
        count(&mut self.fields)
    }

    pub(crate) fn text(&mut self) -> String {
        let count = self.count();
        let (text, rest) = self.fields.split_at(count);
        let text = String::from_utf8(text.to_vec()).unwrap();
        self.fields = rest;
        text
    }
}

/// Seven bits a byte, the low ones first, the last byte below 128.
fn count(from: &mut &[u8]) -> usize {
    let mut count = 0;
    for shift in (0..).step_by(7) {
        let [byte] = take(from);
        count |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    count
}

fn take<const N: usize>(from: &mut &[u8]) -> [u8; N] {
    let (bytes, rest) = from.split_first_chunk().expect("the wire ends early");
    *from = rest;
    *bytes
}

/// One change, by the field that it is made to, and its result.
pub(crate) type Change<T> = (String, T);

pub(crate) trait Part: Clone + Debug {
    fn read(wire: &mut Reader<'_>) -> Self;

    /// Makes one of each variant.
    fn variants() -> Vec<fn() -> Self>;

    /// One of the first variant.
    fn sample() -> Self {
        Self::variants()[0]()
    }

    /// One of each variant.
    fn samples() -> Vec<Self> {
        Self::variants().iter().map(|make| make()).collect()
    }

    /// This with one field changed, for each field and each of several changes.
    fn fields(&self) -> Vec<Change<Self>>;

    /// The same, and every other variant with its fields changed.
    fn changes(&self) -> Vec<Change<Self>> {
        self.fields()
    }

    /// This with every handle in it replaced.
    fn mapped(&self, _: &dyn Handles) -> Self {
        self.clone()
    }
}

/// What a handle points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    Type,
    Constant,
    Override,
    Global,
    Local,
    Function,
    Expression,
}

/// Where handles go, by their index.
pub(crate) trait Handles {
    fn index(&self, arm: Arm, index: usize) -> usize;
}

/// Constructs: each field in the order of the wire, and in front of each variant its tag. What
/// a struct is `without` is not on the wire.
macro_rules! parts {
    () => {};
    (struct $name:ident $(without { $($left:ident),* })? { $($field:ident),* } $($rest:tt)*) => {
        impl Part for $name {
            fn read(wire: &mut Reader<'_>) -> Self {
                Self { $($field: Part::read(wire),)* $($($left: Default::default(),)*)? }
            }

            fn variants() -> Vec<fn() -> Self> {
                vec![|| Self { $($field: Part::sample(),)* $($($left: Default::default(),)*)? }]
            }

            fn fields(&self) -> Vec<Change<Self>> {
                let Self { $($field: _,)* $($($left: _,)*)? } = self;
                let mut changes = Vec::new();
                $(for (at, new) in self.$field.changes() {
                    let mut copy = self.clone();
                    copy.$field = new;
                    changes.push((named(concat!(stringify!($name), ".", stringify!($field)), &at), copy));
                })*
                changes
            }

            fn mapped(&self, handles: &dyn Handles) -> Self {
                Self {
                    $($field: self.$field.mapped(handles),)*
                    $($($left: self.$left.clone(),)*)?
                }
            }
        }
        parts! { $($rest)* }
    };
    (enum $name:ident { $($tag:literal $variant:ident $({ $($field:tt),* })?,)* } $($rest:tt)*) => {
        impl Part for $name {
            fn read(wire: &mut Reader<'_>) -> Self {
                match u8::read(wire) {
                    $($tag => Self::$variant { $($($field: Part::read(wire),)*)? },)*
                    other => panic!("no variant {other} of {}", stringify!($name)),
                }
            }

            fn variants() -> Vec<fn() -> Self> {
                vec![$(|| Self::$variant { $($($field: Part::sample(),)*)? },)*]
            }

            fn fields(&self) -> Vec<Change<Self>> {
                let mut changes = Vec::new();
                match self {
                    $(Self::$variant { $($($field: _,)*)? } => {
                        $($({
                            let name = concat!(stringify!($name), "::", stringify!($variant), ".", stringify!($field));
                            let copy = self.clone();
                            if let Self::$variant { $field: old, .. } = self {
                                for (at, new) in old.changes() {
                                    let mut copy = copy.clone();
                                    if let Self::$variant { $field: place, .. } = &mut copy {
                                        *place = new;
                                    }
                                    changes.push((named(name, &at), copy));
                                }
                            }
                        })*)?
                    })*
                }
                changes
            }

            fn changes(&self) -> Vec<Change<Self>> {
                let mut changes = self.fields();
                for other in Self::samples() {
                    if std::mem::discriminant(&other) != std::mem::discriminant(self) {
                        let fields = other.fields();
                        changes.push((stringify!($name).to_owned(), other));
                        changes.extend(fields);
                    }
                }
                changes
            }

            fn mapped(&self, handles: &dyn Handles) -> Self {
                let mut copy = self.clone();
                match self {
                    $(Self::$variant { $($($field: _,)*)? } => {
                        $($(if let Self::$variant { $field: place, .. } = &mut copy {
                            *place = place.mapped(handles);
                        })*)?
                    })*
                }
                copy
            }
        }
        parts! { $($rest)* }
    };
    (tags $name:ident { $($tag:literal $variant:ident,)* } $($rest:tt)*) => {
        impl Part for $name {
            fn read(wire: &mut Reader<'_>) -> Self {
                match u8::read(wire) {
                    $($tag => Self::$variant,)*
                    other => panic!("no variant {other} of {}", stringify!($name)),
                }
            }

            fn variants() -> Vec<fn() -> Self> {
                vec![$(|| Self::$variant,)*]
            }

            fn fields(&self) -> Vec<Change<Self>> {
                match self {
                    $(Self::$variant => Vec::new(),)*
                }
            }

            fn changes(&self) -> Vec<Change<Self>> {
                plain(self, Self::samples())
            }
        }
        parts! { $($rest)* }
    };
}
pub(crate) use parts;

/// A field and what in it was changed.
pub(crate) fn named(field: &str, inner: &str) -> String {
    if inner.is_empty() {
        field.to_owned()
    } else {
        format!("{field} {inner}")
    }
}

/// Changes of a number or of another value without parts.
pub(crate) fn plain<T: PartialEq>(old: &T, others: impl IntoIterator<Item = T>) -> Vec<Change<T>> {
    let others = others.into_iter().filter(|other| other != old);
    others.map(|other| (String::new(), other)).collect()
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Part for $number {
            fn read(wire: &mut Reader<'_>) -> Self {
                Self::from_le_bytes(wire.bytes())
            }

            fn variants() -> Vec<fn() -> Self> {
                vec![|| 1 as Self]
            }

            fn fields(&self) -> Vec<Change<Self>> {
                let bytes = self.to_le_bytes();
                let flipped = [0x10, 0x80].map(|bit| {
                    let mut bytes = bytes;
                    bytes[size_of::<Self>() - 1] ^= bit;
                    Self::from_le_bytes(bytes)
                });
                let others = [0 as Self, 4 as Self].into_iter().chain(flipped);
                let others = others.filter(|other| other.to_le_bytes() != bytes);
                others.map(|other| (String::new(), other)).collect()
            }
        })*
    };
}
numbers!(u8 u16 u32 u64 i16 i32 i64 f32 f64);

impl Part for bool {
    fn read(wire: &mut Reader<'_>) -> Self {
        match wire.bytes() {
            [0] => false,
            [1] => true,
            [other] => panic!("a bool of {other}"),
        }
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| true]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        plain(self, [true, false])
    }
}

impl Part for std::num::NonZeroU32 {
    fn read(wire: &mut Reader<'_>) -> Self {
        Self::new(u32::read(wire)).unwrap()
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| Self::MIN]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        plain(self, [Self::MIN, Self::MAX, self.saturating_add(1)])
    }
}

impl Part for String {
    fn read(wire: &mut Reader<'_>) -> Self {
        wire.text()
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| "name".to_owned()]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        plain(self, ["x".to_owned(), format!("{self}_"), "é".to_owned()])
    }
}

macro_rules! flags {
    ($($flags:ty: $number:ty,)*) => {
        $(impl Part for $flags {
            fn read(wire: &mut Reader<'_>) -> Self {
                Self::from_bits(<$number>::read(wire)).unwrap()
            }

            fn variants() -> Vec<fn() -> Self> {
                vec![|| Self::from_bits_truncate(1)]
            }

            fn fields(&self) -> Vec<Change<Self>> {
                plain(self, Self::all().iter().map(|flag| *self ^ flag))
            }
        })*
    };
}
flags! {
    naga::StorageAccess: u32,
    naga::MemoryDecorations: u8,
    naga::Barrier: u32,
}

impl<T: Part> Part for Option<T> {
    fn read(wire: &mut Reader<'_>) -> Self {
        bool::read(wire).then(|| T::read(wire))
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| Some(T::sample())]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        let Some(some) = self else {
            return vec![(String::new(), Self::sample())];
        };
        let changes = some.changes().into_iter();
        let mut changes: Vec<_> = changes.map(|(at, new)| (at, Some(new))).collect();
        changes.push((String::new(), None));
        changes
    }

    fn mapped(&self, handles: &dyn Handles) -> Self {
        self.as_ref().map(|some| some.mapped(handles))
    }
}

impl<T: Part, const N: usize> Part for [T; N] {
    fn read(wire: &mut Reader<'_>) -> Self {
        std::array::from_fn(|_| T::read(wire))
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| std::array::from_fn(|_| T::sample())]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        let mut changes = Vec::new();
        for (index, item) in self.iter().enumerate() {
            for (at, new) in item.changes() {
                let mut copy = self.clone();
                copy[index] = new;
                changes.push((at, copy));
            }
        }
        changes
    }

    fn mapped(&self, handles: &dyn Handles) -> Self {
        self.each_ref().map(|item| item.mapped(handles))
    }
}

/// An item changed, all of the others kept; and one item more, one less, two in another order.
/// Items do not turn into other variants: a list in which all are to be changed holds them all.
impl<T: Part> Part for Vec<T> {
    fn read(wire: &mut Reader<'_>) -> Self {
        (0..wire.count()).map(|_| T::read(wire)).collect()
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| vec![T::sample()]]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        let mut changes = Vec::new();
        for (index, item) in self.iter().enumerate() {
            for (at, new) in item.fields() {
                let mut copy = self.clone();
                copy[index] = new;
                changes.push((at, copy));
            }
        }
        let mut longer = self.clone();
        longer.push(T::sample());
        changes.push(("longer".to_owned(), longer));
        if let Some((_, shorter)) = self.split_last() {
            changes.push(("shorter".to_owned(), shorter.to_vec()));
        }
        for index in 1..self.len() {
            if format!("{:?}", self[index - 1]) != format!("{:?}", self[index]) {
                let mut swapped = self.clone();
                swapped.swap(index - 1, index);
                changes.push(("swapped".to_owned(), swapped));
            }
        }
        changes
    }

    fn mapped(&self, handles: &dyn Handles) -> Self {
        self.iter().map(|item| item.mapped(handles)).collect()
    }
}

/// A collection that is on the wire as the list of its items.
macro_rules! lists {
    ($(<$($of:ident: $bound:path),*> $list:ty, $item:ty: $to:expr, $from:expr, $read:expr;)*) => {
        $(impl<$($of: Part + $bound),*> Part for $list {
            fn read(wire: &mut Reader<'_>) -> Self {
                $from($read(wire))
            }

            fn variants() -> Vec<fn() -> Self> {
                vec![|| $from(Vec::sample())]
            }

            fn fields(&self) -> Vec<Change<Self>> {
                let items: Vec<$item> = $to(self);
                let changes = items.fields().into_iter();
                let changes = changes.map(|(at, new)| (at, new.len(), $from(new)));
                // What holds an item once can come out shorter: that is another change.
                let whole = changes.filter(|(_, count, list): &(_, _, Self)| *count == list.len());
                whole.map(|(at, _, list)| (at, list)).collect()
            }

            fn mapped(&self, handles: &dyn Handles) -> Self {
                let items: Vec<$item> = $to(self);
                $from(items.mapped(handles))
            }
        })*
    };
}
lists! {
    <T: Sized> Arena<T>, T: |arena: &Self| arena.iter().map(|(_, item)| item.clone()).collect(), arena, Vec::read;
    <T: Unique> UniqueArena<T>, T: |arena: &Self| arena.iter().map(|(_, item)| item.clone()).collect(), unique_arena, Vec::read;
    <K: Unique, V: Sized> FastIndexMap<K, V>, (K, V): |map: &Self| map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(), FastIndexMap::from_iter, Vec::read;
    <> Block, naga::Statement: |block: &Self| block.iter().cloned().collect(), Block::from_vec, |wire: &mut Reader<'_>| {
        (0..u32::read(wire)).map(|_| Part::read(wire)).collect()
    };
}

/// What can be found among its likes.
pub(crate) trait Unique: Eq + std::hash::Hash {}
impl<T: Eq + std::hash::Hash> Unique for T {}

fn arena<T>(items: Vec<T>) -> Arena<T> {
    let mut arena = Arena::new();
    for item in items {
        arena.append(item, Span::UNDEFINED);
    }
    arena
}

fn unique_arena<T: Unique>(items: Vec<T>) -> UniqueArena<T> {
    let mut arena = UniqueArena::new();
    for item in items {
        arena.insert(item, Span::UNDEFINED);
    }
    arena
}

impl<K: Part, V: Part> Part for (K, V) {
    fn read(wire: &mut Reader<'_>) -> Self {
        (K::read(wire), V::read(wire))
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| (K::sample(), V::sample())]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        let (key, value) = self;
        let keys = key.changes().into_iter();
        let mut changes: Vec<_> = keys.map(|(at, new)| (at, (new, value.clone()))).collect();
        let values = value.changes().into_iter();
        changes.extend(values.map(|(at, new)| (at, (key.clone(), new))));
        changes
    }

    fn mapped(&self, handles: &dyn Handles) -> Self {
        (self.0.mapped(handles), self.1.mapped(handles))
    }
}

/// The handles of one arena, by their index.
pub(crate) fn pool<T: Clone>(item: T, count: usize) -> Vec<Handle<T>> {
    let mut arena = Arena::new();
    let append = |_| arena.append(item.clone(), Span::UNDEFINED);
    (0..count).map(append).collect()
}

impl<T: Pooled> Part for Handle<T> {
    fn read(wire: &mut Reader<'_>) -> Self {
        T::pool()[wire.reference()]
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| T::pool()[1]]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        let index = self.index();
        let others = [0, index.saturating_sub(1), index + 1, index + 256];
        let others: BTreeSet<_> = others.into_iter().collect();
        plain(self, others.into_iter().map(|index| T::pool()[index]))
    }

    fn mapped(&self, handles: &dyn Handles) -> Self {
        T::pool()[handles.index(T::ARM, self.index())]
    }
}

impl Part for Range<Expression> {
    fn read(wire: &mut Reader<'_>) -> Self {
        match Option::<(Handle<Expression>, Handle<Expression>)>::read(wire) {
            Some((first, last)) => Self::new_from_bounds(first, last),
            None => Self::from_index_range(0..0, &Arena::new()),
        }
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| Self::new_from_bounds(Handle::sample(), Handle::sample())]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        let bounds = self.first_and_last();
        let changes = bounds.fields().into_iter();
        let ordered = changes.filter_map(|(at, bounds)| match bounds {
            Some((first, last)) if first.index() > last.index() => None,
            Some((first, last)) => Some((at, Self::new_from_bounds(first, last))),
            None => Some((at, Self::from_index_range(0..0, &Arena::new()))),
        });
        ordered.collect()
    }

    fn mapped(&self, handles: &dyn Handles) -> Self {
        match self.first_and_last().mapped(handles) {
            Some((first, last)) => Self::new_from_bounds(first, last),
            None => self.clone(),
        }
    }
}

/// By hand, since naga does not name its type of half floats: they are read as text.
macro_rules! literals {
    ($($tag:literal $variant:ident($bits:ty) $value:ident => $to:expr, $raw:ident => $from:expr;)*) => {
        impl Part for Literal {
            fn read(wire: &mut Reader<'_>) -> Self {
                match u8::read(wire) {
                    $($tag => {
                        let $raw = <$bits>::read(wire);
                        Self::$variant($from)
                    })*
                    other => panic!("no literal {other}"),
                }
            }

            fn variants() -> Vec<fn() -> Self> {
                vec![$(|| {
                    let $raw = <$bits>::sample();
                    Self::$variant($from)
                },)*]
            }

            fn fields(&self) -> Vec<Change<Self>> {
                match *self {
                    $(Self::$variant($value) => {
                        let changes = <$bits>::fields(&$to).into_iter();
                        let name = concat!("Literal::", stringify!($variant));
                        let changes = changes.map(|(_, $raw)| (name.to_owned(), Self::$variant($from)));
                        changes.collect()
                    })*
                }
            }

            fn changes(&self) -> Vec<Change<Self>> {
                let mut changes = self.fields();
                for other in Self::samples() {
                    if std::mem::discriminant(&other) != std::mem::discriminant(self) {
                        changes.push(("Literal".to_owned(), other));
                        changes.extend(other.fields());
                    }
                }
                changes
            }
        }
    };
}
literals! {
    1 F32(f32) value => value, raw => raw;
    0 F64(f64) value => value, raw => raw;
    2 F16(u16) value => value.to_bits(), raw => half(raw).to_string().parse().unwrap();
    3 U16(u16) value => value, raw => raw;
    4 I16(i16) value => value, raw => raw;
    5 U32(u32) value => value, raw => raw;
    6 I32(i32) value => value, raw => raw;
    7 U64(u64) value => value, raw => raw;
    8 I64(i64) value => value, raw => raw;
    9 Bool(bool) value => value, raw => raw;
    10 AbstractInt(i64) value => value, raw => raw;
    11 AbstractFloat(f64) value => value, raw => raw;
}

/// The value of a finite half float.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    match exponent {
        0 => sign * fraction * 2f32.powi(-14),
        exponent => sign * (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}
