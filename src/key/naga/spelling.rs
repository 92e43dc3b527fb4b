//! The one spelling of a value, by the values that it is computed from.

use naga::{Expression, Handle, Literal, Type, TypeInner, UnaryOperator};

use super::context::Context;
use super::rebase::Rebased;
use super::rules;
use super::values::{FOLLOWS, Value, Values};

impl Values {
    /// The one spelling of a value, where it is another than the source's.
    pub(super) fn rewritten(
        &self,
        context: Context<'_>,
        source: &Expression,
    ) -> Rebased<Option<Expression>> {
        let (op, left, right) = match *source {
            Expression::Binary { op, left, right } => (op, left, right),
            Expression::Unary {
                op: UnaryOperator::LogicalNot,
                expr,
            } => return self.negated(context, expr),
            Expression::Compose { ty, ref components } => {
                return Self::splat(context, ty, components, |operand| self.of(operand));
            }
            // An expression without a rule is its own one spelling, whatever it is.
            _ => return Ok(rules::rewritten(source)),
        };
        let [one, two] = [left, right].map(|operand| self.of(operand).ok_or(FOLLOWS));
        let (one, two) = (one?, two?);
        if let [Some(one), Some(two)] = [one, two].map(|value| self.literal(context, value)) {
            if let Some(value) = rules::exact_value(op, one, two) {
                return Ok(Some(Expression::Literal(value)));
            }
        }
        let (turned, is_turned) = rules::turned(op);
        let is_swapped = is_turned
            || rules::is_commutative(op)
                && one != two
                && is_exact(context, left, right)
                && self.compare(context, two, one)?;
        Ok(is_swapped.then_some(Expression::Binary {
            op: turned,
            left: right,
            right: left,
        }))
    }

    /// The comparison that holds where one of integers or booleans does not.
    fn negated(
        &self,
        context: Context<'_>,
        comparison: Handle<Expression>,
    ) -> Rebased<Option<Expression>> {
        let comparison = self.of(comparison).ok_or(FOLLOWS)?;
        let origin = self.origin(comparison);
        let Expression::Binary { op, left, right } = *self.expression(context, origin) else {
            return Ok(None);
        };
        // The operands of a constant are not among the function's expressions.
        if origin.is_constant() || !is_exact(context, left, right) {
            return Ok(None);
        }
        Ok(rules::negated(op).map(|(op, is_turned)| {
            let (left, right) = if is_turned {
                (right, left)
            } else {
                (left, right)
            };
            Expression::Binary { op, left, right }
        }))
    }

    fn literal(&self, context: Context<'_>, value: Value) -> Option<Literal> {
        match *self.expression(context, self.origin(value)) {
            Expression::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    /// A vector of equal components, by its one component.
    pub(super) fn splat(
        context: Context<'_>,
        ty: Handle<Type>,
        components: &[Handle<Expression>],
        of: impl Fn(Handle<Expression>) -> Option<Value>,
    ) -> Rebased<Option<Expression>> {
        let TypeInner::Vector { size, scalar: _ } = context.module.types[ty].inner else {
            return Ok(None);
        };
        // As many components as the vector has are scalars, each of them.
        let [value, rest @ ..] = components else {
            return Ok(None);
        };
        if components.len() != size as usize {
            return Ok(None);
        }
        let first = of(*value).ok_or(FOLLOWS)?;
        for component in rest {
            if of(*component).ok_or(FOLLOWS)? != first {
                return Ok(None);
            }
        }
        let value = *value;
        Ok(Some(Expression::Splat { size, value }))
    }
}

/// Whether the operands may change places, as far as their types tell.
fn is_exact(context: Context<'_>, left: Handle<Expression>, right: Handle<Expression>) -> bool {
    let inner =
        |handle: Handle<Expression>| context.info[handle].ty.inner_with(&context.module.types);
    rules::is_exact(inner(left)) && inner(left) == inner(right)
}
