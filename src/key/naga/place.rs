//! Where a function's values are computed.
//!
//! The body is walked in order. Anchored values stay where they are. A pure value is computed
//! right before the first statement that needs it, once for as long as it stays in scope. Two
//! things move that place:
//!
//! - A loop: what was computed before it is computed before it still, so that no work moves into
//!   a loop. It is work that was done there already.
//! - A `continuing` block: it can be reached by a `continue` that skipped part of the body, so
//!   that it shares no pure value with the body.

use naga::{
    Block, Expression, Function, FunctionArgument, FunctionResult, Handle, LocalVariable, Range,
    Span, Statement, SwitchCase,
};

use super::carried::Carried;
use super::module::ModuleBuilder;
use super::rebase;
use super::rebase::{Leaf, Rebase, Rebased, Shape, shape};
use super::references::FromValues;
use super::timing::{Timing, is_anchored, timing};
use super::values::{Context, Values};
use crate::key::Unkeyable;

/// How many times the expressions of its source a canonical function may have. More than real
/// shaders come to, and little enough to hold.
const MAX_COPIES: usize = 8;
/// A function of this many expressions is small, whatever it came from.
const SMALL: usize = 10_000;

/// Builds the canonical form of a function.
pub(super) fn function(module: &mut ModuleBuilder<'_>, context: Context<'_>) -> Rebased<Function> {
    let Function {
        name: _,
        arguments,
        result,
        local_variables,
        expressions: _,
        named_expressions: _,
        body,
        diagnostic_filter_leaf: _,
    } = context.function;
    let mut out = Function::default();
    for argument in arguments {
        let FunctionArgument {
            name: _,
            ty,
            binding,
        } = argument;
        out.arguments.push(FunctionArgument {
            name: None,
            ty: module.ty(*ty)?,
            binding: binding.clone(),
        });
    }
    if let Some(FunctionResult { ty, binding }) = result {
        out.result = Some(FunctionResult {
            ty: module.ty(*ty)?,
            binding: binding.clone(),
        });
    }
    let values = Values::new(context)?;
    let mut placer = Placer {
        module,
        context,
        out,
        placed: vec![None; values.arena.len()],
        constants: vec![None; values.arena.len()],
        computed: vec![false; values.arena.len()],
        locals: vec![None; local_variables.len()],
        values: &values,
        open: None,
        statements: Vec::new(),
        journal: Vec::new(),
    };
    let body = placer.block(body)?;
    placer.out.body = body;
    Ok(placer.out)
}

pub(super) type Value = Handle<Expression>;
pub(super) type Placed = Handle<Expression>;

/// What ends with the scope it happened in.
enum Entry {
    Placed(Value),
    Computed(Value),
}

pub(super) struct Placer<'p, 'm> {
    pub(super) module: &'p mut ModuleBuilder<'m>,
    context: Context<'p>,
    pub(super) values: &'p Values<'p>,
    out: Function,
    /// The canonical expression of each value that is in scope.
    pub(super) placed: Vec<Option<Placed>>,
    /// The canonical expression of each value that an initial value of a local needs. These are
    /// not evaluated by the body, so that it cannot share them.
    pub(super) constants: Vec<Option<Placed>>,
    /// Whether the source has computed the value in this scope.
    pub(super) computed: Vec<bool>,
    locals: Vec<Option<Handle<LocalVariable>>>,
    /// The expressions that the next `Emit` names.
    open: Option<(Placed, Placed)>,
    statements: Vec<Statement>,
    journal: Vec<Entry>,
}

impl Placer<'_, '_> {
    /// A block in a scope of its own. Recursion is as deep as blocks nest, which is bounded.
    fn block(&mut self, block: &Block) -> Rebased<Block> {
        let start = self.journal.len();
        let outer = self.enter();
        self.statements(block)?;
        let block = self.leave(outer);
        self.forget(start);
        Ok(block)
    }

    /// A `Block` statement only delimits scopes, and handles need none: it is flattened.
    fn statements(&mut self, block: &Block) -> Rebased<()> {
        for statement in block {
            match shape(statement) {
                Shape::Emit(range) => self.emit(range)?,
                Shape::Block(inner) => self.statements(inner)?,
                Shape::If {
                    condition,
                    accept,
                    reject,
                } => {
                    let condition = self.operand(condition)?;
                    self.flush();
                    let accept = self.block(accept)?;
                    let reject = self.block(reject)?;
                    self.push(Statement::If {
                        condition,
                        accept,
                        reject,
                    });
                }
                Shape::Switch { selector, cases } => self.switch(selector, cases)?,
                Shape::Loop {
                    body,
                    continuing,
                    break_if,
                } => self.loop_(body, continuing, break_if)?,
                Shape::Leaf(leaf) => self.leaf(&leaf)?,
            }
        }
        Ok(())
    }

