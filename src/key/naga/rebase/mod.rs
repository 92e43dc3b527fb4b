//! One construct copied from one module to another, with every reference translated.
//!
//! Each pattern names all variants and all fields, so that a new one upstream fails to compile
//! here instead of being carried over with a stale reference.

mod expression;
mod statement;

pub(super) use expression::expression;
pub(super) use statement::{Leaf, Shape, shape};

use naga::{Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Override, Type};

use crate::key::Unkeyable;

/// The result of a translation.
pub(super) type Rebased<T> = Result<T, Unkeyable>;

/// Where the references of a construct go.
///
/// Operands are asked for in the order in which the construct lists them, and what a statement
/// defines after all that it uses.
pub(super) trait Rebase {
    fn operand(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>>;
    fn definition(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>>;
    fn ty(&mut self, handle: Handle<Type>) -> Rebased<Handle<Type>>;
    fn constant(&mut self, handle: Handle<Constant>) -> Rebased<Handle<Constant>>;
    fn override_(&mut self, handle: Handle<Override>) -> Rebased<Handle<Override>>;
    fn global(&mut self, handle: Handle<GlobalVariable>) -> Rebased<Handle<GlobalVariable>>;
    fn local(&mut self, handle: Handle<LocalVariable>) -> Rebased<Handle<LocalVariable>>;
    fn function(&mut self, handle: Handle<Function>) -> Rebased<Handle<Function>>;

    fn optional(
        &mut self,
        handle: Option<Handle<Expression>>,
    ) -> Rebased<Option<Handle<Expression>>> {
        handle.map(|handle| self.operand(handle)).transpose()
    }
}

type Handles = Vec<Handle<Expression>>;

/// Everything that is no expression keeps its handle.
macro_rules! keep_items {
    () => {
        keep_items! {
            ty: Type,
            constant: Constant,
            override_: Override,
            global: GlobalVariable,
            local: LocalVariable,
            function: Function,
        }
    };
    ($($name:ident: $type:ident,)+) => {
        $(fn $name(&mut self, handle: Handle<$type>) -> Rebased<Handle<$type>> {
            Ok(handle)
        })+
    };
}

/// Translates operands alone.
pub(super) struct Operands<F>(pub(super) F);

impl<F> Rebase for Operands<F>
where
    F: FnMut(Handle<Expression>) -> Rebased<Handle<Expression>>,
{
    fn operand(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        (self.0)(handle)
    }

    fn definition(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        Ok(handle)
    }

    keep_items!();
}

/// Translates nothing, and lists the expressions that it sees.
#[derive(Default)]
struct Listing {
    uses: Handles,
    definitions: Handles,
}

impl Rebase for Listing {
    fn operand(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        self.uses.push(handle);
        Ok(handle)
    }

    fn definition(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        self.definitions.push(handle);
        Ok(handle)
    }

    keep_items!();
}

/// The operands of an expression, in order.
pub(super) fn operands(source: &Expression) -> Handles {
    let mut listing = Listing::default();
    // A listing refuses no handle.
    let _ = expression(&mut listing, source);
    listing.uses
}
