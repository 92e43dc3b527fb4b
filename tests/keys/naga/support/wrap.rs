//! Fragment shaders made up at random whose entry point wraps a function, as a reader of SPIR-V
//! makes them or as nobody does: private variables are written from everywhere, read before they
//! are written, written in part, and returned in any order.
//!
//! A name says what it holds: `f` a float, `v` a vector of two, `u` an integer, `s` a structure.

use super::random::Random;

#[derive(Clone, PartialEq)]
enum Stmt {
    Line(String),
    If(String, Vec<Self>, Vec<Self>),
    Loop(String, Vec<Self>),
    Switch(String, Vec<Self>, Vec<Self>),
}

impl Stmt {
    fn print(&self, to: &mut String) {
        let all = |of: &[Self]| {
            let mut text = String::new();
            of.iter().for_each(|it| it.print(&mut text));
            text
        };
        to.push_str(&match self {
            Self::Line(line) => format!("{line}\n"),
            Self::If(condition, one, two) => {
                let (one, two) = (all(one), all(two));
                format!("if {condition} {{ {one} }} else {{ {two} }}\n")
            }
            Self::Loop(count, body) => {
                let body = all(body);
                format!("for (var i = 0u; i < ({count} & 3u); i++) {{ {body} }}\n")
            }
            Self::Switch(on, one, two) => {
                let (one, two) = (all(one), all(two));
                format!("switch {on} {{ case 2, 1: {{ {one} }} case 7, default: {{ {two} }} }}\n")
            }
        });
    }

    fn bodies(&mut self) -> Vec<&mut Vec<Self>> {
        match self {
            Self::Line(_) => Vec::new(),
            Self::Loop(_, body) => vec![body],
            Self::If(_, one, two) | Self::Switch(_, one, two) => vec![one, two],
        }
    }
}

