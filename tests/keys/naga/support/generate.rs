//! Shaders made up at random: integers, floats, vectors, locals, blocks, branches, loops,
//! calls, atomics, barriers, and memory of every kind.

use std::fmt::Write as _;

use super::entries::{self, Form, Main, Stage};
pub(crate) use super::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int,
    Uint,
    Float,
}

/// A scalar, or a vector of two to four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) kind: Kind,
    pub(crate) size: usize,
}

impl Type {
    pub(crate) fn name(self) -> String {
        let scalar = match self.kind {
            Kind::Bool => "bool",
            Kind::Int => "i32",
            Kind::Uint => "u32",
            Kind::Float => "f32",
        };
        match self.size {
            1 => scalar.to_owned(),
            size => format!("vec{size}<{scalar}>"),
        }
    }

    /// A vector of four floats.
    pub(crate) const VECTOR: Self = Self {
        kind: Kind::Float,
        size: 4,
    };

    pub(crate) const fn scalar(kind: Kind) -> Self {
        Self { kind, size: 1 }
    }

    pub(crate) const fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

pub(crate) const INDEX: Type = Type::scalar(Kind::Uint);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expr {
    pub(crate) ty: Type,
    pub(crate) node: Node,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Literal(&'static str),
    /// A `let`, an argument, a variable, a member of the uniform.
    Name(String),
    Element(&'static str, Box<Expr>),
    Unary(&'static str, Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Call(String, Vec<Expr>),
    Swizzle(Box<Expr>, String),
    Atomic(&'static str, Box<Expr>),
}

impl Expr {
    fn new(ty: Type, node: Node) -> Self {
        Self { ty, node }
    }

    pub(crate) fn name(ty: Type, name: &str) -> Self {
        Self::new(ty, Node::Name(name.to_owned()))
    }

    pub(crate) fn operands(&mut self) -> Vec<&mut Self> {
        match &mut self.node {
            Node::Literal(_) | Node::Name(_) => Vec::new(),
            Node::Element(_, of) | Node::Unary(_, of) | Node::Atomic(_, of) => vec![of],
            Node::Swizzle(of, _) => vec![of],
            Node::Binary(_, left, right) => vec![left, right],
            Node::Call(_, arguments) => arguments.iter_mut().collect(),
        }
    }

    fn print(&self) -> String {
        match &self.node {
            Node::Literal(text) if self.ty.size > 1 => format!("{}({text})", self.ty.name()),
            Node::Literal(text) => (*text).to_owned(),
            Node::Name(name) => name.clone(),
            Node::Element(array, index) => format!("{array}[{}]", index.print()),
            Node::Unary(op, of) => format!("({op}{})", of.print()),
            Node::Binary(op, left, right) => format!("({} {op} {})", left.print(), right.print()),
            Node::Call(function, arguments) => {
                let arguments: Vec<_> = arguments.iter().map(Self::print).collect();
                format!("{function}({})", arguments.join(", "))
            }
            Node::Swizzle(of, pattern) => format!("{}.{pattern}", of.print()),
            Node::Atomic(function, operand) => format!("{function}(&a, {})", operand.print()),
        }
    }
}

pub(crate) type Body = Vec<Stmt>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stmt {
    Let(String, Expr),
    Var(String, Expr),
    /// A place, an operator in front of `=` or nothing, and a value.
    Assign(Expr, &'static str, Expr),
    If(Expr, Body, Body),
    For(String, Expr, Body),
    /// What a `for` says, in a `while`, and in a `loop`.
    While(String, Expr, Body),
    Leaving(String, Expr, Body),
    Loop(String, Body, Expr),
    /// A loop that counts in its body, and whose `continuing` does nothing but end it.
    Bare(String, Body, Expr),
    Switch(Expr, Body, Body),
    Block(Body),
    Plain(&'static str),
    /// A call whose result nobody takes.
    Call(Expr),
    Return(Expr),
}

impl Stmt {
    pub(crate) fn exprs(&mut self) -> Vec<&mut Expr> {
        match self {
            Self::Let(_, value) | Self::Var(_, value) => vec![value],
            Self::Assign(place, _, value) => vec![place, value],
            Self::If(at, _, _) | Self::For(_, at, _) => vec![at],
            Self::Loop(_, _, at) | Self::Bare(_, _, at) => vec![at],
            Self::While(_, at, _) | Self::Leaving(_, at, _) => vec![at],
            Self::Switch(at, _, _) | Self::Call(at) | Self::Return(at) => vec![at],
            Self::Block(_) | Self::Plain(_) => Vec::new(),
        }
    }

    pub(crate) fn bodies(&mut self) -> Vec<&mut Body> {
        match self {
            Self::If(_, one, two) | Self::Switch(_, one, two) => vec![one, two],
            Self::For(_, _, body) | Self::Block(body) => vec![body],
            Self::Loop(_, body, _) | Self::Bare(_, body, _) => vec![body],
            Self::While(_, _, body) | Self::Leaving(_, _, body) => vec![body],
            Self::Let(..) | Self::Var(..) | Self::Assign(..) => Vec::new(),
            Self::Plain(_) | Self::Call(_) | Self::Return(_) => Vec::new(),
        }
    }

    fn print(&self, out: &mut String) {
        let _ = match self {
            Self::Let(name, value) => writeln!(out, "let {name} = {};", value.print()),
            Self::Var(name, value) => writeln!(out, "var {name} = {};", value.print()),
            Self::Assign(place, op, value) => {
                writeln!(out, "{} {op}= {};", place.print(), value.print())
            }
            Self::If(condition, accept, reject) => {
                let (accept, reject) = (print_body(accept), print_body(reject));
                let condition = condition.print();
                writeln!(out, "if {condition} {{ {accept} }} else {{ {reject} }}")
            }
            Self::For(name, end, body) => {
                let (end, body) = (end.print(), print_body(body));
                writeln!(
                    out,
                    "for (var {name} = 0u; {name} < ({end} & 3u); {name}++) {{ {body} }}"
                )
            }
            Self::While(name, end, body) => {
                let (end, body) = (end.print(), print_body(body));
                writeln!(
                    out,
                    "{{ var {name} = 0u; while {name} < ({end} & 3u) {{ {body} {name}++; }} }}"
                )
            }
            Self::Leaving(name, end, body) => {
                let (end, body) = (end.print(), print_body(body));
                let body = format!(
                    "if !({name} < ({end} & 3u)) {{ break; }} {body} continuing {{ {name}++; }}"
                );
                writeln!(out, "{{ var {name} = 0u; loop {{ {body} }} }}")
            }
            Self::Loop(name, body, until) => {
                let (body, until) = (print_body(body), until.print());
                let next = format!("{name} += 1u; break if ({name} > 3u) || {until};");
                let body = format!("loop {{ {body} continuing {{ {next} }} }}");
                writeln!(out, "var {name} = 0u; {body}")
            }
            Self::Bare(name, body, until) => {
                let (body, until) = (print_body(body), until.print());
                let first = format!("{name} += 1u; if {name} > 4u {{ break; }}");
                let body = format!("loop {{ {first} {body} continuing {{ break if {until}; }} }}");
                writeln!(out, "var {name} = 0u; {body}")
            }
            Self::Switch(selector, one, two) => {
                let (one, two) = (print_body(one), print_body(two));
                let cases = format!("case 0, 1: {{ {one} }} case 7, default: {{ {two} }}");
                writeln!(out, "switch {} {{ {cases} }}", selector.print())
            }
            Self::Block(body) => writeln!(out, "{{ {} }}", print_body(body)),
            Self::Plain(text) => writeln!(out, "{text}"),
            Self::Call(call) => writeln!(out, "{};", call.print()),
            Self::Return(value) => writeln!(out, "return {};", value.print()),
        };
    }
}

pub(crate) fn print_body(body: &Body) -> String {
    let mut out = String::new();
    body.iter().for_each(|statement| statement.print(&mut out));
    out
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Helper {
    pub(crate) name: String,
    arguments: Vec<(String, Type)>,
    result: Type,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shader {
    pub(crate) helpers: Vec<Helper>,
    pub(crate) mains: Vec<Main>,
    /// How much the declarations are rotated.
    pub(crate) rotation: usize,
    /// What every name begins with.
    pub(crate) prefix: &'static str,
    /// What stands for a space.
    pub(crate) space: &'static str,
}

const GLOBALS: [&str; 8] = [
    "@group(0) @binding(0) var<storage, read_write> f: array<f32>;",
    "@group(0) @binding(1) var<storage, read_write> i: array<i32, 4>;",
    "@group(0) @binding(2) var<storage, read_write> u: array<u32>;",
    "@group(0) @binding(3) var<storage, read_write> v: array<vec4<f32>, 3>;",
    "@group(0) @binding(4) var<storage, read_write> a: atomic<u32>;",
    "struct Settings { scale: f32, count: u32, shift: vec3<i32> }
     @group(1) @binding(0) var<uniform> settings: Settings;",
    "var<workgroup> w: array<u32, 4>;",
    "var<private> p: i32 = 5; const TABLE = array(1.5, -0.0, 3.0, 0.25); const SEVEN = 7u;",
];

impl Shader {
    pub(crate) fn print(&self) -> String {
        let mut parts: Vec<_> = GLOBALS.iter().map(|global| (*global).to_owned()).collect();
        for helper in &self.helpers {
            let argument = |(name, ty): &(String, Type)| format!("{name}: {}", ty.name());
            let arguments: Vec<_> = helper.arguments.iter().map(argument).collect();
            let (arguments, result) = (arguments.join(", "), helper.result.name());
            let (name, body) = (&helper.name, print_body(&helper.body));
            parts.push(format!("fn {name}({arguments}) -> {result} {{\n{body}}}"));
        }
        parts.extend(entries::declarations(&self.mains));
        parts.extend(self.mains.iter().map(Main::print));
        let count = parts.len();
        parts.rotate_left(self.rotation % count);
        let text = parts.join("\n").replace("x_", self.prefix);
        text.replace(' ', self.space)
    }
}

/// Makes a compute shader up. Not every one is valid: constants can overflow.
pub(crate) fn shader(seed: u64) -> Shader {
    Generator::new(Random(seed)).shader(&[Stage::Compute])
}

/// Makes up a shader of one to three entry points, of any stage.
pub(crate) fn several(seed: u64) -> Shader {
    let mut random = Random(seed);
    let count = [1, 1, 2, 3][random.below(4)];
    let stages = [Stage::Vertex, Stage::Fragment, Stage::Compute];
    let stages: Vec<_> = (0..count).map(|_| random.pick(&stages)).collect();
    let mut generator = Generator::new(random);
    generator.several = true;
    generator.shader(&stages)
}

pub(crate) const BARRIERS: [&str; 2] = ["workgroupBarrier();", "storageBarrier();"];
const COMPARISONS: [&str; 6] = ["<", "<=", ">", ">=", "==", "!="];

struct Generator {
    random: Random,
    /// Names, their types, and whether they can be assigned to.
    scope: Vec<(String, Type, bool)>,
    helpers: Vec<Helper>,
    names: usize,
    in_loop: bool,
    /// Whether there is memory that a workgroup shares, which compute shaders alone have.
    has_workgroup: bool,
    /// Whether entry points take any form, and variables are written in part.
    several: bool,
}

impl Generator {
    const fn new(random: Random) -> Self {
        Self {
            random,
            scope: Vec::new(),
            helpers: Vec::new(),
            names: 0,
            in_loop: false,
            has_workgroup: true,
            several: false,
        }
    }

    fn shader(mut self, stages: &[Stage]) -> Shader {
        self.has_workgroup = stages.iter().all(|stage| *stage == Stage::Compute);
        for _ in 0..self.random.below(3) {
            let helper = self.helper();
            self.helpers.push(helper);
        }
        let names = ["main", "second", "third"];
        let mains = stages.iter().zip(names);
        let mains = mains.map(|(stage, name)| self.main(*stage, name)).collect();
        Shader {
            helpers: self.helpers,
            mains,
            rotation: 0,
            prefix: "x_",
            space: " ",
        }
    }

    fn main(&mut self, stage: Stage, name: &'static str) -> Main {
        let form = if self.several {
            self.random.pick(&entries::FORMS)
        } else {
            Form::Structure
        };
        self.scope = stage.scope(form);
        let mut body = Vec::new();
        for _ in 0..3 {
            body.extend(self.body(3, 2));
            if stage == Stage::Compute && self.random.one_in(3) {
                body.push(Stmt::Plain(self.random.pick(&BARRIERS)));
            }
            if stage != Stage::Compute && self.random.one_in(3) {
                let condition = self.expr(Type::scalar(Kind::Bool), 2);
                let ends = stage == Stage::Fragment && self.random.one_in(3);
                let early = if ends {
                    Stmt::Plain("discard;")
                } else {
                    self.returned(stage)
                };
                body.push(Stmt::If(condition, vec![early], Vec::new()));
            }
        }
        if stage != Stage::Compute {
            body.push(self.returned(stage));
        }
        Main {
            name,
            stage,
            form,
            body,
        }
    }

    /// A `return` of outputs: of their parts, of a variable, or of what a function made.
    fn returned(&mut self, stage: Stage) -> Stmt {
        let of = Type::VECTOR;
        let call = match self.random.below(3) {
            0 => return Stmt::Plain("return out;"),
            1 => Node::Call(stage.given().to_owned(), vec![self.expr(of, 2)]),
            _ => {
                let parts = entries::OUTPUTS.iter();
                let parts = parts.map(|(_, ty)| self.expr(*ty, 2)).collect();
                Node::Call(stage.outputs().to_owned(), parts)
            }
        };
        Stmt::Return(Expr::new(of, call))
    }

    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("x_{}", self.names)
    }

    fn ty(&mut self) -> Type {
        let kind = [Kind::Bool, Kind::Int, Kind::Uint, Kind::Float, Kind::Float];
        Type {
            kind: kind[self.random.below(5)],
            size: [1, 1, 2, 3, 4][self.random.below(5)],
        }
    }

    fn helper(&mut self) -> Helper {
        let name = self.fresh();
        let arguments: Vec<_> = (0..1 + self.random.below(2))
            .map(|_| (self.fresh(), self.ty()))
            .collect();
        self.scope = Vec::new();
        for (name, ty) in &arguments {
            self.scope.push((name.clone(), *ty, false));
        }
        let result = self.ty();
        let mut body = Vec::new();
        if self.random.one_in(2) {
            let early = vec![Stmt::Return(self.expr(result, 1))];
            body.push(Stmt::If(
                self.expr(Type::scalar(Kind::Bool), 2),
                early,
                Vec::new(),
            ));
        }
        body.extend(self.body(2, 1));
        body.push(Stmt::Return(self.expr(result, 2)));
        Helper {
            name,
            arguments,
            result,
            body,
        }
    }

    /// Statements, with their names still in scope.
    fn body(&mut self, count: usize, depth: usize) -> Body {
        (0..count).map(|_| self.statement(depth)).collect()
    }

    fn nested(&mut self, depth: usize) -> Body {
        let known = self.scope.len();
        let count = 1 + self.random.below(2);
        let body = self.body(count, depth - 1);
        self.scope.truncate(known);
        body
    }

    fn statement(&mut self, depth: usize) -> Stmt {
        let choices = if depth == 0 { 8 } else { 13 };
        match self.random.below(choices) {
            0 | 1 => {
                let (name, ty) = (self.fresh(), self.ty());
                let value = self.expr(ty, 3);
                self.scope.push((name.clone(), ty, false));
                Stmt::Let(name, value)
            }
            2 => {
                let (name, ty) = (self.fresh(), self.ty());
                let value = self.expr(ty, 2);
                self.scope.push((name.clone(), ty, true));
                Stmt::Var(name, value)
            }
            3..=5 => {
                let place = self.place();
                let ops: &[&str] = match place.ty.kind {
                    Kind::Bool => &[""],
                    Kind::Int | Kind::Uint => &["", "", "+", "*", "^", "-"],
                    Kind::Float => &["", "", "+", "*", "-"],
                };
                let op = ops[self.random.below(ops.len())];
                let value = self.expr(place.ty, 3);
                Stmt::Assign(place, op, value)
            }
            6 if self.in_loop => {
                let leave = ["break;", "continue;"][self.random.below(2)];
                let condition = self.expr(Type::scalar(Kind::Bool), 2);
                Stmt::If(condition, vec![Stmt::Plain(leave)], Vec::new())
            }
            6 => Stmt::Call(self.atomic()),
            7 => match self.call(None, 2) {
                Some(call) => Stmt::Call(call),
                None => Stmt::Call(self.atomic()),
            },
            8 | 9 => {
                let condition = self.expr(Type::scalar(Kind::Bool), 2);
                let accept = self.nested(depth);
                let reject = if self.random.one_in(2) {
                    self.nested(depth)
                } else {
                    Vec::new()
                };
                Stmt::If(condition, accept, reject)
            }
            10 if self.random.one_in(4) => self.flagged(depth),
            10 => self.repeated(depth),
            11 => {
                let outer = std::mem::replace(&mut self.in_loop, false);
                let selector = self.expr(Type::scalar(Kind::Int), 2);
                let mut cases = (self.nested(depth), self.nested(depth));
                self.in_loop = outer;
                if outer && self.random.one_in(3) {
                    cases.0.push(Stmt::Plain("continue;"));
                }
                Stmt::Switch(selector, cases.0, cases.1)
            }
            _ => Stmt::Block(self.nested(depth)),
        }
    }

    /// A loop that a variable ends which is written once, in its body.
    fn flagged(&mut self, depth: usize) -> Stmt {
        let (of, known) = (Type::scalar(Kind::Bool), self.scope.len());
        let (flag, name) = (self.fresh(), self.fresh());
        self.scope.push((flag.clone(), of, false));
        let outer = std::mem::replace(&mut self.in_loop, true);
        let mut body = self.nested(depth);
        if self.random.one_in(2) {
            let next = vec![Stmt::Plain("continue;")];
            body.insert(0, Stmt::If(self.expr(of, 2), next, Vec::new()));
        }
        let at = self.random.below(body.len() + 1);
        let value = self.expr(of, 2);
        body.insert(at, Stmt::Assign(Expr::name(of, &flag), "", value));
        self.in_loop = outer;
        self.scope.truncate(known);
        let first = Expr::new(of, Node::Literal(self.random.pick(literals(of.kind))));
        let until = Expr::name(of, &flag);
        let repeated = if self.random.one_in(3) {
            Stmt::Loop(name, body, until)
        } else {
            Stmt::Bare(name, body, until)
        };
        Stmt::Block(vec![Stmt::Var(flag, first), repeated])
    }

    fn repeated(&mut self, depth: usize) -> Stmt {
        let outer = std::mem::replace(&mut self.in_loop, true);
        let name = self.fresh();
        let end = self.expr(INDEX, 1);
        let mut body = self.nested(depth);
        if self.random.one_in(2) {
            let condition = self.expr(Type::scalar(Kind::Bool), 1);
            let next = vec![Stmt::Plain("continue;")];
            let at = self.random.below(body.len() + 1);
            body.insert(at, Stmt::If(condition, next, Vec::new()));
        }
        self.in_loop = outer;
        if self.random.one_in(2) {
            return Stmt::For(name, end, body);
        }
        let until = self.expr(Type::scalar(Kind::Bool), 2);
        if self.random.one_in(2) {
            Stmt::Loop(name, body, until)
        } else {
            Stmt::Bare(name, body, until)
        }
    }

    fn place(&mut self) -> Expr {
        let assignable: Vec<_> = self.scope.iter().filter(|(_, _, var)| *var).collect();
        if !assignable.is_empty() && self.random.one_in(3) {
            let (name, ty, _) = assignable[self.random.below(assignable.len())].clone();
            let place = Expr::name(ty, &name);
            if self.several && ty.size > 1 && self.random.one_in(2) {
                let part = self.random.pick(&["x", "y"]).to_owned();
                let ty = Type::scalar(ty.kind);
                return Expr::new(ty, Node::Swizzle(Box::new(place), part));
            }
            return place;
        }
        match self.random.below(6) {
            0 => Expr::name(Type::scalar(Kind::Int), "p"),
            _ => self.element(),
        }
    }

    fn element(&mut self) -> Expr {
        let index = Box::new(self.leaf(INDEX));
        let (array, kind, size) = match self.random.below(5) {
            0 => ("f", Kind::Float, 1),
            1 => ("i", Kind::Int, 1),
            2 => ("u", Kind::Uint, 1),
            3 => ("v", Kind::Float, 4),
            _ if self.has_workgroup => ("w", Kind::Uint, 1),
            _ => ("u", Kind::Uint, 1),
        };
        let index = match index.node {
            // A constant index is checked against the length.
            Node::Literal(_) => Box::new(Expr::new(
                INDEX,
                Node::Literal(["0u", "1u", "2u"][self.random.below(3)]),
            )),
            _ => index,
        };
        Expr::new(Type { kind, size }, Node::Element(array, index))
    }

    fn atomic(&mut self) -> Expr {
        let functions = [
            "atomicAdd",
            "atomicSub",
            "atomicMax",
            "atomicXor",
            "atomicExchange",
        ];
        let operand = Box::new(self.expr(INDEX, 1));
        Expr::new(INDEX, Node::Atomic(self.random.pick(&functions), operand))
    }

    fn call(&mut self, result: Option<Type>, depth: usize) -> Option<Expr> {
        let fits = |helper: &&Helper| result.is_none_or(|ty| helper.result == ty);
        let fitting: Vec<_> = self.helpers.iter().filter(fits).cloned().collect();
        if fitting.is_empty() {
            return None;
        }
        let helper = &fitting[self.random.below(fitting.len())];
        let arguments = helper.arguments.iter();
        let arguments = arguments.map(|(_, ty)| self.expr(*ty, depth - 1)).collect();
        Some(Expr::new(
            helper.result,
            Node::Call(helper.name.clone(), arguments),
        ))
    }

    fn leaf(&mut self, ty: Type) -> Expr {
        let known: Vec<_> = self.scope.iter().filter(|(_, of, _)| *of == ty).collect();
        if !known.is_empty() && !self.random.one_in(3) {
            return Expr::name(ty, &known[self.random.below(known.len())].0);
        }
        let name = match (ty.kind, ty.size) {
            (Kind::Float, 1) => "settings.scale",
            (Kind::Uint, 1) => self.random.pick(&["settings.count", "SEVEN"]),
            (Kind::Int, 1) => "p",
            (Kind::Int, 3) => "settings.shift",
            _ => "",
        };
        if !name.is_empty() && !self.random.one_in(3) {
            return Expr::name(ty, name);
        }
        Expr::new(ty, Node::Literal(self.random.pick(literals(ty.kind))))
    }

    pub(crate) fn expr(&mut self, ty: Type, depth: usize) -> Expr {
        if depth == 0 || self.random.one_in(5) {
            return self.leaf(ty);
        }
        let next = depth - 1;
        match self.random.below(12) {
            0 => {
                let mut element = self.element();
                if element.ty == Type::scalar(Kind::Float) && self.random.one_in(3) {
                    element.node = match element.node {
                        Node::Element(_, index) => Node::Element("TABLE", index),
                        other => other,
                    };
                }
                if element.ty == ty {
                    return element;
                }
                self.expr(ty, next)
            }
            1 => self.call(Some(ty), depth).unwrap_or_else(|| self.leaf(ty)),
            2 if ty == INDEX && self.random.one_in(2) => self.atomic(),
            2 => self.swizzle(ty, next),
            3 => {
                let arguments = vec![
                    self.expr(ty, next),
                    self.expr(ty, next),
                    self.expr(ty.of(Kind::Bool), next),
                ];
                Expr::new(ty, Node::Call("select".into(), arguments))
            }
            4 if ty.size > 1 => {
                let scalar = Type::scalar(ty.kind);
                let parts = (0..ty.size).map(|_| self.expr(scalar, next)).collect();
                Expr::new(ty, Node::Call(ty.name(), parts))
            }
            _ if ty.kind == Kind::Bool => self.condition(ty, next),
            4 | 5 => self.cast(ty, next),
            6 | 7 => self.function(ty, next),
            8 if ty.kind != Kind::Uint => {
                Expr::new(ty, Node::Unary("-", Box::new(self.expr(ty, next))))
            }
            _ => {
                let ops: &[&str] = match ty.kind {
                    Kind::Float => &["+", "-", "*", "/"],
                    _ => &["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"],
                };
                let op = self.random.pick(ops);
                let right = match op {
                    "<<" | ">>" => ty.of(Kind::Uint),
                    _ => ty,
                };
                let operands = (self.expr(ty, next), self.expr(right, next));
                Expr::new(
                    ty,
                    Node::Binary(op, Box::new(operands.0), Box::new(operands.1)),
                )
            }
        }
    }

    fn condition(&mut self, ty: Type, depth: usize) -> Expr {
        let unary = |op, of| Expr::new(ty, Node::Unary(op, Box::new(of)));
        match self.random.below(6) {
            0 => unary("!", self.expr(ty, depth)),
            1 => {
                let ops: &[&str] = if ty.size == 1 {
                    &["&&", "||", "&"]
                } else {
                    &["&", "|"]
                };
                let op = self.random.pick(ops);
                let operands = (self.expr(ty, depth), self.expr(ty, depth));
                Expr::new(
                    ty,
                    Node::Binary(op, Box::new(operands.0), Box::new(operands.1)),
                )
            }
            2 if ty.size == 1 => {
                let vector = Type { size: 3, ..ty };
                let function = self.random.pick(&["all", "any"]);
                Expr::new(
                    ty,
                    Node::Call(function.into(), vec![self.expr(vector, depth)]),
                )
            }
            _ => {
                let of = ty.of([Kind::Int, Kind::Uint, Kind::Float][self.random.below(3)]);
                let op = self.random.pick(&COMPARISONS);
                let operands = (self.expr(of, depth), self.expr(of, depth));
                Expr::new(
                    ty,
                    Node::Binary(op, Box::new(operands.0), Box::new(operands.1)),
                )
            }
        }
    }

    fn swizzle(&mut self, ty: Type, depth: usize) -> Expr {
        let size = 2 + self.random.below(3);
        let of = self.expr(Type { size, ..ty }, depth);
        let letters = ["x", "y", "z", "w"];
        let pattern = (0..ty.size)
            .map(|_| letters[self.random.below(size)])
            .collect();
        Expr::new(ty, Node::Swizzle(Box::new(of), pattern))
    }

    fn cast(&mut self, ty: Type, depth: usize) -> Expr {
        let kinds = [Kind::Int, Kind::Uint, Kind::Float, Kind::Bool];
        let from = ty.of(kinds[self.random.below(4)]);
        let bits = from.kind != Kind::Bool && self.random.one_in(2);
        let name = if bits {
            format!("bitcast<{}>", ty.name())
        } else {
            ty.name()
        };
        Expr::new(ty, Node::Call(name, vec![self.expr(from, depth)]))
    }

    fn function(&mut self, ty: Type, depth: usize) -> Expr {
        if ty.size == 1 && self.random.one_in(4) {
            let vector = Type {
                size: 2 + self.random.below(3),
                ..ty
            };
            let arguments = vec![self.expr(vector, depth), self.expr(vector, depth)];
            return Expr::new(ty, Node::Call("dot".into(), arguments));
        }
        let functions: &[(&str, usize)] = match ty.kind {
            Kind::Float => &[
                ("min", 2),
                ("max", 2),
                ("clamp", 3),
                ("fma", 3),
                ("mix", 3),
                ("step", 2),
                ("abs", 1),
                ("floor", 1),
                ("ceil", 1),
                ("trunc", 1),
                ("sqrt", 1),
            ],
            Kind::Int => &[
                ("min", 2),
                ("max", 2),
                ("clamp", 3),
                ("abs", 1),
                ("sign", 1),
                ("reverseBits", 1),
            ],
            Kind::Uint | Kind::Bool => &[
                ("min", 2),
                ("max", 2),
                ("clamp", 3),
                ("countOneBits", 1),
                ("reverseBits", 1),
            ],
        };
        let (name, count) = functions[self.random.below(functions.len())];
        let arguments = (0..count).map(|_| self.expr(ty, depth)).collect();
        Expr::new(ty, Node::Call(name.into(), arguments))
    }
}

pub(crate) const fn literals(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Bool => &["true", "false"],
        Kind::Int => &["0i", "1i", "2i", "7i", "(-3i)"],
        Kind::Uint => &["0u", "1u", "2u", "7u", "31u"],
        Kind::Float => &["0f", "(-0f)", "1f", "2f", "0.1f", "0.25f", "(-3.5f)"],
    }
}
