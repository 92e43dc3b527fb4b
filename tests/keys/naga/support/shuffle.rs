//! The same module in another order: every arena shuffled as far as naga allows, names changed,
//! dead items added, and statements regrouped.

use std::cell::RefCell;

use naga::{
    Arena, Block, EntryPoint, Expression, Function, Literal, Module, Range, ShaderStage, Span,
    Statement, SwitchCase, TypeInner, UniqueArena,
};

use super::generate::Random;
use super::parts::{Arm, Handles, Part};

/// The place that each item moves to, by arena.
#[derive(Default)]
struct Maps {
    types: Vec<usize>,
    constants: Vec<usize>,
    overrides: Vec<usize>,
    globals: Vec<usize>,
    locals: Vec<usize>,
    functions: Vec<usize>,
    expressions: Vec<usize>,
}

impl Handles for Maps {
    fn index(&self, arm: Arm, index: usize) -> usize {
        match arm {
            Arm::Type => self.types[index],
            Arm::Constant => self.constants[index],
            Arm::Override => self.overrides[index],
            Arm::Global => self.globals[index],
            Arm::Local => self.locals[index],
            Arm::Function => self.functions[index],
            Arm::Expression => self.expressions[index],
        }
    }
}

/// Lists the handles that it sees.
#[derive(Default)]
struct Listing(RefCell<Vec<(Arm, usize)>>);

impl Handles for Listing {
    fn index(&self, arm: Arm, index: usize) -> usize {
        self.0.borrow_mut().push((arm, index));
        index
    }
}

fn references(part: &impl Part, arm: Arm) -> Vec<usize> {
    let listing = Listing::default();
    part.mapped(&listing);
    let seen = listing.0.into_inner();
    let seen = seen.into_iter().filter(|(of, _)| *of == arm);
    seen.map(|(_, index)| index).collect()
}

/// A random order in which each item follows those that it needs: its new place, by its old one.
fn order(needs: &[Vec<usize>], random: &mut Random) -> Vec<usize> {
    let mut missing: Vec<_> = needs.iter().map(Vec::len).collect();
    let mut users = vec![Vec::new(); needs.len()];
    for (item, needs) in needs.iter().enumerate() {
        for need in needs {
            users[*need].push(item);
        }
    }
    let mut ready: Vec<_> = (0..needs.len())
        .filter(|item| missing[*item] == 0)
        .collect();
    let mut places = vec![0; needs.len()];
    for place in 0..needs.len() {
        let item = ready.swap_remove(random.below(ready.len()));
        places[item] = place;
        for user in &users[item] {
            missing[*user] -= 1;
            if missing[*user] == 0 {
                ready.push(*user);
            }
        }
    }
    places
}

fn any_order(count: usize, random: &mut Random) -> Vec<usize> {
    order(&vec![Vec::new(); count], random)
}

/// The items with their handles replaced, each in its new place.
fn moved<T: Part>(items: Vec<T>, places: &[usize], maps: &Maps) -> Vec<T> {
    let mut moved: Vec<_> = places.iter().copied().zip(items).collect();
    moved.sort_by_key(|(place, _)| *place);
    moved
        .into_iter()
        .map(|(_, item)| item.mapped(maps))
        .collect()
}

fn items<T: Clone>(arena: &Arena<T>) -> Vec<T> {
    arena.iter().map(|(_, item)| item.clone()).collect()
}

fn arena<T>(items: Vec<T>) -> Arena<T> {
    let mut arena = Arena::new();
    for item in items {
        arena.append(item, Span::UNDEFINED);
    }
    arena
}

