//! One change to a generated shader: some keep its meaning, some do not, and the mutator does not
//! know which.

use super::entries;
use super::generate::{BARRIERS, Body, Expr, Kind, Node, Random, Shader, Stmt, Type, literals};

/// The changes, by name.
pub(crate) const CHANGES: [&str; 35] = [
    "operator",
    "operands swapped",
    "comparison turned round",
    "literal",
    "another name",
    "components",
    "function",
    "identity added",
    "cast",
    "statements swapped",
    "statement removed",
    "statement repeated",
    "statement moved",
    "block added",
    "barrier added",
    "`let` written out",
    "`let` added",
    "assignment spelled out",
    "declarations rotated",
    "renamed and respaced",
    "empty `if` added",
    "`if true` around",
    "`if false` in front",
    "`else` of an `if` turned",
    "statement after `return`",
    "`while` for `for`",
    "`loop` for `for`",
    "`var` for `let`",
    "`== true`, `!= false`",
    "`!` twice",
    "conversion to its own type",
    "components of a vector",
    "zero by its type",
    "equal function",
    "another form",
];

/// Those that keep the meaning, wherever they are made.
pub(crate) const SAME: [&str; 18] = [
    "block added",
    "assignment spelled out",
    "declarations rotated",
    "renamed and respaced",
    "empty `if` added",
    "`if true` around",
    "`if false` in front",
    "`else` of an `if` turned",
    "statement after `return`",
    "`while` for `for`",
    "`loop` for `for`",
    "`var` for `let`",
    "`== true`, `!= false`",
    "`!` twice",
    "conversion to its own type",
    "components of a vector",
    "zero by its type",
    "equal function",
];

/// Applies a change at a random place, if there is one that it fits.
pub(crate) fn mutate(shader: &Shader, change: &str, random: &mut Random) -> Option<Shader> {
    let mut mutant = shader.clone();
    let changed = match change {
        "declarations rotated" => {
            mutant.rotation += 1 + random.below(8);
            true
        }
        "renamed and respaced" => {
            mutant.prefix = "renamed_";
            mutant.space = " /* */\n ";
            true
        }
        "equal function" => add_twin(&mut mutant, random),
        "another form" => {
            let at = random.below(mutant.mains.len());
            mutant.mains[at].turn(random)
        }
        _ => (0..20).any(|_| {
            let (helpers, mains) = (mutant.helpers.len(), mutant.mains.len());
            let body = match random.below(helpers + 2 * mains) {
                helper if helper < helpers => &mut mutant.helpers[helper].body,
                main => &mut mutant.mains[(main - helpers) / 2].body,
            };
            in_body(body, change, random)
        }),
    };
    (changed && mutant != *shader && !passes_over_a_declaration(&mut mutant)).then_some(mutant)
}

/// Whether a `continue` goes past the declaration of a name that ends its loop. WGSL forbids it, and
/// naga takes it.
fn passes_over_a_declaration(shader: &mut Shader) -> bool {
    let helpers = shader.helpers.iter_mut().map(|helper| &mut helper.body);
    let mains = shader.mains.iter_mut().map(|main| &mut main.body);
    helpers.chain(mains).flatten().any(passes_over)
}

fn passes_over(statement: &mut Stmt) -> bool {
    if let Stmt::Loop(_, body, until) | Stmt::Bare(_, body, until) = statement {
        let mut later = body.iter().skip_while(|statement| !continues(statement));
        let declares_it = later.any(|statement| match statement {
            Stmt::Let(name, _) | Stmt::Var(name, _) => names(until, name),
            Stmt::Loop(name, ..) | Stmt::Bare(name, ..) => names(until, name),
            _ => false,
        });
        if declares_it {
            return true;
        }
    }
    statement.bodies().into_iter().flatten().any(passes_over)
}

fn names(expr: &mut Expr, name: &str) -> bool {
    matches!(&expr.node, Node::Name(of) if of == name)
        || expr.operands().into_iter().any(|of| names(of, name))
}

