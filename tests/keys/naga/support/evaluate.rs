//! Runs a shader, one invocation of each of its entry points, straight from naga's IR.
//!
//! It is slow and plain on purpose, and sees more than a device would: floats keep the payload of
//! a NaN and the sign of a zero, `min` and `max` prefer their first operand, a barrier lets other
//! invocations write to workgroup memory, and every access to memory is part of the outcome, in
//! its order. What the language leaves open is fixed: `x / 0` is `x`, `x % 0` is 0, indices are
//! clamped, shifts are masked. A `discard` ends the invocation on every other input, and on the
//! rest it goes on, as targets do.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use naga::{
    AddressSpace, Arena, ArraySize, AtomicFunction, Barrier, Binding, Block, BuiltIn, Expression,
    Function, Handle, Literal, Module, ScalarKind, Statement, SwitchValue, Type, TypeInner,
};

use super::arithmetic::{self, Value};

/// How many elements a runtime-sized array has.
const LENGTH: usize = 8;

/// Loops stop the shader after this many rounds in all.
const ROUNDS: u32 = 200;

/// What can be seen of the runs of a shader, by the stages and names of its entry points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome(BTreeMap<String, Seen>);

/// What can be seen of the run of an entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// The resources that the run touched, by group and binding.
    resources: BTreeMap<(u32, u32), Value>,
    /// A hash of all stores to what is no variable of a function, of atomics, of all loads from
    /// resources, and of barriers, in order.
    trace: u64,
    /// Whether the shader was stopped.
    stopped: bool,
    discarded: bool,
    /// What it returned, by what each part is bound to.
    returned: Vec<(String, Value)>,
}

/// Runs all entry points, each by itself, on inputs made from a seed.
pub(crate) fn run(module: &Module, seed: u64) -> Outcome {
    run_with(module, seed, false)
}

/// As [`run`], and sees what another invocation or the host can see alone: neither private
/// variables, nor the structures of one member in which buffers hold what is none.
pub(crate) fn run_from_outside(module: &Module, seed: u64) -> Outcome {
    run_with(module, seed, true)
}

fn run_with(module: &Module, seed: u64, from_outside: bool) -> Outcome {
    let mains = module.entry_points.iter();
    let outcomes = mains.map(|main| {
        let name = format!("{:?} {}", main.stage, main.name);
        (name, run_main(module, &main.function, seed, from_outside))
    });
    Outcome(outcomes.collect())
}

fn run_main(module: &Module, main: &Function, seed: u64, from_outside: bool) -> Seen {
    let mut machine = Machine {
        module,
        from_outside,
        memory: Vec::new(),
        touched: vec![false; module.global_variables.len()],
        trace: DefaultHasher::new(),
        rounds: ROUNDS,
        barriers: 0,
        discarded: false,
        ends_at_discard: seed & 1 == 0,
    };
    for (_, global) in module.global_variables.iter() {
        let value = match (global.binding, global.init) {
            (Some(at), _) => machine.input(global.ty, seed ^ u64::from(at.binding) << 32),
            (None, Some(init)) => machine.constant(&module.global_expressions, init),
            (None, None) => machine.zero(global.ty),
        };
        machine.memory.push(value);
    }
    let arguments = main
        .arguments
        .iter()
        .map(|argument| machine.argument(argument.ty, argument.binding.as_ref(), seed));
    let arguments = arguments.collect();
    let run = machine.call(main, arguments);
    let stopped = run.is_err() && !(machine.discarded && machine.ends_at_discard);
    let mut returned = Vec::new();
    if let (Ok(Some(value)), Some(result)) = (run, &main.result) {
        machine.bound(result.ty, result.binding.as_ref(), value, &mut returned);
    }
    returned.sort_by(|(one, _), (two, _)| one.cmp(two));
    let touched = module
        .global_variables
        .iter()
        .filter_map(|(handle, global)| {
            let at = global.binding.filter(|_| machine.touched[handle.index()])?;
            let mut value = machine.memory[handle.index()].clone();
            for _ in 0..machine.wrappers(handle.index()) {
                if let Value::Composite(parts) = value {
                    value = parts[0].clone();
                }
            }
            Some(((at.group, at.binding), value))
        });
    let resources = touched.collect();
    let trace = machine.trace.finish();
    Seen {
        resources,
        trace,
        stopped,
        discarded: machine.discarded,
        returned,
    }
}

/// The shader ran out of rounds, or ended at a `discard`.
struct Stopped;