/// Shuffles a module.
pub(crate) fn shuffle(module: &Module, random: &mut Random) -> Module {
    let types: Vec<_> = module.types.iter().map(|(_, ty)| ty.clone()).collect();
    let constants = items(&module.constants);
    let overrides = items(&module.overrides);
    let globals = items(&module.global_variables);
    let expressions = items(&module.global_expressions);
    let functions = items(&module.functions);

    let needs = |ty| references(ty, Arm::Type);
    let type_needs: Vec<_> = types.iter().map(needs).collect();
    let expression_needs: Vec<_> = expressions
        .iter()
        .map(|expression| {
            let mut needs = references(expression, Arm::Expression);
            let constants = references(expression, Arm::Constant).into_iter();
            needs.extend(constants.map(|of| module_init(&module.constants, of)));
            needs
        })
        .collect();
    let calls = |function: &Function| references(&function.body, Arm::Function);
    let function_needs: Vec<_> = functions.iter().map(calls).collect();
    // The length of an array ties types and expressions together: these stay.
    let tied = types
        .iter()
        .any(|ty| !references(ty, Arm::Override).is_empty());
    let mut maps = Maps {
        types: if tied {
            (0..types.len()).collect()
        } else {
            order(&type_needs, random)
        },
        constants: any_order(constants.len(), random),
        overrides: any_order(overrides.len(), random),
        globals: any_order(globals.len(), random),
        functions: order(&function_needs, random),
        expressions: if tied {
            (0..expressions.len()).collect()
        } else {
            order(&expression_needs, random)
        },
        locals: Vec::new(),
    };

    let mut out = Module {
        special_types: module.special_types.mapped(&maps),
        ..Module::default()
    };
    let mut shuffled = UniqueArena::new();
    for mut ty in moved(types, &maps.types, &maps) {
        rename_type(&mut ty, module, random);
        shuffled.insert(ty, Span::UNDEFINED);
    }
    out.types = shuffled;
    let mut constants = moved(constants, &maps.constants, &maps);
    for constant in &mut constants {
        constant.name = Some(format!("constant_{}", random.below(1000)));
    }
    out.constants = arena(constants);
    out.overrides = arena(moved(overrides, &maps.overrides, &maps));
    let mut globals = moved(globals, &maps.globals, &maps);
    for global in &mut globals {
        global.name = Some(format!("global_{}", random.below(1000)));
    }
    out.global_variables = arena(globals);
    out.global_expressions = arena(moved(expressions, &maps.expressions, &maps));

    let mut entry_points = module.entry_points.clone();
    for entry in &mut entry_points {
        let EntryPoint {
            workgroup_size_overrides,
            mesh_info,
            task_payload,
            incoming_ray_payload,
            ..
        } = entry;
        *workgroup_size_overrides = workgroup_size_overrides.mapped(&maps);
        *mesh_info = mesh_info.mapped(&maps);
        *task_payload = task_payload.mapped(&maps);
        *incoming_ray_payload = incoming_ray_payload.mapped(&maps);
        entry.function = shuffle_function(&entry.function, &mut maps, random);
    }
    if random.one_in(2) {
        entry_points.reverse();
    }
    out.entry_points = entry_points;
    let places = maps.functions.clone();
    let functions: Vec<_> = functions
        .iter()
        .map(|function| shuffle_function(function, &mut maps, random))
        .collect();
    let mut functions: Vec<_> = places.into_iter().zip(functions).collect();
    functions.sort_by_key(|(place, _)| *place);
    out.functions = arena(
        functions
            .into_iter()
            .map(|(_, function)| function)
            .collect(),
    );
    add_dead_items(&mut out);
    out
}

fn module_init(constants: &Arena<naga::Constant>, index: usize) -> usize {
    let constant = constants.iter().nth(index).map(|(_, constant)| constant);
    constant.unwrap().init.index()
}

/// Types that back ends look up by name keep it.
fn rename_type(ty: &mut naga::Type, module: &Module, random: &mut Random) {
    let special = module.special_types.clone();
    let any_special = !references(&special, Arm::Type).is_empty();
    if any_special {
        return;
    }
    if let TypeInner::Struct { members, span: _ } = &mut ty.inner {
        ty.name = Some(format!("type_{}", random.next()));
        for member in members {
            member.name = Some(format!("member_{}", random.next()));
        }
    }
}