    fn leaf(&mut self, leaf: &Leaf<'_>) -> Rebased<()> {
        let statement = leaf.rebase(self)?;
        self.push(statement);
        Ok(())
    }

    fn switch(&mut self, selector: Handle<Expression>, cases: &[SwitchCase]) -> Rebased<()> {
        let selector = self.operand(selector)?;
        self.flush();
        let mut placed = Vec::with_capacity(cases.len());
        for case in cases {
            let SwitchCase {
                value,
                body,
                fall_through,
            } = case;
            placed.push(SwitchCase {
                value: *value,
                body: self.block(body)?,
                fall_through: *fall_through,
            });
        }
        self.push(Statement::Switch {
            selector,
            cases: placed,
        });
        Ok(())
    }

    fn loop_(
        &mut self,
        body: &Block,
        continuing: &Block,
        break_if: Option<Handle<Expression>>,
    ) -> Rebased<()> {
        let mut carried = Carried::default();
        self.carried_by_block(body, &mut carried)?;
        self.carried_by_block(continuing, &mut carried)?;
        if let Some(condition) = break_if {
            self.carry(condition, &mut carried)?;
        }
        for value in carried.values {
            self.place(value)?;
        }
        self.flush();

        let start = self.journal.len();
        let outer = self.enter();
        self.statements(body)?;
        let body = self.leave(outer);
        self.forget_pure(start);
        let outer = self.enter();
        self.statements(continuing)?;
        let break_if = self.optional(break_if)?;
        let continuing = self.leave(outer);
        self.forget(start);
        self.push(Statement::Loop {
            body,
            continuing,
            break_if,
        });
        Ok(())
    }

    /// Evaluates what is anchored, and notes the rest as computed.
    fn emit(&mut self, range: &Range<Expression>) -> Rebased<()> {
        for source in range.clone() {
            let Some(value) = self.values.of(source) else {
                continue;
            };
            match timing(&self.values.arena[value]) {
                Timing::Anchored | Timing::Defined => {
                    self.evaluate(value)?;
                }
                Timing::Pure if !self.computed[value.index()] => {
                    self.computed[value.index()] = true;
                    self.journal.push(Entry::Computed(value));
                }
                // What was arithmetic in the source can be a literal here.
                Timing::Pure | Timing::Static => {}
            }
        }
        Ok(())
    }

    /// Evaluates an anchored value, here and now.
    ///
    /// One that is in scope already could be evaluated anew only in the next of two plain blocks,
    /// which are one scope here. What was computed from it before would then be stale.
    pub(super) fn evaluate(&mut self, value: Value) -> Rebased<Placed> {
        if self.placed[value.index()].is_some() {
            return Err(Unkeyable::new("two blocks evaluate one expression"));
        }
        for operand in self.values.operands(value) {
            self.place(operand)?;
        }
        self.compute(value)
    }

    /// Makes a value available here, and all that it is computed from before it.
    pub(super) fn place(&mut self, value: Value) -> Rebased<Placed> {
        let mut pending = vec![value];
        while let Some(next) = pending.last().copied() {
            if self.placed[next.index()].is_none() {
                // An anchored value is evaluated where it stands and nowhere else.
                if is_anchored(&self.values.arena[next]) {
                    return Err(unavailable());
                }
                let known = pending.len();
                let operands = self.values.operands(next);
                let absent = |operand: &Value| self.placed[operand.index()].is_none();
                pending.extend(operands.into_iter().rev().filter(absent));
                if pending.len() > known {
                    continue;
                }
                self.compute(next)?;
            }
            pending.pop();
        }
        self.placed[value.index()].ok_or_else(unavailable)
    }