/// A shader with a wrapper.
#[derive(Clone, PartialEq)]
pub(crate) struct Wrapped {
    /// What the wrapper does before the call, what the function does, and what the wrapper does
    /// after the call.
    parts: [Vec<Stmt>; 3],
    initial: [&'static str; 4],
    result: &'static str,
    returned: String,
}

const DECLARATIONS: &str = "
    struct Pair { x: f32, y: f32 }
    struct Two { @location(0) x: f32, @location(1) y: f32 }
    struct Three { @location(0) a: f32, @location(1) b: vec2<f32>, @location(2) c: u32 }
    @group(0) @binding(0) var<storage, read_write> side: array<u32>;
    struct Held { x: array<vec2<f32>, 2> }
    @group(0) @binding(1) var<storage, read> unit: Held;
    var<private> v1: vec2<f32>;
    var<private> v2: vec2<f32>;
    var<private> s1: Pair;
    var<private> s2: Pair;
    var<private> o1: Two;
    fn seen() -> f32 { return f3; }
    fn change() { f3 = f3 * 2.0; v2.x = f3 + 1.0; }
    fn mixed(s: Pair) -> Pair { return Pair(s.y, s.x + 1.0); }
    fn add(p: ptr<private, f32>) { *p += 1.0; }
    fn turned(v: vec2<f32>) -> vec2<f32> { if v.x > 1.0 { return v; } return v.yx; }";

impl Wrapped {
    pub(crate) fn print(&self) -> String {
        let [before, code, after] = self.parts.each_ref().map(|part| {
            let mut text = String::new();
            part.iter().for_each(|it| it.print(&mut text));
            text
        });
        let Self {
            parts: _,
            initial: [f1, f2, u1, u2],
            result,
            returned,
        } = self;
        format!(
            "{DECLARATIONS}
             var<private> f1: f32{f1};
             var<private> f2: f32{f2};
             var<private> f3: f32 = 0.5;
             var<private> u1: u32{u1};
             var<private> u2: u32{u2};
             fn code() {{ {code} }}
             @fragment fn main(
                 @location(0) in_f1: f32,
                 @location(1) in_f2: f32,
                 @location(2) in_v1: vec2<f32>,
                 @location(3) in_v2: vec2<f32>,
                 @location(4) @interpolate(flat) in_u1: u32,
             ) -> {result} {{
                 {before}
                 code();
                 {after}
                 return {returned};
             }}"
        )
    }
}

/// Not every one is valid.
pub(crate) fn wrapped(seed: u64) -> Wrapped {
    let mut random = Random(seed);
    let mut maker = Maker {
        random: &mut random,
        names: 0,
    };
    let before = (0..4).map(|_| maker.passed(true)).collect();
    let mut code: Vec<_> = (0..5).map(|_| maker.statement(2)).collect();
    if maker.random.one_in(2) {
        code.extend(maker.left_in_parts());
    }
    let after = (0..maker.random.below(3))
        .map(|_| maker.passed(false))
        .collect();
    let initial = [
        ["", " = 1.5", " = -0.0"],
        ["", " = 1.5", " = 2.0"],
        ["", " = 3u", " = 1u"],
        ["", " = 3u", " = 2u"],
    ];
    let initial = initial.map(|choices| maker.random.pick(&choices));
    let (result, returned) = maker.returned();
    Wrapped {
        parts: [before, code, after],
        initial,
        result,
        returned,
    }
}

/// The changes, by name.
pub(crate) const CHANGES: [&str; 12] = [
    "removed",
    "repeated",
    "swapped",
    "another name",
    "moved to the wrapper",
    "moved into the function",
    "`return` added",
    "`discard` added",
    "returned",
    "initial value",
    "block added",
    "written once more",
];

/// Changes a shader in one place.
pub(crate) fn change(source: &Wrapped, change: &str, random: &mut Random) -> Option<Wrapped> {
    let mut changed = source.clone();
    let mut maker = Maker {
        random: &mut *random,
        names: 50,
    };
    match change {
        "returned" => {
            let of = maker.returned();
            (changed.result, changed.returned) = of;
        }
        "initial value" => {
            let at = random.below(4);
            changed.initial[at] = ["", " = 2"][random.below(2)];
        }
        "moved to the wrapper" => {
            let from = [(1, 0), (1, 2), (0, 2)][random.below(3)];
            let moved = changed.parts[from.0].pop()?;
            changed.parts[from.1].insert(0, moved);
        }
        "moved into the function" => {
            if random.one_in(2) {
                let moved = changed.parts[0].pop()?;
                changed.parts[1].insert(0, moved);
            } else {
                let moved = changed.parts[2].pop()?;
                changed.parts[1].push(moved);
            }
        }
        _ => {
            let part = [0, 1, 1, 2][random.below(4)];
            in_body(&mut changed.parts[part], part, change, random)?;
        }
    }
    (changed != *source).then_some(changed)
}

fn in_body(body: &mut Vec<Stmt>, part: usize, change: &str, random: &mut Random) -> Option<()> {
    if body.is_empty() {
        return None;
    }
    let at = random.below(body.len());
    let mut nested = body[at].bodies();
    if !nested.is_empty() && random.below(3) > 0 {
        let chosen = random.below(nested.len());
        return in_body(nested.swap_remove(chosen), part, change, random);
    }
    let mut maker = Maker { random, names: 70 };
    match change {
        "removed" => drop(body.remove(at)),
        "repeated" => body.insert(at, body[at].clone()),
        "swapped" => {
            let other = (at + 1) % body.len();
            body.swap(at, other);
        }
        "block added" => {
            let one = vec![body.remove(at)];
            body.insert(at, Stmt::If("true".into(), one, Vec::new()));
        }
        "written once more" => {
            let new = if part == 1 {
                maker.statement(0)
            } else {
                maker.passed(part == 0)
            };
            body.insert(at, new);
        }
        "`return` added" if part == 1 => body.insert(at, Stmt::Line("return;".into())),
        "`discard` added" if part == 1 => body.insert(at, Stmt::Line("discard;".into())),
        "another name" => {
            let Stmt::Line(line) = &mut body[at] else {
                return None;
            };
            *line = renamed(line, maker.random)?;
        }
        _ => return None,
    }
    Some(())
}

fn renamed(line: &str, random: &mut Random) -> Option<String> {
    const NAMES: [[&str; 2]; 14] = [
        ["f1", "f2"],
        ["f2", "f1"],
        ["f3", "f1"],
        ["f1", "f3"],
        ["v1", "v2"],
        ["v2", "v1"],
        ["u1", "u2"],
        ["u2", "u1"],
        ["s1", "s2"],
        ["s2", "s1"],
        [".x", ".y"],
        [".y", ".x"],
        ["1.0", "2.0"],
        ["o1.x", "o1.y"],
    ];
    let [from, to] = NAMES[random.below(NAMES.len())];
    let places: Vec<_> = line.match_indices(from).map(|(at, _)| at).collect();
    if places.is_empty() {
        return None;
    }
    let at = places[random.below(places.len())];
    Some(format!("{}{to}{}", &line[..at], &line[at + from.len()..]))
}

struct Maker<'r> {
    random: &'r mut Random,
    names: usize,
}