fn shuffle_function(function: &Function, maps: &mut Maps, random: &mut Random) -> Function {
    let mut function = function.clone();
    function.name = Some(format!("function_{}", random.next()));
    function.named_expressions.clear();
    function.diagnostic_filter_leaf = None;
    for argument in &mut function.arguments {
        argument.name = None;
    }
    // Dead weight in front of all else.
    split_emits(&mut function.body);
    regroup(&mut function.body, random);
    let expressions = items(&function.expressions);
    let needs = |expression| references(expression, Arm::Expression);
    let needs: Vec<_> = expressions.iter().map(needs).collect();
    let outer = std::mem::replace(&mut maps.expressions, order(&needs, random));
    let locals = items(&function.local_variables);
    maps.locals = any_order(locals.len(), random);
    let mut shuffled = Function {
        name: function.name,
        arguments: function.arguments.mapped(maps),
        result: function.result.mapped(maps),
        local_variables: arena(moved(locals, &maps.locals, maps)),
        expressions: arena(moved(expressions, &maps.expressions, maps)),
        body: function.body.mapped(maps),
        ..Function::default()
    };
    maps.expressions = outer;
    let dead = Expression::Literal(Literal::U32(9));
    let dead = shuffled.expressions.append(dead, Span::UNDEFINED);
    shuffled.named_expressions.insert(dead, "dead".to_owned());
    shuffled
}

/// One expression an `Emit`, so that the arena can be in any order.
fn split_emits(block: &mut Block) {
    let mut statements = Vec::new();
    for mut statement in std::mem::take(block).iter().cloned() {
        if let Statement::Emit(range) = statement {
            for handle in range {
                let one = Range::new_from_bounds(handle, handle);
                statements.push(Statement::Emit(one));
            }
            continue;
        }
        nested(&mut statement, &mut split_emits);
        statements.push(statement);
    }
    *block = Block::from_vec(statements);
}

fn nested(statement: &mut Statement, each: &mut dyn FnMut(&mut Block)) {
    match statement {
        Statement::Block(inner) => each(inner),
        Statement::If { accept, reject, .. } => {
            each(accept);
            each(reject);
        }
        Statement::Loop {
            body, continuing, ..
        } => {
            each(body);
            each(continuing);
        }
        Statement::Switch { cases, .. } => {
            cases
                .iter_mut()
                .for_each(|SwitchCase { body, .. }| each(body));
        }
        _ => {}
    }
}

/// Puts the end of a body into a block of its own. Not in loops, whose `continuing` may use what
/// the body has evaluated.
fn regroup(body: &mut Block, random: &mut Random) {
    let mut statements: Vec<_> = body.iter().cloned().collect();
    for statement in &mut statements {
        if let Statement::If { accept, reject, .. } = statement {
            regroup(accept, random);
            regroup(reject, random);
        }
    }
    if statements.len() > 1 && random.one_in(2) {
        let end = statements.split_off(1 + random.below(statements.len() - 1));
        statements.push(Statement::Block(Block::from_vec(end)));
    }
    *body = Block::from_vec(statements);
}

/// What no entry point reaches.
fn add_dead_items(module: &mut Module) {
    let ty = naga::Type {
        name: Some("Dead".to_owned()),
        inner: TypeInner::Scalar(naga::Scalar::U32),
    };
    let ty = module.types.insert(ty, Span::UNDEFINED);
    let literal = Expression::Literal(Literal::U32(77));
    let init = module.global_expressions.append(literal, Span::UNDEFINED);
    let name = Some("dead".to_owned());
    let constant = naga::Constant { name, ty, init };
    module.constants.append(constant, Span::UNDEFINED);
    module
        .functions
        .append(Function::default(), Span::UNDEFINED);
    let stage = ShaderStage::Compute;
    assert!(module.entry_points.iter().all(|entry| entry.stage <= stage));
}