type Run<T> = Result<T, Stopped>;

/// Where control goes after a statement.
enum Flow {
    Next,
    Break,
    Continue,
    Return(Option<Value>),
}

struct Machine<'m> {
    module: &'m Module,
    from_outside: bool,
    /// The globals, and then the locals of each function that is running.
    memory: Vec<Value>,
    /// Which globals have been read or written.
    touched: Vec<bool>,
    trace: DefaultHasher,
    rounds: u32,
    barriers: u32,
    discarded: bool,
    /// Whether a `discard` ends the invocation.
    ends_at_discard: bool,
}

/// A function that is running.
struct Frame<'m> {
    function: &'m Function,
    arguments: Vec<Value>,
    /// Where its locals begin.
    locals: usize,
    /// What has been evaluated.
    values: Vec<Option<Value>>,
}

impl<'m> Machine<'m> {
    /// How many structures of one member are around what a buffer holds, which are not seen.
    fn wrappers(&self, variable: usize) -> usize {
        let global = self.module.global_variables.iter().nth(variable);
        let Some((_, global)) = global.filter(|_| self.from_outside) else {
            return 0;
        };
        let (mut ty, mut count) = (global.ty, 0);
        while let TypeInner::Struct { members, span: _ } = &self.module.types[ty].inner {
            let [member] = &**members else { break };
            (ty, count) = (member.ty, count + usize::from(global.binding.is_some()));
        }
        count
    }

