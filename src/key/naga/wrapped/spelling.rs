//! Expressions and loops as naga's front end for WGSL has them, where SPIR-V knows one spelling
//! for two.
//!
//! | in the source | here | why it is the same |
//! |---|---|---|
//! | `v[1u]` | the part by its number | the index is in bounds; of an array that ends at runtime, back ends look up what constant it is, and check it by the same rule |
//! | `select(0u, 1u, b)` | `u32(b)` | a boolean has two values, and these are theirs |
//! | `textureDimensions(t, 0)` | `textureDimensions(t)` | by definition |
//! | `select(a, b, vec3(c))` | `select(a, b, c)` | one condition for all components |
//! | a `continue` at the end of a loop's body, a `break` at that of a `case` | nothing | what follows is the next round, or what follows the `switch` |
//! | `switch i32(u)` of a `u32` | `switch u`, with the same bits | the conversion keeps them |
//! | `case 2, 1` | `case 1, 2` | they have one body |

use naga::proc::TypeResolution;
use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{
    ArraySize, Block, Constant, Expression, Function, Handle, ImageQuery, Literal, Module, Scalar,
    ScalarKind, Statement, SwitchCase, SwitchValue, TypeInner,
};

/// Respells all functions of a module. Expressions keep their handles and types.
pub(super) fn respell(module: &mut Module, info: &ModuleInfo) {
    let mut functions = std::mem::take(&mut module.functions);
    for (handle, function) in functions.iter_mut() {
        respell_function(module, function, &info[handle]);
    }
    module.functions = functions;
    let mut mains = std::mem::take(&mut module.entry_points);
    for (index, main) in mains.iter_mut().enumerate() {
        respell_function(module, &mut main.function, info.get_entry_point(index));
    }
    module.entry_points = mains;
}

fn respell_function(module: &Module, function: &mut Function, info: &FunctionInfo) {
    let handles: Vec<_> = function.expressions.iter().map(|(it, _)| it).collect();
    for handle in handles {
        let speller = Speller {
            module,
            function,
            info,
        };
        if let Some(spelled) = speller.spelled(handle) {
            function.expressions[handle] = spelled;
        }
    }
    let mut body = std::mem::take(&mut function.body);
    let speller = Speller {
        module,
        function,
        info,
    };
    speller.respell_block(&mut body);
    function.body = body;
}

struct Speller<'s> {
    module: &'s Module,
    function: &'s Function,
    info: &'s FunctionInfo,
}