    /// Appends a value whose operands are all there.
    fn compute(&mut self, value: Value) -> Rebased<Placed> {
        // A value is computed in each branch that needs it. Where many branches need much, that
        // would be the product of both.
        let most = self.values.arena.len().saturating_mul(MAX_COPIES) + SMALL;
        if self.out.expressions.len() > most {
            return Err(Unkeyable::new(
                "many branches share values that would be written out in each",
            ));
        }
        // `modf` and its like return a type that no expression names.
        if let Some(ty) = self.values.special_type(value, self.module) {
            self.module.ty(ty)?;
        }
        let values = self.values;
        let expression = rebase::expression(
            &mut FromValues {
                placer: self,
                constants: false,
            },
            &values.arena[value],
        )?;
        let timing = timing(&expression);
        let handle = self.out.expressions.append(expression, Span::UNDEFINED);
        self.placed[value.index()] = Some(handle);
        match timing {
            Timing::Static => {}
            Timing::Pure | Timing::Anchored => {
                self.name_in_emit(handle);
                self.journal.push(Entry::Placed(value));
            }
            Timing::Defined => self.journal.push(Entry::Placed(value)),
        }
        Ok(handle)
    }

    pub(super) fn local_variable(
        &mut self,
        source: Handle<LocalVariable>,
    ) -> Rebased<Handle<LocalVariable>> {
        if let Some(local) = self.locals[source.index()] {
            return Ok(local);
        }
        let LocalVariable { name: _, ty, init } = &self.context.function.local_variables[source];
        let local = LocalVariable {
            name: None,
            ty: self.module.ty(*ty)?,
            init: init.map(|init| self.initial_value(init)).transpose()?,
        };
        let handle = self.out.local_variables.append(local, Span::UNDEFINED);
        self.locals[source.index()] = Some(handle);
        Ok(handle)
    }

    fn initial_value(&mut self, source: Handle<Expression>) -> Rebased<Placed> {
        let root = self.values.of(source).ok_or_else(unavailable)?;
        let mut pending = vec![root];
        while let Some(next) = pending.last().copied() {
            if self.constants[next.index()].is_none() {
                let known = pending.len();
                let operands = self.values.operands(next);
                let absent = |operand: &Value| self.constants[operand.index()].is_none();
                pending.extend(operands.into_iter().rev().filter(absent));
                if pending.len() > known {
                    continue;
                }
                self.compute_constant(next)?;
            }
            pending.pop();
        }
        self.constants[root.index()].ok_or_else(unavailable)
    }

    fn compute_constant(&mut self, value: Value) -> Rebased<()> {
        let expression = &self.values.arena[value];
        let handle = match timing(expression) {
            Timing::Static => self.place(value)?,
            Timing::Pure | Timing::Anchored | Timing::Defined => {
                let expression = rebase::expression(
                    &mut FromValues {
                        placer: self,
                        constants: true,
                    },
                    expression,
                )?;
                self.out.expressions.append(expression, Span::UNDEFINED)
            }
        };
        self.constants[value.index()] = Some(handle);
        Ok(())
    }
}

/// Scopes and statements.
impl Placer<'_, '_> {
    fn enter(&mut self) -> Vec<Statement> {
        std::mem::take(&mut self.statements)
    }

    fn leave(&mut self, outer: Vec<Statement>) -> Block {
        self.flush();
        Block::from_vec(std::mem::replace(&mut self.statements, outer))
    }

    fn push(&mut self, statement: Statement) {
        self.flush();
        self.statements.push(statement);
    }

    fn flush(&mut self) {
        if let Some((first, last)) = self.open.take() {
            let range = Range::new_from_bounds(first, last);
            self.statements.push(Statement::Emit(range));
        }
    }

    /// Extends the `Emit` that is being gathered; a gap in the arena starts another.
    fn name_in_emit(&mut self, handle: Placed) {
        match self.open {
            Some((first, last)) if last.index() + 1 == handle.index() => {
                self.open = Some((first, handle));
            }
            Some(_) | None => {
                self.flush();
                self.open = Some((handle, handle));
            }
        }
    }

    fn forget(&mut self, start: usize) {
        for entry in self.journal.drain(start..) {
            match entry {
                Entry::Placed(value) => self.placed[value.index()] = None,
                Entry::Computed(value) => self.computed[value.index()] = false,
            }
        }
    }

    fn forget_pure(&mut self, start: usize) {
        for entry in &self.journal[start..] {
            if let Entry::Placed(value) = *entry {
                if !is_anchored(&self.values.arena[value]) {
                    self.placed[value.index()] = None;
                }
            }
        }
    }
}

pub(super) fn unavailable() -> Unkeyable {
    Unkeyable::new("an expression is used where it is not in scope")
}
