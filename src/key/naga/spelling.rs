//! The one spelling of a value, by the values that it is computed from.

use naga::{
    ArraySize, BinaryOperator, Expression, Handle, Literal, SwizzleComponent, Type, TypeInner,
    UnaryOperator, VectorSize,
};

use super::context::Context;
use super::rebase::Rebased;
use super::rules;
use super::values::{Value, Values};

/// Where components of vectors are written down, in order.
const COMPONENTS: [SwizzleComponent; 4] = [
    SwizzleComponent::X,
    SwizzleComponent::Y,
    SwizzleComponent::Z,
    SwizzleComponent::W,
];

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

    fn binary(
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

    fn swizzle(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        (size, pattern): (VectorSize, [SwizzleComponent; 4]),
        of: Value,
    ) -> Rebased<Option<Value>> {
        let mut vector = of;
        let mut cleared = rules::clear_unread(size, pattern);
        while let Expression::Swizzle {
            size: _,
            vector: _,
            pattern: inner,
        } = *self.expression(context, self.origin(vector))
        {
            let Some(below) = self.operands(vector).next() else {
                break;
            };
            vector = below;
            cleared = rules::clear_unread(size, cleared.map(|part| inner[part as usize]));
        }
        if let Some(scalar) = self.splatted(context, vector) {
            let value = source;
            let splat = Expression::Splat { size, value };
            return self
                .rewritten(context, splat, &[scalar], Some(source))
                .map(Some);
        }
        let in_order = rules::clear_unread(size, COMPONENTS);
        if cleared == in_order && self.vector_size(context, vector) == Some(size) {
            return Ok(Some(vector));
        }
        if rules::clear_unread(size, [cleared[0]; 4]) == cleared {
            let scalar = self.access(context, source, vector, cleared[0] as u32)?;
            let value = source;
            let splat = Expression::Splat { size, value };
            return self
                .rewritten(context, splat, &[scalar], Some(source))
                .map(Some);
        }
        if cleared == pattern && vector == of {
            return Ok(None);
        }
        let swizzle = Expression::Swizzle {
            size,
            vector: source,
            pattern: cleared,
        };
        self.rewritten(context, swizzle, &[vector], Some(source))
            .map(Some)
    }

    /// A component of a value that is made of its components, or of those of another.
    fn component(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        base: Value,
        index: u32,
    ) -> Rebased<Option<Value>> {
        match *self.expression(context, self.origin(base)) {
            Expression::Splat { size: _, value: _ } => Ok(self.operand(base, 0)),
            Expression::Swizzle {
                size: _,
                vector: _,
                pattern,
            } => {
                let (vector, part) = (self.operand(base, 0), pattern.get(index as usize));
                let (Some(vector), Some(part)) = (vector, part) else {
                    return Ok(None);
                };
                self.access(context, source, vector, *part as u32).map(Some)
            }
            Expression::Compose { ty, ref components } => {
                let is_plain = match context.module.types[ty].inner {
                    TypeInner::Vector { size, scalar: _ } => components.len() == size as usize,
                    TypeInner::Matrix {
                        columns,
                        rows: _,
                        scalar: _,
                    } => components.len() == columns as usize,
                    TypeInner::Array {
                        base: _,
                        size: ArraySize::Constant(size),
                        stride: _,
                    } => components.len() == size.get() as usize,
                    TypeInner::Struct {
                        ref members,
                        span: _,
                    } => components.len() == members.len(),
                    _ => false,
                };
                let component = self.operand(base, index as usize);
                let component = component.filter(|_| is_plain);
                self.drops |= component.is_some();
                Ok(component)
            }
            _ => Ok(None),
        }
    }

    /// A component of a value.
    pub(super) fn access(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        base: Value,
        index: u32,
    ) -> Rebased<Value> {
        if let Some(component) = self.component(context, source, base, index)? {
            return Ok(component);
        }
        let of = base;
        let base = source;
        let access = Expression::AccessIndex { base, index };
        self.rewritten(context, access, &[of], None)
    }

    /// A vector whose components are all taken from one vector.
    fn taken(
        &mut self,
        context: &Context<'_>,
        (ty, source): (Handle<Type>, Handle<Expression>),
        components: &[Value],
    ) -> Rebased<Option<Value>> {
        let TypeInner::Vector { size, scalar: _ } = context.module.types[ty].inner else {
            return Ok(None);
        };
        let mut pattern = [SwizzleComponent::X; 4];
        let mut free = pattern.iter_mut();
        let mut whole = None;
        for component in components {
            let Some((vector, parts)) = self.parts(context, *component) else {
                return Ok(None);
            };
            if *whole.get_or_insert(vector) != vector {
                return Ok(None);
            }
            for (part, free) in parts.zip(&mut free) {
                *free = part;
            }
        }
        let Some(vector) = whole.filter(|whole| self.vector_size(context, *whole).is_some()) else {
            return Ok(None);
        };
        match self.swizzle(context, source, (size, pattern), vector)? {
            Some(value) => Ok(Some(value)),
            None => {
                let swizzle = Expression::Swizzle {
                    size,
                    vector: source,
                    pattern,
                };
                self.rewritten(context, swizzle, &[vector], Some(source))
                    .map(Some)
            }
        }
    }

    /// The vector that components are taken from, and which.
    fn parts(
        &self,
        context: &Context<'_>,
        value: Value,
    ) -> Option<(Value, impl Iterator<Item = SwizzleComponent> + use<>)> {
        let mut taken = [SwizzleComponent::X; 4];
        let length = match *self.expression(context, self.origin(value)) {
            Expression::AccessIndex { base: _, index } => {
                taken[0] = *COMPONENTS.get(index as usize)?;
                1
            }
            Expression::Swizzle {
                size,
                vector: _,
                pattern,
            } => {
                taken = pattern;
                size as usize
            }
            _ => return None,
        };
        let vector = self.operands(value).next()?;
        Some((vector, taken.into_iter().take(length)))
    }

    /// A composed value in another spelling: a vector of equal components, by its one component,
    /// and what is zero in all its components.
    fn composed(
        &mut self,
        context: &Context<'_>,
        (ty, source): (Handle<Type>, Handle<Expression>),
        components: &[Value],
        typed: Option<Handle<Expression>>,
    ) -> Rebased<Option<Value>> {
        let Some(first) = components.first().copied() else {
            return Ok(None);
        };
        if let TypeInner::Vector { size, scalar: _ } = context.module.types[ty].inner {
            let component = |part: &Value| match self.splatted(context, *part) {
                Some(scalar) => scalar,
                // Where there are as many components as the vector has, they are scalars.
                None => *part,
            };
            let scalar = component(&first);
            let is_scalar = components.len() == size as usize || scalar != first;
            if is_scalar && components.iter().all(|part| component(part) == scalar) {
                let value = source;
                let splat = Expression::Splat { size, value };
                return self.rewritten(context, splat, &[scalar], typed).map(Some);
            }
            return Ok(None);
        }
        let is_zero = !context.special.contains(ty)
            && components.iter().all(|part| self.is_zero(context, *part));
        if is_zero {
            let zero = Expression::ZeroValue(ty);
            return self.rewritten(context, zero, &[], typed).map(Some);
        }
        Ok(None)
    }

    /// The zero of a scalar or a vector, in figures.
    pub(super) fn zero(
        &mut self,
        context: &Context<'_>,
        (ty, source): (Handle<Type>, Handle<Expression>),
        typed: Option<Handle<Expression>>,
    ) -> Rebased<Option<Value>> {
        let (scalar, size) = match context.module.types[ty].inner {
            TypeInner::Scalar(scalar) => (scalar, None),
            TypeInner::Vector { size, scalar } => (scalar, Some(size)),
            _ => return Ok(None),
        };
        let Some(zero) = Literal::zero(scalar) else {
            return Ok(None);
        };
        let zero = Expression::Literal(zero);
        let Some(size) = size else {
            return self.rewritten(context, zero, &[], typed).map(Some);
        };
        let zero = self.rewritten(context, zero, &[], None)?;
        let value = source;
        let splat = Expression::Splat { size, value };
        self.rewritten(context, splat, &[zero], typed).map(Some)
    }

    /// Whether each bit of a value is zero.
    pub(super) fn is_zero(&self, context: &Context<'_>, value: Value) -> bool {
        match *self.expression(context, self.origin(value)) {
            Expression::Literal(literal) => rules::is_zero(literal),
            Expression::Splat { size: _, value: _ } => {
                let literal = self.operands(value).next();
                let literal = literal.and_then(|literal| self.literal(context, literal));
                literal.is_some_and(rules::is_zero)
            }
            Expression::ZeroValue(_) => true,
            _ => false,
        }
    }

    fn vector_size(&self, context: &Context<'_>, value: Value) -> Option<VectorSize> {
        match *self.ty(context, value)? {
            TypeInner::Vector { size, scalar: _ } => Some(size),
            _ => None,
        }
    }

    /// The one component of a vector that is made of it.
    fn splatted(&self, context: &Context<'_>, vector: Value) -> Option<Value> {
        match *self.expression(context, self.origin(vector)) {
            Expression::Splat { size: _, value: _ } => self.operands(vector).next(),
            _ => None,
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

    pub(super) fn literal(&self, context: &Context<'_>, value: Value) -> Option<Literal> {
        match *self.expression(context, self.origin(value)) {
            Expression::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    fn operand(&self, value: Value, number: usize) -> Option<Value> {
        self.operands(value).nth(number)
    }

    /// Whether two values are of one type of integers or booleans.
    fn is_exact(&self, context: &Context<'_>, one: Value, two: Value) -> bool {
        let [one, two] = [one, two].map(|value| self.ty(context, value));
        one == two && one.is_some_and(rules::is_exact)
    }
}