impl Maker<'_> {
    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("t{}", self.names)
    }

    fn pick(&mut self, from: &[&str]) -> String {
        from[self.random.below(from.len())].to_owned()
    }

    /// A statement of the wrapper: it passes values on.
    fn passed(&mut self, is_before: bool) -> Stmt {
        let float = self.plain_float();
        let line = match self.random.below(12) {
            // As naga's reader has it.
            0..=4 => self.pick(&[
                "f1 = in_f1;",
                "f2 = in_f2;",
                "f1 = in_f2;",
                "v1 = in_v1;",
                "v2 = in_v2;",
                "u1 = in_u1;",
                "f1 = in_f1; f2 = in_f2;",
                "v1 = in_v1; v2 = in_v2;",
            ]),
            5 | 6 => format!("{} = {float};", self.pick(&["f1", "f2", "f3"])),
            7 => format!(
                "{} = {float};",
                self.pick(&["v1.x", "v2.y", "s1.x", "s2.y", "o1.x"])
            ),
            8 => format!("{} = vec2({float}, f2);", self.pick(&["v1", "v2"])),
            9 => format!("{} = Pair({float}, f1);", self.pick(&["s1", "s2"])),
            10 => {
                let name = self.fresh();
                let kind = self.pick(&["let", "var"]);
                let to = self.pick(&["f1", "f2", "s1.y"]);
                format!("{kind} {name} = {float}; {to} = {name};")
            }
            _ if is_before => self.pick(&["f2 = f1;", "v2 = v1;", "s2 = s1;", "u2 = u1;"]),
            _ => self.pick(&["o1 = Two(f1, f2);", "o1.y = f1;", "v1.y = -v1.y;"]),
        };
        Stmt::Line(line)
    }

    fn plain_float(&mut self) -> String {
        self.pick(&[
            "f1", "f2", "f3", "in_f1", "in_f2", "v1.x", "in_v1.y", "s1.x", "-f1", "1.0",
        ])
    }

    fn float(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.pick(&[
                "f1",
                "f1",
                "f2",
                "f2",
                "f3",
                "v1.x",
                "v2.y",
                "s1.x",
                "s1.y",
                "s2.x",
                "o1.x",
                "1.0",
                "2.0",
                "seen()",
                "unit.x[1].x",
            ]);
        }
        let (one, two) = (self.float(depth - 1), self.float(depth - 1));
        match self.random.below(5) {
            0 => format!("({one} + {two})"),
            1 => format!("({one} * {two})"),
            2 => format!("select({one}, {two}, {})", self.condition()),
            3 => format!("mixed(Pair({one}, {two})).{}", self.pick(&["x", "y"])),
            _ => one,
        }
    }

    fn condition(&mut self) -> String {
        self.pick(&[
            "f1 > 1.0",
            "f2 < f1",
            "u1 > 2u",
            "(u1 & 1u) == 0u",
            "u2 == u1",
            "v1.x > 0.0",
        ])
    }

    fn pair(&mut self) -> String {
        let pairs = [
            "s1",
            "s2",
            "Pair(f1, f2)",
            "Pair(f2, f1)",
            "Pair(v1.x, f2)",
            "Pair(f1, f1)",
        ];
        self.pick(&pairs)
    }

    /// The outputs, as the parts of a structure.
    fn left_in_parts(&mut self) -> Vec<Stmt> {
        let (name, pair) = (self.fresh(), self.pair());
        let stored = self.pick(&[
            "f1 = it.x; f2 = it.y;",
            "f2 = it.y; f1 = it.x;",
            "f1 = it.y; f2 = it.x;",
            "o1.x = it.x; o1.y = it.y;",
            "o1 = Two(it.x, it.y);",
            "s1 = it; f1 = s1.x; f2 = s1.y;",
        ]);
        let made = if self.random.one_in(2) {
            format!("mixed({pair})")
        } else {
            pair
        };
        let line = format!("let {name} = {made}; {}", stored.replace("it", &name));
        vec![Stmt::Line(line)]
    }

    fn statement(&mut self, depth: usize) -> Stmt {
        let float = self.float(1);
        let line = match self.random.below(if depth == 0 { 14 } else { 19 }) {
            0..=3 => format!("{} = {float};", self.pick(&["f1", "f2", "f3"])),
            4 => format!(
                "{} = {float};",
                self.pick(&["v1.x", "v2.y", "s1.x", "o1.y", "s2.y"])
            ),
            5 => format!("v1[{} & 1u] = {float};", self.pick(&["u1", "u2"])),
            6 => {
                let vector = self.pick(&["v1", "v2", "turned(v1)", "unit.x[0]", "unit.x[u1 & 1u]"]);
                format!(
                    "{} = {vector} + vec2({float}, 1.0);",
                    self.pick(&["v1", "v2"])
                )
            }
            7 => format!("{} = {};", self.pick(&["s1", "s2"]), self.pair()),
            8 => {
                let (name, pair) = (self.fresh(), self.pair());
                format!("let {name} = {pair}; f2 = {name}.y + mixed({name}).x;")
            }
            9 => self.pick(&[
                "u1 = u2 + 1u;",
                "u2 = u1 * 3u;",
                "u1 += 1u;",
                "u2 = select(0u, 1u, f1 > 1.0);",
            ]),
            10 => self.pick(&["change();", "side[u1 & 3u] = u2;", "u1 = side[u2 & 3u];"]),
            11 if self.random.one_in(4) => self.pick(&["add(&f1);", "add(&f2);"]),
            11 => self.pick(&["o1 = Two(f1, f2);", "f1 = o1.x; f2 = o1.y;"]),
            12 if self.random.one_in(2) => self.pick(&["return;", "discard;", "{ discard; }"]),
            12 | 13 => {
                let name = self.fresh();
                format!("let {name} = {float}; f1 = {name}; v2.x = {name};")
            }
            14..=16 => {
                let (one, two) = (self.nested(depth), self.nested(depth));
                let two = if self.random.one_in(2) {
                    Vec::new()
                } else {
                    two
                };
                return Stmt::If(self.condition(), one, two);
            }
            17 => return Stmt::Loop(self.pick(&["u1", "u2"]), self.nested(depth)),
            _ => {
                let on = self.pick(&["u1", "i32(u1)", "bitcast<i32>(u2)"]);
                return Stmt::Switch(on, self.nested(depth), self.nested(depth));
            }
        };
        Stmt::Line(line)
    }

    fn nested(&mut self, depth: usize) -> Vec<Stmt> {
        let mut body: Vec<_> = (0..1 + self.random.below(2))
            .map(|_| self.statement(depth - 1))
            .collect();
        if self.random.one_in(4) {
            body.extend(self.left_in_parts());
        }
        if self.random.one_in(3) {
            body.push(Stmt::Line("return;".into()));
        }
        body
    }

    fn returned(&mut self) -> (&'static str, String) {
        let floats = [
            "f1", "f2", "f1", "f2", "v1.x", "in_f1", "s1.x", "-f1", "1.0",
        ];
        let (one, two) = (self.pick(&floats), self.pick(&floats));
        match self.random.below(8) {
            0 | 1 => ("Two", "Two(f1, f2)".to_owned()),
            2 => ("Two", format!("Two({one}, {two})")),
            3 => (
                "Two",
                self.pick(&["o1", "Two(o1.x, o1.y)", "Two(s1.x, s1.y)"]),
            ),
            4 => ("@location(0) f32", one),
            5 => (
                "@location(0) vec2<f32>",
                self.pick(&["v1", "v2", "vec2(f1, f2)"]),
            ),
            _ => {
                let vector = self.pick(&["v1", "v2", "in_v1"]);
                let integer = self.pick(&["u1", "u2", "in_u1"]);
                ("Three", format!("Three({one}, {vector}, {integer})"))
            }
        }
    }
}