/// Somewhere in a body or in one that it nests.
fn in_body(body: &mut Body, change: &str, random: &mut Random) -> bool {
    if body.is_empty() {
        return false;
    }
    let at = random.below(body.len());
    let mut nested = body[at].bodies();
    if !nested.is_empty() && random.one_in(2) {
        let chosen = random.below(nested.len());
        return in_body(nested.swap_remove(chosen), change, random);
    }
    match change {
        "statements swapped" => {
            at + 1 < body.len() && {
                body.swap(at, at + 1);
                true
            }
        }
        "statement removed" => {
            body.remove(at);
            true
        }
        "statement repeated" => match body[at] {
            Stmt::Let(..) | Stmt::Var(..) => false,
            _ => {
                body.insert(at, body[at].clone());
                true
            }
        },
        "statement moved" => {
            let statement = body.remove(at);
            body.insert(random.below(body.len() + 1), statement);
            true
        }
        "block added" => match body[at] {
            Stmt::Let(..) | Stmt::Var(..) => false,
            _ => {
                let statement = body.remove(at);
                body.insert(at, Stmt::Block(vec![statement]));
                true
            }
        },
        "empty `if` added" => {
            body.insert(at, Stmt::If(some_condition(), Vec::new(), Vec::new()));
            true
        }
        "`if true` around" => match body[at] {
            Stmt::Let(..) | Stmt::Var(..) | Stmt::Loop(..) | Stmt::Bare(..) => false,
            _ => {
                let accept = vec![body.remove(at)];
                body.insert(at, Stmt::If(literal("true"), accept, Vec::new()));
                true
            }
        },
        "`if false` in front" => {
            let accept = vec![Stmt::Plain("p = 77;")];
            body.insert(at, Stmt::If(literal("false"), accept, Vec::new()));
            true
        }
        "`else` of an `if` turned" => match &mut body[at] {
            Stmt::If(condition, accept, reject) if reject.is_empty() => {
                let node = Node::Unary("!", Box::new(condition.clone()));
                condition.node = node;
                std::mem::swap(accept, reject);
                true
            }
            _ => false,
        },
        "statement after `return`" => match body[at] {
            Stmt::Return(_) => {
                body.insert(at + 1, Stmt::Plain("p = 77;"));
                true
            }
            _ => false,
        },
        "`while` for `for`" => match body[at].clone() {
            Stmt::For(name, end, inner) if !inner.iter().any(continues) => {
                body[at] = Stmt::While(name, end, inner);
                true
            }
            _ => false,
        },
        "`loop` for `for`" => match body[at].clone() {
            Stmt::For(name, end, inner) => {
                body[at] = Stmt::Leaving(name, end, inner);
                true
            }
            _ => false,
        },
        "`var` for `let`" => match body[at].clone() {
            Stmt::Let(name, value) => {
                body[at] = Stmt::Var(name, value);
                true
            }
            _ => false,
        },
        "barrier added" => {
            body.insert(at, Stmt::Plain(random.pick(&BARRIERS)));
            true
        }
        "`let` written out" => write_out(body, at),
        "`let` added" => add_let(body, at, random),
        "assignment spelled out" => spell_out(&mut body[at]),
        _ => {
            let mut exprs = body[at].exprs();
            if exprs.is_empty() {
                return false;
            }
            let chosen = random.below(exprs.len());
            in_expr(exprs.swap_remove(chosen), change, random)
        }
    }
}