    /// The part of a global that is written or read, if that can be seen.
    fn seen<'p>(&self, variable: usize, path: &'p [usize]) -> Option<&'p [usize]> {
        let (_, global) = self.module.global_variables.iter().nth(variable)?;
        if self.from_outside && global.space == AddressSpace::Private {
            return None;
        }
        Some(path.get(self.wrappers(variable)..).unwrap_or_default())
    }

    fn call(&mut self, function: &'m Function, arguments: Vec<Value>) -> Run<Option<Value>> {
        let locals = self.memory.len();
        for (_, local) in function.local_variables.iter() {
            let value = match local.init {
                Some(init) => self.constant(&function.expressions, init),
                None => self.zero(local.ty),
            };
            self.memory.push(value);
        }
        let mut frame = Frame {
            function,
            arguments,
            locals,
            values: vec![None; function.expressions.len()],
        };
        let flow = self.block(&mut frame, &function.body)?;
        self.memory.truncate(locals);
        match flow {
            Flow::Return(value) => Ok(value),
            Flow::Next | Flow::Break | Flow::Continue => Ok(None),
        }
    }

    fn block(&mut self, frame: &mut Frame<'m>, block: &'m Block) -> Run<Flow> {
        for statement in block.iter() {
            match self.statement(frame, statement)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, frame: &mut Frame<'m>, statement: &'m Statement) -> Run<Flow> {
        match statement {
            Statement::Emit(range) => {
                for handle in range.clone() {
                    let value = self.expression(frame, handle);
                    frame.values[handle.index()] = Some(value);
                }
            }
            Statement::Block(inner) => return self.block(frame, inner),
            Statement::If {
                condition,
                accept,
                reject,
            } => {
                let taken = self.value(frame, *condition) == Value::Bool(true);
                return self.block(frame, if taken { accept } else { reject });
            }
            Statement::Switch { selector, cases } => {
                let selector = self.value(frame, *selector);
                let is = |value: &SwitchValue| match value {
                    SwitchValue::I32(value) => selector == Value::Int(*value),
                    SwitchValue::U32(value) => selector == Value::Uint(*value),
                    SwitchValue::Default => false,
                };
                let default = |value: &SwitchValue| matches!(value, SwitchValue::Default);
                let matching = cases.iter().position(|case| is(&case.value));
                let first = matching.or_else(|| cases.iter().position(|case| default(&case.value)));
                for case in &cases[first.unwrap_or(cases.len())..] {
                    match self.block(frame, &case.body)? {
                        Flow::Next if case.fall_through => {}
                        Flow::Next | Flow::Break => break,
                        flow @ (Flow::Continue | Flow::Return(_)) => return Ok(flow),
                    }
                }
            }
            Statement::Loop {
                body,
                continuing,
                break_if,
            } => loop {
                self.rounds = self.rounds.checked_sub(1).ok_or(Stopped)?;
                match self.block(frame, body)? {
                    Flow::Next | Flow::Continue => {}
                    Flow::Break => break,
                    flow @ Flow::Return(_) => return Ok(flow),
                }
                self.block(frame, continuing)?;
                if break_if.is_some_and(|at| self.value(frame, at) == Value::Bool(true)) {
                    break;
                }
            },
            Statement::Kill => {
                self.discarded = true;
                if self.ends_at_discard {
                    return Err(Stopped);
                }
            }
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
            Statement::Return { value } => {
                return Ok(Flow::Return(value.map(|value| self.value(frame, value))));
            }
            Statement::ControlBarrier(barrier) | Statement::MemoryBarrier(barrier) => {
                self.barrier(*barrier);
            }
            Statement::Store { pointer, value } => {
                let pointer = self.value(frame, *pointer);
                let value = self.value(frame, *value);
                self.store(&pointer, value);
            }
            Statement::Atomic {
                pointer,
                fun,
                value,
                result,
            } => {
                let pointer = self.value(frame, *pointer);
                let operand = self.value(frame, *value);
                let old = self.place(&pointer).clone();
                let (new, answer) = self.atomic(frame, *fun, &old, operand);
                if let Some(new) = new {
                    self.store(&pointer, new);
                }
                ("atomic", &old).hash(&mut self.trace);
                if let Some(result) = result {
                    frame.values[result.index()] = Some(answer);
                }
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.barrier(Barrier::WORK_GROUP);
                let pointer = self.value(frame, *pointer);
                let value = self.place(&pointer).clone();
                frame.values[result.index()] = Some(value);
            }
            Statement::Call {
                function,
                arguments,
                result,
            } => {
                let arguments = arguments.iter().map(|at| self.value(frame, *at)).collect();
                let answer = self.call(&self.module.functions[*function], arguments)?;
                if let Some(result) = result {
                    frame.values[result.index()] = answer;
                }
            }
            other => panic!("not evaluated: {other:?}"),
        }
        Ok(Flow::Next)
    }

    /// The value that an atomic stores, if it stores one, and its result.
    fn atomic(
        &self,
        frame: &Frame<'m>,
        fun: AtomicFunction,
        old: &Value,
        operand: Value,
    ) -> (Option<Value>, Value) {
        if let AtomicFunction::Exchange { compare } = fun {
            let Some(compare) = compare else {
                return (Some(operand), old.clone());
            };
            let equal = self.value(frame, compare) == *old;
            let answer = Value::Composite(vec![old.clone(), Value::Bool(equal)]);
            return (equal.then_some(operand), answer);
        }
        (Some(arithmetic::atomic(fun, old, &operand)), old.clone())
    }

    /// Other invocations have written to what the barrier orders.
    fn barrier(&mut self, barrier: Barrier) {
        self.barriers += 1;
        (barrier.bits(), self.barriers).hash(&mut self.trace);
        let salt = self.barriers.wrapping_mul(0x9e37_79b9);
        for (handle, global) in self.module.global_variables.iter() {
            let ordered = match global.space {
                AddressSpace::WorkGroup => barrier.contains(Barrier::WORK_GROUP),
                AddressSpace::Storage { access } => {
                    barrier.contains(Barrier::STORAGE)
                        && access.contains(naga::StorageAccess::STORE)
                }
                _ => false,
            };
            if ordered {
                self.memory[handle.index()].disturb(salt);
            }
        }
    }

    fn store(&mut self, pointer: &Value, value: Value) {
        let Value::Pointer { variable, path } = pointer else {
            panic!("a store needs a pointer")
        };
        // Nobody but the function sees its variables.
        if let Some(path) = self.seen(*variable, path) {
            ("store", path, &value).hash(&mut self.trace);
        }
        *self.place(pointer) = value;
    }

    fn place(&mut self, pointer: &Value) -> &mut Value {
        let Value::Pointer { variable, path } = pointer else {
            panic!("a place needs a pointer")
        };
        if let Some(touched) = self.touched.get_mut(*variable) {
            *touched = true;
        }
        let mut place = &mut self.memory[*variable];
        for index in path {
            let Value::Composite(parts) = place else {
                panic!("a scalar has no parts")
            };
            place = &mut parts[*index];
        }
        place
    }

    /// How many parts a value has, or what a pointer points to.
    fn parts(&self, value: &Value) -> usize {
        let value = match value {
            Value::Pointer { variable, path } => {
                path.iter()
                    .fold(&self.memory[*variable], |value, index| match value {
                        Value::Composite(parts) => &parts[*index],
                        other => other,
                    })
            }
            value => value,
        };
        match value {
            Value::Composite(parts) => parts.len(),
            _ => panic!("a scalar has no parts"),
        }
    }

    fn access(&self, base: Value, index: i64) -> Value {
        let last = self.parts(&base) as i64 - 1;
        // Clamped, as an unsigned index.
        let index = if index < 0 { last } else { index.min(last) } as usize;
        match base {
            Value::Pointer { variable, mut path } => {
                path.push(index);
                Value::Pointer { variable, path }
            }
            Value::Composite(mut parts) => parts.swap_remove(index),
            _ => panic!("a scalar has no parts"),
        }
    }

    /// A value that is known here: evaluated before, or before the function started.
    fn value(&self, frame: &Frame<'m>, handle: Handle<Expression>) -> Value {
        if let Some(value) = &frame.values[handle.index()] {
            return value.clone();
        }
        match frame.function.expressions[handle] {
            Expression::FunctionArgument(index) => frame.arguments[index as usize].clone(),
            Expression::GlobalVariable(global) => Value::variable(global.index()),
            Expression::LocalVariable(local) => Value::variable(frame.locals + local.index()),
            Expression::Literal(literal) => scalar(literal),
            Expression::ZeroValue(ty) => self.zero(ty),
            Expression::Constant(constant) => {
                let init = self.module.constants[constant].init;
                self.constant(&self.module.global_expressions, init)
            }
            ref other => panic!("used before it is evaluated: {other:?}"),
        }
    }

    /// A constant expression, with its operands.
    fn constant(&self, arena: &'m Arena<Expression>, handle: Handle<Expression>) -> Value {
        match arena[handle] {
            Expression::Literal(literal) => scalar(literal),
            Expression::ZeroValue(ty) => self.zero(ty),
            Expression::Constant(constant) => {
                let init = self.module.constants[constant].init;
                self.constant(&self.module.global_expressions, init)
            }
            ref other => self.pure(other, &|operand| self.constant(arena, operand)),
        }
    }

    fn expression(&mut self, frame: &Frame<'m>, handle: Handle<Expression>) -> Value {
        let expression = &frame.function.expressions[handle];
        if let Expression::Load { pointer } = *expression {
            let pointer = self.value(frame, pointer);
            let value = self.place(&pointer).clone();
            let Value::Pointer { variable, path } = &pointer else {
                panic!("a load needs a pointer")
            };
            // An unused load from memory of the shader's own may go.
            let globals = &self.module.global_variables;
            if let Some((_, global)) = globals.iter().nth(*variable) {
                if global.binding.is_some() {
                    let path = self.seen(*variable, path);
                    ("load", path, &value).hash(&mut self.trace);
                }
            }
            return value;
        }
        self.pure(expression, &|operand| self.value(frame, operand))
    }

    fn pure(
        &self,
        expression: &Expression,
        operand: &dyn Fn(Handle<Expression>) -> Value,
    ) -> Value {
        match *expression {
            Expression::Compose { ty, ref components } => {
                let parts = components.iter().map(|part| operand(*part));
                let is_vector = matches!(
                    self.module.types[ty].inner,
                    TypeInner::Vector { size: _, scalar: _ }
                );
                Value::Composite(if is_vector {
                    parts.flat_map(Value::into_parts).collect()
                } else {
                    parts.collect()
                })
            }
            Expression::Access { base, index } => {
                let index = match operand(index) {
                    Value::Int(index) => i64::from(index),
                    Value::Uint(index) => i64::from(index),
                    other => panic!("an index is no {other:?}"),
                };
                self.access(operand(base), index)
            }
            Expression::AccessIndex { base, index } => self.access(operand(base), i64::from(index)),
            Expression::Splat { size, value } => {
                Value::Composite(vec![operand(value); size as usize])
            }
            Expression::Swizzle {
                size,
                vector,
                pattern,
            } => {
                let parts = operand(vector).into_parts();
                let chosen = &pattern[..size as usize];
                Value::Composite(
                    chosen
                        .iter()
                        .map(|at| parts[*at as usize].clone())
                        .collect(),
                )
            }
            Expression::Unary { op, expr } => arithmetic::unary(op, operand(expr)),
            Expression::Binary { op, left, right } => {
                arithmetic::binary(op, operand(left), operand(right))
            }
            Expression::Select {
                condition,
                accept,
                reject,
            } => arithmetic::select(operand(condition), operand(accept), operand(reject)),
            Expression::Relational { fun, argument } => {
                arithmetic::relational(fun, operand(argument))
            }
            Expression::Math {
                fun,
                arg,
                arg1,
                arg2,
                arg3: None,
            } => {
                let arguments = [Some(arg), arg1, arg2];
                arithmetic::math(fun, arguments.into_iter().flatten().map(operand).collect())
            }
            Expression::As {
                expr,
                kind,
                convert,
            } => arithmetic::convert(operand(expr), kind, convert.is_some()),
            Expression::ArrayLength(_) => Value::Uint(LENGTH as u32),
            ref other => panic!("not evaluated: {other:?}"),
        }
    }

    /// A value of a type, with each scalar made by `scalar`.
    fn filled(&self, ty: Handle<Type>, scalar: &mut dyn FnMut(ScalarKind) -> Value) -> Value {
        match &self.module.types[ty].inner {
            TypeInner::Scalar(of) | TypeInner::Atomic(of) => scalar(of.kind),
            TypeInner::Vector { size, scalar: of } => {
                Value::Composite((0..*size as usize).map(|_| scalar(of.kind)).collect())
            }
            TypeInner::Array {
                base,
                size,
                stride: _,
            } => {
                let count = match size {
                    ArraySize::Constant(count) => count.get() as usize,
                    ArraySize::Dynamic | ArraySize::Pending(_) => LENGTH,
                };
                Value::Composite((0..count).map(|_| self.filled(*base, scalar)).collect())
            }
            TypeInner::Struct { members, span: _ } => {
                let parts = members.iter().map(|member| self.filled(member.ty, scalar));
                Value::Composite(parts.collect())
            }
            other => panic!("no value of {other:?}"),
        }
    }

    fn zero(&self, ty: Handle<Type>) -> Value {
        self.filled(ty, &mut |kind| Value::of_bits(kind, 0))
    }

    /// An argument of an entry point: a structure has a binding for each member.
    fn argument(&self, ty: Handle<Type>, binding: Option<&Binding>, seed: u64) -> Value {
        let salt = match (binding, &self.module.types[ty].inner) {
            (None, TypeInner::Struct { members, span: _ }) => {
                let members = members.iter();
                let parts =
                    members.map(|member| self.argument(member.ty, member.binding.as_ref(), seed));
                return Value::Composite(parts.collect());
            }
            (Some(Binding::Location { location, .. }), _) => 16 + u64::from(*location),
            (Some(Binding::BuiltIn(builtin)), _) => match builtin {
                BuiltIn::GlobalInvocationId => 1,
                BuiltIn::LocalInvocationId => 2,
                BuiltIn::WorkGroupId => 3,
                BuiltIn::LocalInvocationIndex => 4,
                BuiltIn::Position { invariant: _ } => 5,
                BuiltIn::VertexIndex => 6,
                BuiltIn::InstanceIndex => 7,
                other => panic!("no input for {other:?}"),
            },
            (None, _) => panic!("an argument of an entry point has a binding"),
        };
        self.input(ty, seed ^ salt << 40)
    }

    /// What is returned, by its bindings.
    fn bound(
        &self,
        ty: Handle<Type>,
        binding: Option<&Binding>,
        value: Value,
        to: &mut Vec<(String, Value)>,
    ) {
        match (binding, &self.module.types[ty].inner, value) {
            (None, TypeInner::Struct { members, span: _ }, Value::Composite(parts)) => {
                for (member, part) in members.iter().zip(parts) {
                    self.bound(member.ty, member.binding.as_ref(), part, to);
                }
            }
            (
                Some(Binding::Location {
                    location,
                    blend_src,
                    ..
                }),
                _,
                value,
            ) => to.push((format!("{location} {blend_src:?}"), value)),
            (Some(builtin), _, value) => to.push((format!("{builtin:?}"), value)),
            (None, _, _) => panic!("what an entry point returns has a binding"),
        }
    }

    fn input(&self, ty: Handle<Type>, seed: u64) -> Value {
        let mut random = super::generate::Random(seed);
        self.filled(ty, &mut |kind| {
            Value::of_bits(kind, arithmetic::interesting(kind, &mut random))
        })
    }
}

fn scalar(literal: Literal) -> Value {
    match literal {
        Literal::F32(value) => Value::Float(value.to_bits()),
        Literal::U32(value) => Value::Uint(value),
        Literal::I32(value) => Value::Int(value),
        Literal::Bool(value) => Value::Bool(value),
        other => panic!("not evaluated: {other:?}"),
    }
}
