//! The one spelling of a value, by the values that it is computed from.

use naga::{BinaryOperator, Expression, Handle, Literal, TypeInner, UnaryOperator};

use super::{Value, Values};
use crate::key::naga::context::Context;
use crate::key::naga::rebase::Rebased;
use crate::key::naga::rules;

impl Values {
    /// The value of an expression of the function that has another spelling.
    pub(super) fn spelled_otherwise(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        expression: &Expression,
        operands: &[Value],
    ) -> Rebased<Option<Value>> {
        let typed = Some(source);
        match (expression, operands) {
            (&Expression::Binary { op, left, right }, &[one, two]) => {
                self.binary(context, source, (op, left, right), [one, two])
            }
            (
                &Expression::Unary {
                    op: UnaryOperator::LogicalNot,
                    expr: _,
                },
                &[of],
            ) => self.negated(context, source, of),
            (
                &Expression::Swizzle {
                    size,
                    vector: _,
                    pattern,
                },
                &[vector],
            ) => self.swizzle(context, source, (size, pattern), vector),
            (&Expression::AccessIndex { base: _, index }, &[base]) => {
                self.component(context, source, base, index)
            }
            (
                &Expression::As {
                    expr: _,
                    kind,
                    convert,
                },
                &[of],
            ) => {
                let scalar = self.ty(context, of).and_then(TypeInner::scalar);
                let is_same = scalar.is_some_and(|scalar| {
                    scalar.kind == kind && convert.is_none_or(|width| width == scalar.width)
                });
                let literal = self.literal(context, of).filter(|_| !is_same);
                match convert.and_then(|width| rules::converted(literal?, kind, width)) {
                    Some(value) => {
                        let value = Expression::Literal(value);
                        self.rewritten(context, value, &[], typed).map(Some)
                    }
                    None => Ok(is_same.then_some(of)),
                }
            }
            (&Expression::Compose { ty, components: _ }, _) => {
                match self.composed(context, (ty, source), operands, typed)? {
                    Some(value) => Ok(Some(value)),
                    None => self.taken(context, (ty, source), operands),
                }
            }
            (&Expression::ZeroValue(ty), []) => self.zero(context, (ty, source), typed),
            // An expression without a rule is its own one spelling, whatever it is.
            _ => Ok(None),
        }
    }

    /// The value of a constant expression of the module that has another spelling.
    pub(super) fn constant_otherwise(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        expression: &Expression,
        operands: &[Value],
    ) -> Rebased<Option<Value>> {
        match *expression {
            Expression::Compose { ty, components: _ } => {
                self.composed(context, (ty, source), operands, None)
            }
            Expression::ZeroValue(ty) => self.zero(context, (ty, source), None),
            _ => Ok(None),
        }
    }

    pub(super) fn binary(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        (op, left, right): (BinaryOperator, Handle<Expression>, Handle<Expression>),
        [one, two]: [Value; 2],
    ) -> Rebased<Option<Value>> {
        if let [Some(one), Some(two)] = [one, two].map(|value| self.literal(context, value)) {
            if let Some(value) = rules::exact_value(op, one, two) {
                let value = Expression::Literal(value);
                return self.rewritten(context, value, &[], Some(source)).map(Some);
            }
        }
        if let Some(holds) = rules::equality(op) {
            for (one, two) in [(one, two), (two, one)] {
                let Some(literal) = self.truth(context, two) else {
                    continue;
                };
                if literal == holds {
                    return Ok(Some(one));
                }
                return self.not(context, source, one).map(Some);
            }
        }
        let (turned, is_turned) = rules::turned(op);
        let is_swapped = is_turned
            || rules::is_commutative(op)
                && one != two
                && self.is_exact(context, one, two)
                && self.compare(context, two, one)?;
        if !is_swapped {
            return Ok(None);
        }
        let turned = Expression::Binary {
            op: turned,
            left: right,
            right: left,
        };
        self.rewritten(context, turned, &[two, one], Some(source))
            .map(Some)
    }

    /// What holds where a value does not.
    pub(super) fn not(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        of: Value,
    ) -> Rebased<Value> {
        if let Some(value) = self.negated(context, source, of)? {
            return Ok(value);
        }
        let not = Expression::Unary {
            op: UnaryOperator::LogicalNot,
            expr: source,
        };
        self.rewritten(context, not, &[of], Some(source))
    }

    /// What holds where a value does not, if that is no negation.
    fn negated(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        of: Value,
    ) -> Rebased<Option<Value>> {
        let operands = (self.operand(of, 0), self.operand(of, 1));
        match (self.expression(context, self.origin(of)), operands) {
            (
                Expression::Unary {
                    op: UnaryOperator::LogicalNot,
                    expr: _,
                },
                (operand, None),
            ) => Ok(operand),
            (&Expression::Literal(Literal::Bool(value)), (None, None)) => {
                let value = Expression::Literal(Literal::Bool(!value));
                self.rewritten(context, value, &[], Some(source)).map(Some)
            }
            (&Expression::Binary { op, left, right }, (Some(one), Some(two))) => {
                let Some((op, is_turned)) = rules::negated(op) else {
                    return Ok(None);
                };
                if !self.is_exact(context, one, two) {
                    return Ok(None);
                }
                let (operands, left, right) = if is_turned {
                    ([two, one], right, left)
                } else {
                    ([one, two], left, right)
                };
                let comparison = Expression::Binary { op, left, right };
                self.rewritten(context, comparison, &operands, Some(source))
                    .map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The literal that a boolean is, or all components of a vector of them.
    fn truth(&self, context: &Context<'_>, value: Value) -> Option<bool> {
        let value = self.splatted(context, value).unwrap_or(value);
        match self.literal(context, value)? {
            Literal::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(in super::super) fn literal(&self, context: &Context<'_>, value: Value) -> Option<Literal> {
        match *self.expression(context, self.origin(value)) {
            Expression::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    pub(super) fn operand(&self, value: Value, number: usize) -> Option<Value> {
        self.operands(value).nth(number)
    }

    /// Whether two values are of one type of integers or booleans.
    fn is_exact(&self, context: &Context<'_>, one: Value, two: Value) -> bool {
        let [one, two] = [one, two].map(|value| self.ty(context, value));
        one == two && one.is_some_and(rules::is_exact)
    }
}