fn in_expr(expr: &mut Expr, change: &str, random: &mut Random) -> bool {
    let operands = expr.operands();
    if !operands.is_empty() && random.below(3) > 0 {
        let chosen = random.below(operands.len());
        return in_expr(&mut *expr.operands()[chosen], change, random);
    }
    let ty = expr.ty;
    match (change, &mut expr.node) {
        ("operator", Node::Binary(op, _, _)) => {
            let classes: [&[&str]; 5] = [
                &["+", "-", "*", "/"],
                &["&", "|", "^"],
                &["<<", ">>"],
                &["<", "<=", ">", ">=", "==", "!="],
                &["&&", "||"],
            ];
            let class = classes.iter().find(|class| class.contains(op));
            class.is_some_and(|class| {
                *op = random.pick(class);
                true
            })
        }
        ("operands swapped", Node::Binary(_, left, right)) => {
            std::mem::swap(left, right);
            true
        }
        ("operands swapped", Node::Call(_, arguments)) => {
            arguments.len() > 1 && {
                arguments.swap(0, 1);
                true
            }
        }
        ("comparison turned round", Node::Binary(op, left, right)) => {
            let turned = match *op {
                "<" => ">",
                ">" => "<",
                "<=" => ">=",
                ">=" => "<=",
                "==" | "!=" => *op,
                _ => return false,
            };
            *op = turned;
            std::mem::swap(left, right);
            true
        }
        ("literal", Node::Literal(text)) => {
            *text = random.pick(literals(ty.kind));
            true
        }
        ("another name", Node::Name(name)) if name.contains('.') => {
            let Some(other) = entries::other(name) else {
                return false;
            };
            *name = other.to_owned();
            true
        }
        ("another name", Node::Name(name)) => {
            *name = format!("x_{}", 1 + random.below(12));
            true
        }
        ("another name", Node::Element(array, _)) => {
            *array = random.pick(match *array {
                "u" | "w" => &["u", "w"],
                _ => &["f", "i"],
            });
            true
        }
        ("components", Node::Swizzle(_, pattern)) => {
            let letter = random.pick(&["x", "y"]);
            pattern.replace_range(0..1, letter);
            true
        }
        ("function", Node::Call(name, _)) => {
            let classes: [&[&str]; 4] = [
                &["min", "max"],
                &["clamp", "fma", "mix"],
                &["abs", "floor", "ceil", "trunc", "sign"],
                &["all", "any"],
            ];
            let class = classes.iter().find(|class| class.contains(&name.as_str()));
            class.is_some_and(|class| {
                *name = random.pick(class).to_owned();
                true
            })
        }
        ("function", Node::Atomic(name, _)) => {
            *name = random.pick(&["atomicAdd", "atomicMax", "atomicOr"]);
            true
        }
        ("cast", Node::Call(name, _)) if *name == ty.name() && ty.kind != Kind::Bool => {
            *name = format!("bitcast<{name}>");
            true
        }
        ("`== true`, `!= false`", _) if ty == Type::scalar(Kind::Bool) => {
            let (op, text) = random.pick(&[("==", "true"), ("!=", "false")]);
            let mut operands = [expr.clone(), literal(text)];
            if random.one_in(2) {
                operands.reverse();
            }
            let [left, right] = operands.map(Box::new);
            expr.node = Node::Binary(op, left, right);
            true
        }
        ("`!` twice", _) if ty.kind == Kind::Bool => {
            let node = Node::Unary("!", Box::new(expr.clone()));
            let once = Expr { ty, node };
            expr.node = Node::Unary("!", Box::new(once));
            true
        }
        ("conversion to its own type", _) => {
            expr.node = Node::Call(ty.name(), vec![expr.clone()]);
            true
        }
        ("components of a vector", _) if ty.size > 1 => {
            expr.node = Node::Swizzle(Box::new(expr.clone()), "xyzw"[..ty.size].to_owned());
            true
        }
        ("components of a vector", Node::Swizzle(of, pattern))
            if matches!(of.node, Node::Swizzle(..) | Node::Name(_)) && ty.size == 1 =>
        {
            // Of all components, in another order, the one that was meant.
            let back: String = "xyzw"[..of.ty.size].chars().rev().collect();
            let part = "xyzw".find(&*pattern).unwrap_or_default();
            let Some(turned) = back
                .chars()
                .position(|letter| "xyzw".find(letter) == Some(part))
            else {
                return false;
            };
            *pattern = "xyzw"[turned..=turned].to_owned();
            let whole = Expr {
                ty: of.ty,
                node: Node::Swizzle(of.clone(), back),
            };
            **of = whole;
            true
        }
        ("zero by its type", Node::Literal("0i" | "0u" | "0f" | "false")) => {
            expr.node = Node::Call(ty.name(), Vec::new());
            true
        }
        ("identity added", _) => {
            add_identity(expr, random);
            true
        }
        _ => false,
    }
}

fn literal(text: &'static str) -> Expr {
    Expr {
        ty: Type::scalar(Kind::Bool),
        node: Node::Literal(text),
    }
}

/// What can be asked everywhere.
fn some_condition() -> Expr {
    let one = Expr::name(Type::scalar(Kind::Int), "p");
    let two = Expr {
        ty: Type::scalar(Kind::Int),
        node: Node::Literal("2i"),
    };
    Expr {
        ty: Type::scalar(Kind::Bool),
        node: Node::Binary("<", Box::new(one), Box::new(two)),
    }
}

/// Whether a statement goes on with the next round of the loop that it stands in.
fn continues(statement: &Stmt) -> bool {
    match statement {
        Stmt::Plain(text) => text.contains("continue"),
        Stmt::If(_, one, two) | Stmt::Switch(_, one, two) => one.iter().chain(two).any(continues),
        Stmt::Block(body) => body.iter().any(continues),
        _ => false,
    }
}

