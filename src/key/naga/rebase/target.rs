//! Where the references of a construct go.

use naga::{Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Override, Type};

use super::refusal::Rebased;

/// Where the references of a construct go.
///
/// Operands are asked for in the order in which the construct lists them, and what a statement
/// defines after all that it uses.
pub(in super::super) trait Rebase {
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

/// Translates nothing, and names the expressions that it sees, and whether each is defined here.
pub(in super::super) struct Listing<F>(pub(in super::super) F);

impl<F: FnMut(Handle<Expression>, bool)> Rebase for Listing<F> {
    fn operand(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        (self.0)(handle, false);
        Ok(handle)
    }

    fn definition(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        (self.0)(handle, true);
        Ok(handle)
    }

    keep_items!();
}
