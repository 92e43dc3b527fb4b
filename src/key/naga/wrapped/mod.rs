//! Modules whose entry points are wrappers, in the plain form that their code was written in.
//!
//! SPIR-V knows neither arguments nor results of entry points. naga's reader keeps each input and
//! each output in a private variable, and makes an entry point that stores its arguments there,
//! calls the function with the code, and returns what that has left in the outputs. Whoever
//! writes such a module as text, in WGSL for one, has the same wrappers.
//!
//! | in the source | here | why it is the same |
//! |---|---|---|
//! | an entry point that calls one function, which nothing else calls | its body, with what follows the call before each `return` | a call does what the body does, and each way out of it leads to what follows |
//! | a private variable that nothing uses which the function calls | a variable of the entry point | it lives as long, begins with the same value, and nobody else can see it: what uses it beside is another entry point's, and so another invocation's |
//! | an output that is stored right before it is returned | what is stored | nothing comes between |
//! | arguments that are put together as a structure | an argument that is the structure | the parts are the same, in order |
//! | a result of all parts of a structure, in order | the structure | the same parts |
//! | a buffer that holds a structure of one member, as large as it is | a buffer that holds the member | the same bytes, at the same place |
//!
//! A module without such entry points is none of this, and pays for a glance at each.

mod blocks;
mod buffers;
mod copies;
mod inline;
mod outputs;
mod size;
mod spelling;
mod types;
mod uses;

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{
    AddressSpace, Block, Expression, Function, GlobalVariable, Handle, LocalVariable, Module,
    Statement, UnaryOperator,
};

use super::module::is_interface;
use super::validate::validate_again;
use inline::Inlining;

/// How many wrappers may stand in each other. More are left as they are.
const ROUNDS: usize = 8;

/// The plain form of a module that naga finds valid, if it has another, and what naga finds in it.
pub(super) fn plain(source: &Module, info: &ModuleInfo) -> Option<(Module, ModuleInfo)> {
    let mut plain = unwrapped(source, info)?;
    for _ in 1..ROUNDS {
        match unwrapped(&plain.0, &plain.1) {
            Some(next) => plain = next,
            None => break,
        }
    }
    Some(plain)
}

fn unwrapped(source: &Module, info: &ModuleInfo) -> Option<(Module, ModuleInfo)> {
    let mains = source.entry_points.iter().enumerate();
    let wrappers = mains.filter_map(|(entry, main)| {
        Wrapper::of(source, &main.function).map(|wrapper| (entry, wrapper))
    });
    let wrappers: Vec<_> = wrappers.collect();
    if wrappers.is_empty() {
        return None;
    }
    let callers = callers(source);
    let mut module = source.clone();
    spelling::respell(&mut module, info);
    let mut inlining = Inlining::new(&mut module, info);
    let mut any = false;
    for (entry, wrapper) in wrappers {
        let (main, callee) = (info.get_entry_point(entry), &info[wrapper.callee]);
        if callers[wrapper.callee.index()] == 1 && uses_no_other(source, main, callee) {
            any |= inlining.inline(entry, &wrapper);
        }
    }
    if !any {
        return None;
    }
    inlining.finish();
    buffers::unwrap(&mut module);
    // What naga does not find valid is left as it is, whatever the reason.
    let info = validate_again(&module).ok()?;
    Some((module, info))
}

/// An entry point that does nothing but pass values to and from one function.
struct Wrapper {
    callee: Handle<Function>,
    /// Where the call stands in the body.
    call: usize,
}

impl Wrapper {
    fn of(module: &Module, main: &Function) -> Option<Self> {
        let call = main.body.iter().position(|it| !is_passing(it))?;
        let Statement::Call {
            function: callee,
            ref arguments,
            result: None,
        } = main.body[call]
        else {
            return None;
        };
        let (last, rest) = match main.body[call + 1..].split_last() {
            Some((last, rest)) => (Some(last), rest),
            None => (None, &[][..]),
        };
        let ends = |it: &Statement| is_passing(it) || matches!(it, Statement::Return { value: _ });
        let passing = main.body.iter().filter(|it| is_passing(it));
        let is_wrapper = arguments.is_empty()
            && main
                .local_variables
                .iter()
                .all(|(_, local)| is_plain(main, local))
            && rest.iter().all(is_passing)
            && last.is_none_or(ends)
            && passing.into_iter().all(|it| passes(module, main, it));
        is_wrapper.then_some(Self { callee, call })
    }
}

/// Whether a statement can be one of a wrapper.
const fn is_passing(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Emit(_)
            | Statement::Store {
                pointer: _,
                value: _
            }
    )
}

/// Whether a statement of a wrapper reads and writes nothing but arguments and variables
/// that no other invocation can see.
fn passes(module: &Module, main: &Function, statement: &Statement) -> bool {
    let is_own = |pointer| match main.expressions[root(main, pointer)] {
        Expression::GlobalVariable(global) => is_private(module, global),
        Expression::LocalVariable(_) => true,
        _ => false,
    };
    let is_plain = |expression| match main.expressions[expression] {
        Expression::Load { pointer } => is_own(pointer),
        Expression::AccessIndex { base: _, index: _ }
        | Expression::Compose {
            ty: _,
            components: _,
        }
        | Expression::As {
            expr: _,
            kind: _,
            convert: _,
        }
        | Expression::Unary {
            op: UnaryOperator::Negate,
            expr: _,
        } => true,
        _ => false,
    };
    match *statement {
        Statement::Emit(ref range) => range.clone().all(is_plain),
        Statement::Store { pointer, value: _ } => is_own(pointer),
        _ => false,
    }
}

/// Whether an entry point uses no variable that others see but by the function. `_ = texture;` is
/// no statement, and keeps one in the interface.
fn uses_no_other(module: &Module, main: &FunctionInfo, callee: &FunctionInfo) -> bool {
    let globals = module.global_variables.iter();
    let mut seen = globals.filter(|(_, global)| is_interface(global.space));
    seen.all(|(global, _)| main[global].is_empty() || !callee[global].is_empty())
}

/// What a pointer of a wrapper points to or into.
fn root(main: &Function, mut pointer: Handle<Expression>) -> Handle<Expression> {
    while let Expression::AccessIndex { base, index: _ } = main.expressions[pointer] {
        pointer = base;
    }
    pointer
}

/// Whether the initial value of a variable refers to nothing in its function.
fn is_plain(main: &Function, local: &LocalVariable) -> bool {
    local.init.is_none_or(|init| {
        matches!(
            main.expressions[init],
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_)
        )
    })
}

fn is_private(module: &Module, global: Handle<GlobalVariable>) -> bool {
    matches!(module.global_variables[global].space, AddressSpace::Private)
}

/// How many calls of each function there are.
fn callers(module: &Module) -> Vec<usize> {
    let mut callers = vec![0; module.functions.len()];
    let mut count = |body: &Block| {
        blocks::each_leaf(body, &mut |leaf| {
            if let Some(callee) = leaf.callee() {
                callers[callee.index()] += 1;
            }
        });
    };
    let functions = module.functions.iter().map(|(_, function)| function);
    functions.for_each(|function| count(&function.body));
    let mains = module.entry_points.iter();
    mains.for_each(|main| count(&main.function.body));
    callers
}