impl Speller<'_> {
    fn spelled(&self, handle: Handle<Expression>) -> Option<Expression> {
        match self.function.expressions[handle] {
            Expression::Access { base, index } => {
                let index = match self.literal(index)? {
                    Literal::U32(index) => index,
                    Literal::I32(index) => u32::try_from(index).ok()?,
                    _ => return None,
                };
                let is_in_bounds = self.length(base)?.is_none_or(|length| index < length);
                is_in_bounds.then_some(Expression::AccessIndex { base, index })
            }
            Expression::ImageQuery {
                image,
                query: ImageQuery::Size { level: Some(level) },
            } => {
                let is_first = matches!(self.literal(level)?, Literal::U32(0) | Literal::I32(0));
                is_first.then_some(Expression::ImageQuery {
                    image,
                    query: ImageQuery::Size { level: None },
                })
            }
            Expression::Select {
                condition,
                accept,
                reject,
            } => {
                if let Some(condition) = self.one_condition(condition) {
                    return Some(Expression::Select {
                        condition,
                        accept,
                        reject,
                    });
                }
                let (accept, reject) = (self.component(accept)?, self.component(reject)?);
                let is_truth = matches!(
                    (accept, reject),
                    (Literal::U32(1), Literal::U32(0)) | (Literal::I32(1), Literal::I32(0))
                ) || matches!((accept, reject), (Literal::F32(one), Literal::F32(zero))
                    if one.to_bits() == 1_f32.to_bits() && zero.to_bits() == 0);
                let scalar = self.ty(handle).scalar()?;
                let is_as_wide = self.size(condition) == self.size(handle);
                let spelled = Expression::As {
                    expr: condition,
                    kind: scalar.kind,
                    convert: Some(scalar.width),
                };
                (is_truth && is_as_wide).then_some(spelled)
            }
            _ => None,
        }
    }

    fn ty(&self, expression: Handle<Expression>) -> &TypeInner {
        match self.info[expression].ty {
            TypeResolution::Handle(ty) => &self.module.types[ty].inner,
            TypeResolution::Value(ref inner) => inner,
        }
    }

    /// How many components a vector has.
    fn size(&self, expression: Handle<Expression>) -> Option<u32> {
        match *self.ty(expression) {
            TypeInner::Vector { size, scalar: _ } => Some(size as u32),
            _ => None,
        }
    }

    /// How many parts there are in what an expression is or points to: none where that is not
    /// known, or what is not known to have parts.
    #[expect(clippy::option_option, reason = "two ways to know no number")]
    fn length(&self, base: Handle<Expression>) -> Option<Option<u32>> {
        let inner = match *self.ty(base) {
            TypeInner::Pointer { base, space: _ } => &self.module.types[base].inner,
            ref inner => inner,
        };
        match *inner {
            TypeInner::Vector { size, scalar: _ }
            | TypeInner::ValuePointer {
                size: Some(size),
                scalar: _,
                space: _,
            } => Some(Some(size as u32)),
            TypeInner::Matrix { columns, .. } => Some(Some(columns as u32)),
            TypeInner::Array {
                base: _,
                size: ArraySize::Constant(size),
                stride: _,
            } => Some(Some(size.get())),
            TypeInner::Array {
                base: _,
                size: ArraySize::Dynamic,
                stride: _,
            } => Some(None),
            _ => None,
        }
    }

    /// The literal that an expression is, by itself or as a constant.
    fn literal(&self, expression: Handle<Expression>) -> Option<Literal> {
        match self.function.expressions[expression] {
            Expression::Literal(literal) => Some(literal),
            Expression::Constant(constant) => self.value(constant),
            _ => None,
        }
    }

    fn value(&self, constant: Handle<Constant>) -> Option<Literal> {
        let init = self.module.constants[constant].init;
        match self.module.global_expressions[init] {
            Expression::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    /// The condition that all components of one are.
    fn one_condition(&self, condition: Handle<Expression>) -> Option<Handle<Expression>> {
        match self.function.expressions[condition] {
            Expression::Splat { size: _, value } => Some(value),
            Expression::Compose {
                ty: _,
                ref components,
            } => {
                let (first, rest) = components.split_first()?;
                let is_scalar = matches!(*self.ty(*first), TypeInner::Scalar(_));
                let is_one = is_scalar && rest.iter().all(|component| component == first);
                is_one.then_some(*first)
            }
            _ => None,
        }
    }

    /// The number that a switch decides by, if it is turned into another with the same bits.
    fn unsigned(&self, selector: Handle<Expression>) -> Option<Handle<Expression>> {
        let Expression::As {
            expr,
            kind: ScalarKind::Sint,
            convert: None | Some(4),
        } = self.function.expressions[selector]
        else {
            return None;
        };
        let is_unsigned = *self.ty(expr) == TypeInner::Scalar(Scalar::U32);
        is_unsigned.then_some(expr)
    }

    /// The literal that each component of an expression is.
    fn component(&self, expression: Handle<Expression>) -> Option<Literal> {
        let (expressions, expression) = match self.function.expressions[expression] {
            Expression::Constant(constant) => (
                &self.module.global_expressions,
                self.module.constants[constant].init,
            ),
            _ => (&self.function.expressions, expression),
        };
        let literal = |of: Handle<Expression>| match expressions[of] {
            Expression::Literal(literal) => Some(literal),
            Expression::Constant(constant) => self.value(constant),
            _ => None,
        };
        match expressions[expression] {
            Expression::Splat { size: _, value } => literal(value),
            Expression::Compose { ty, ref components } => {
                let first = literal(*components.first()?)?;
                let is_vector = matches!(
                    self.module.types[ty].inner,
                    TypeInner::Vector { size: _, scalar: _ }
                );
                // Compared by handles, since floats may be equal and differ in their bits.
                let is_one = components.iter().all(|it| *it == components[0]);
                (is_vector && is_one).then_some(first)
            }
            Expression::ZeroValue(ty) => match self.module.types[ty].inner {
                TypeInner::Vector { size: _, scalar } => Literal::zero(scalar),
                _ => None,
            },
            _ => literal(expression),
        }
    }
}

impl Speller<'_> {
    fn respell_block(&self, block: &mut Block) {
        for statement in block.iter_mut() {
            match statement {
                Statement::Block(inner) => self.respell_block(inner),
                Statement::If {
                    condition: _,
                    accept,
                    reject,
                } => {
                    self.respell_block(accept);
                    self.respell_block(reject);
                }
                Statement::Switch { selector, cases } => self.respell_switch(selector, cases),
                Statement::Loop {
                    body,
                    continuing,
                    break_if: _,
                } => {
                    self.respell_block(body);
                    self.respell_block(continuing);
                    take_last(body, |last| matches!(last, Statement::Continue));
                }
                _ => {}
            }
        }
    }

    fn respell_switch(&self, selector: &mut Handle<Expression>, cases: &mut [SwitchCase]) {
        if let Some(unsigned) = self.unsigned(*selector) {
            *selector = unsigned;
            for case in cases.iter_mut() {
                if let SwitchValue::I32(value) = case.value {
                    case.value = SwitchValue::U32(value as u32);
                }
            }
        }
        for case in cases.iter_mut() {
            self.respell_block(&mut case.body);
            // Without it, a case that falls through would go on with the next one.
            if !case.fall_through {
                take_last(&mut case.body, |last| matches!(last, Statement::Break));
            }
        }
        let is_last = |case: &SwitchCase| !(case.fall_through && case.body.is_empty());
        for group in cases.split_inclusive_mut(is_last) {
            let mut values: Vec<_> = group.iter().map(|case| case.value).collect();
            values.sort_by_key(|value| match *value {
                SwitchValue::I32(value) => (false, i64::from(value)),
                SwitchValue::U32(value) => (false, i64::from(value)),
                SwitchValue::Default => (true, 0),
            });
            for (case, value) in group.iter_mut().zip(values) {
                case.value = value;
            }
        }
    }
}

/// Takes such a statement from the end of a block.
fn take_last(block: &mut Block, is_taken: fn(&Statement) -> bool) {
    let end = block.len();
    match block.last_mut() {
        Some(Statement::Block(inner)) => take_last(inner, is_taken),
        Some(last) if is_taken(last) => block.cull(end - 1..),
        _ => {}
    }
}
