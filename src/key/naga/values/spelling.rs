//! The one spelling of a value, by the values that it is computed from.

use naga::{
    BinaryOperator, Expression, Handle, Literal, Scalar, ScalarKind, TypeInner, UnaryOperator,
};

use super::{FOLLOWS, Value, Values};
use crate::key::naga::context::Context;
use crate::key::naga::rebase::Rebased;
use crate::key::naga::rules;
use crate::key::naga::wire::tag;

impl Values {
    /// The value of an expression of the function that has another spelling.
    pub(super) fn spelled_otherwise(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        expression: &Expression,
    ) -> Rebased<Option<Value>> {
        match *expression {
            Expression::Binary { op, left, right } => {
                let operands = [self.known(left)?, self.known(right)?];
                self.binary(context, source, (op, left, right), operands)
            }
            Expression::Load { pointer: _ } => {
                if self.settled.is_read(source) {
                    self.settled_value(context, source).map(Some)
                } else {
                    Ok(None)
                }
            }
            Expression::Constant(constant) => self.use_of_constant(context, constant),
            Expression::AccessIndex { base, index } => {
                let base = self.known(base)?;
                self.component(context, source, base, index)
            }
            Expression::Unary {
                op: UnaryOperator::LogicalNot,
                expr,
            } => {
                let of = self.known(expr)?;
                self.negated(context, source, of)
            }
            Expression::Swizzle {
                size,
                vector,
                pattern,
            } => {
                let vector = self.known(vector)?;
                self.swizzle(context, source, (size, pattern), vector)
            }
            Expression::As {
                expr,
                kind,
                convert,
            } => {
                let of = self.known(expr)?;
                self.converted(context, source, (kind, convert), of)
            }
            Expression::Compose { ty, ref components } => {
                let mut parts = std::mem::take(&mut self.operands);
                parts.clear();
                for component in components {
                    parts.push(self.known(*component)?);
                }
                let value = match self.composed(context, (ty, source), &parts, Some(source))? {
                    Some(value) => Some(value),
                    None => self.taken(context, (ty, source), &parts)?,
                };
                self.operands = parts;
                Ok(value)
            }
            Expression::ZeroValue(ty) => self.zero(context, (ty, source), Some(source)),
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

    /// A value of another scalar type.
    fn converted(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        (kind, convert): (ScalarKind, Option<u8>),
        of: Value,
    ) -> Rebased<Option<Value>> {
        let scalar = self.ty(context, of).and_then(TypeInner::scalar);
        let is_integer = |kind| matches!(kind, ScalarKind::Sint | ScalarKind::Uint);
        // A `bitcast` between integers is a conversion, which keeps the bits at one width.
        let width = convert.or_else(|| {
            let scalar = scalar.filter(|scalar| is_integer(kind) && is_integer(scalar.kind));
            scalar.map(|scalar| scalar.width)
        });
        let is_same =
            |scalar: Scalar| scalar.kind == kind && width.is_none_or(|width| width == scalar.width);
        if scalar.is_some_and(is_same) {
            return Ok(Some(of));
        }
        let literal = self.literal(context, of);
        if let Some(value) = width.and_then(|width| rules::converted(literal?, kind, width)) {
            let value = Expression::Literal(value);
            return self.rewritten(context, value, &[], Some(source)).map(Some);
        }
        if width == convert {
            return Ok(None);
        }
        let conversion = Expression::As {
            expr: source,
            kind,
            convert: width,
        };
        self.rewritten(context, conversion, &[of], Some(source))
            .map(Some)
    }

    fn binary(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        (op, left, right): (BinaryOperator, Handle<Expression>, Handle<Expression>),
        [one, two]: [Value; 2],
    ) -> Rebased<Option<Value>> {
        let tags = [self.tag(one), self.tag(two)];
        if tags == [tag::LITERAL; 2] {
            let literals = (self.literal(context, one), self.literal(context, two));
            let exact = match literals {
                (Some(one), Some(two)) => rules::exact_value(op, one, two),
                _ => None,
            };
            if let Some(value) = exact {
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
        if !matches!(self.tag(of), tag::UNARY | tag::LITERAL | tag::BINARY) {
            return Ok(None);
        }
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

    #[inline]
    pub(in super::super) fn literal(&self, context: &Context<'_>, value: Value) -> Option<Literal> {
        if self.tag(value) != tag::LITERAL {
            return None;
        }
        match *self.expression(context, self.origin(value)) {
            Expression::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    /// The value of an operand, which stands before what uses it.
    #[inline]
    fn known(&self, operand: Handle<Expression>) -> Rebased<Value> {
        self.of(operand).ok_or(FOLLOWS)
    }

    pub(super) fn operand(&self, value: Value, number: usize) -> Option<Value> {
        self.operands(value).nth(number)
    }

    /// Whether two values are of one type of integers or booleans.
    fn is_exact(&self, context: &Context<'_>, one: Value, two: Value) -> bool {
        let one = self.ty(context, one).and_then(rules::exact);
        one.is_some() && one == self.ty(context, two).and_then(rules::exact)
    }
}
