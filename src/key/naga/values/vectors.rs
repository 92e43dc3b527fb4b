//! The one spelling of what has components.

use naga::{ArraySize, Expression, Handle, Literal, SwizzleComponent, Type, TypeInner, VectorSize};

use super::{Value, Values};
use crate::key::naga::context::Context;
use crate::key::naga::rebase::Rebased;
use crate::key::naga::rules;
use crate::key::naga::wire::tag;

/// Where components of vectors are written down, in order.
const COMPONENTS: [SwizzleComponent; 4] = [
    SwizzleComponent::X,
    SwizzleComponent::Y,
    SwizzleComponent::Z,
    SwizzleComponent::W,
];

impl Values {
    pub(super) fn swizzle(
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
    pub(super) fn component(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        base: Value,
        index: u32,
    ) -> Rebased<Option<Value>> {
        if !matches!(self.tag(base), tag::SPLAT | tag::SWIZZLE | tag::COMPOSE) {
            return Ok(None);
        }
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
    pub(super) fn taken(
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
    pub(super) fn composed(
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
    pub(in super::super) fn is_zero(&self, context: &Context<'_>, value: Value) -> bool {
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
    #[inline]
    pub(super) fn splatted(&self, context: &Context<'_>, vector: Value) -> Option<Value> {
        if self.tag(vector) != tag::SPLAT {
            return None;
        }
        match *self.expression(context, self.origin(vector)) {
            Expression::Splat { size: _, value: _ } => self.operands(vector).next(),
            _ => None,
        }
    }
}