/// A function that is equal to another, and is called in its place somewhere.
fn add_twin(shader: &mut Shader, random: &mut Random) -> bool {
    if shader.helpers.is_empty() {
        return false;
    }
    let chosen = random.below(shader.helpers.len());
    let mut twin = shader.helpers[chosen].clone();
    let name = std::mem::replace(&mut twin.name, "x_twin".to_owned());
    let renamed = shader
        .mains
        .iter_mut()
        .flat_map(|main| &mut main.body)
        .any(|statement| rename_call(statement, &name));
    shader.helpers.push(twin);
    renamed
}

/// Calls the twin at the first place where a function is called.
fn rename_call(statement: &mut Stmt, name: &str) -> bool {
    let in_exprs = statement
        .exprs()
        .into_iter()
        .any(|expr| rename_in(expr, name));
    in_exprs
        || statement
            .bodies()
            .into_iter()
            .flatten()
            .any(|statement| rename_call(statement, name))
}

fn rename_in(expr: &mut Expr, name: &str) -> bool {
    if let Node::Call(called, _) = &mut expr.node {
        if called == name {
            *called = "x_twin".to_owned();
            return true;
        }
    }
    expr.operands()
        .into_iter()
        .any(|operand| rename_in(operand, name))
}

/// Not all are: floats have NaNs and two zeros.
fn add_identity(expr: &mut Expr, random: &mut Random) {
    let ty = expr.ty;
    let of = expr.clone();
    let literal = |text| Expr {
        ty,
        node: Node::Literal(text),
    };
    let (op, text) = match (ty.kind, random.below(2)) {
        (Kind::Bool, _) => ("|", "false"),
        (Kind::Int, 0) => ("+", "0i"),
        (Kind::Int, _) => ("*", "1i"),
        (Kind::Uint, 0) => ("+", "0u"),
        (Kind::Uint, _) => ("*", "1u"),
        (Kind::Float, 0) => ("+", "0f"),
        (Kind::Float, _) => ("*", "1f"),
    };
    expr.node = match random.below(4) {
        0 => Node::Binary(op, Box::new(literal(text)), Box::new(of)),
        1 => Node::Swizzle(Box::new(of), "xyzw"[..ty.size].to_owned()),
        2 => Node::Call(ty.name(), vec![of]),
        _ => Node::Binary(op, Box::new(of), Box::new(literal(text))),
    };
}

/// Replaces the uses of a `let` in the statements after it.
fn write_out(body: &mut Body, at: usize) -> bool {
    let Stmt::Let(name, value) = body[at].clone() else {
        return false;
    };
    body.remove(at);
    for statement in &mut body[at..] {
        replace_in_statement(statement, &name, &value);
    }
    true
}

fn replace_in_statement(statement: &mut Stmt, name: &str, value: &Expr) {
    for expr in statement.exprs() {
        replace(expr, name, value);
    }
    for body in statement.bodies() {
        for statement in body {
            replace_in_statement(statement, name, value);
        }
    }
}

fn replace(expr: &mut Expr, name: &str, value: &Expr) {
    if matches!(&expr.node, Node::Name(of) if of == name) {
        *expr = value.clone();
        return;
    }
    for operand in expr.operands() {
        replace(operand, name, value);
    }
}

/// Binds a part of a statement by a `let` in front of it.
fn add_let(body: &mut Body, at: usize, random: &mut Random) -> bool {
    let mut exprs = body[at].exprs();
    let Some(mut expr) = exprs.pop() else {
        return false;
    };
    while random.below(3) > 0 && !expr.operands().is_empty() {
        let chosen = random.below(expr.operands().len());
        expr = expr.operands().swap_remove(chosen);
    }
    let bound = expr.clone();
    *expr = Expr::name(bound.ty, "x_added");
    body.insert(at, Stmt::Let("x_added".into(), bound));
    true
}

fn spell_out(statement: &mut Stmt) -> bool {
    let Stmt::Assign(place, op, value) = statement else {
        return false;
    };
    if op.is_empty() {
        return false;
    }
    let ty: Type = place.ty;
    let node = Node::Binary(op, Box::new(place.clone()), Box::new(value.clone()));
    *value = Expr { ty, node };
    *op = "";
    true
}
