//! The entry points of shaders that are made up, with what they take and return.

use super::generate::{Body, INDEX, Kind, Random, Type, print_body};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Vertex,
    Fragment,
    Compute,
}

/// Where an entry point has its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// In a structure.
    Structure,
    /// In arguments, one by one.
    Parts,
    /// In private variables, as its outputs, which it passes to and from a function.
    Wrapper,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Main {
    pub(crate) name: &'static str,
    pub(crate) stage: Stage,
    pub(crate) form: Form,
    pub(crate) body: Body,
}

pub(crate) const FORMS: [Form; 3] = [Form::Structure, Form::Parts, Form::Wrapper];

const INPUTS: [(&str, Type); 4] = [
    ("in.a", Type::VECTOR),
    ("in.b", Type::VECTOR),
    ("in.n", INDEX),
    ("in.at", INDEX),
];

const PAIR: Type = Type {
    kind: Kind::Float,
    size: 2,
};

pub(crate) const OUTPUTS: [(&str, Type); 4] = [
    ("out.place", Type::VECTOR),
    ("out.color", Type::VECTOR),
    ("out.mark", INDEX),
    ("out.side", PAIR),
];

const VERTEX: &str = "
    struct VertexIn {
        @location(0) a: vec4<f32>,
        @location(1) b: vec4<f32>,
        @location(2) n: u32,
        @builtin(instance_index) at: u32,
    }
    struct VertexOut {
        @builtin(position) place: vec4<f32>,
        @location(0) color: vec4<f32>,
        @location(1) @interpolate(flat) mark: u32,
        @location(2) side: vec2<f32>,
    }
    fn x_vertex_taken(in: VertexIn) -> vec4<f32> { return in.a + in.b * f32(in.n ^ in.at); }
    fn x_vertex_given(v: vec4<f32>) -> VertexOut {
        return VertexOut(v, v.wzyx, u32(v.x > 1.0), v.yx);
    }";

const FRAGMENT: &str = "
    struct FragmentIn {
        @builtin(position) a: vec4<f32>,
        @location(0) b: vec4<f32>,
        @location(1) @interpolate(flat) n: u32,
        @location(2) @interpolate(flat) at: u32,
    }
    struct FragmentOut {
        @location(0) place: vec4<f32>,
        @location(1) color: vec4<f32>,
        @location(2) mark: u32,
        @location(3) side: vec2<f32>,
    }
    fn x_fragment_taken(in: FragmentIn) -> vec4<f32> { return in.a * in.b - f32(in.n + in.at); }
    fn x_fragment_given(v: vec4<f32>) -> FragmentOut {
        var out: FragmentOut;
        if v.x > 0.5 { out.place = v; } else { out.color = v; }
        out.side = v.zw;
        return out;
    }";

/// What the entry points of these stages declare.
pub(crate) fn declarations(mains: &[Main]) -> impl Iterator<Item = String> {
    let all = [(Stage::Vertex, VERTEX), (Stage::Fragment, FRAGMENT)];
    let used = all.into_iter().filter(|(stage, _)| {
        let mut stages = mains.iter().map(|main| main.stage);
        stages.any(|it| it == *stage)
    });
    used.map(|(_, text)| text.to_owned())
}

/// Another input or output of the same type.
pub(crate) fn other(name: &str) -> Option<&'static str> {
    let pairs = [
        ["in.a", "in.b"],
        ["in.n", "in.at"],
        ["out.place", "out.color"],
        ["id.x", "id.y"],
    ];
    pairs.into_iter().find_map(|[one, two]| match name {
        _ if name == one => Some(two),
        _ if name == two => Some(one),
        _ => None,
    })
}

impl Stage {
    /// What an entry point can name, of which type, and whether it can assign to it.
    pub(crate) fn scope(self, form: Form) -> Vec<(String, Type, bool)> {
        let taken = match self {
            Self::Vertex => "x_vertex_taken(in)",
            Self::Fragment => "x_fragment_taken(in)",
            Self::Compute => return vec![(String::from("id.x"), INDEX, false)],
        };
        let all = INPUTS.into_iter().chain(OUTPUTS).map(|(name, ty)| {
            let is_variable = form == Form::Wrapper || name.starts_with("out.");
            (name.to_owned(), ty, is_variable)
        });
        all.chain([(taken.to_owned(), Type::VECTOR, false)])
            .collect()
    }

    /// The structure that it returns.
    pub(crate) const fn outputs(self) -> &'static str {
        match self {
            Self::Vertex => "VertexOut",
            Self::Fragment => "FragmentOut",
            Self::Compute => "",
        }
    }

    /// A function that makes this structure of a vector.
    pub(crate) const fn given(self) -> &'static str {
        match self {
            Self::Vertex => "x_vertex_given",
            Self::Fragment => "x_fragment_given",
            Self::Compute => "",
        }
    }
}

impl Main {
    /// Gives it another form.
    pub(crate) fn turn(&mut self, random: &mut Random) -> bool {
        self.form = random.pick(&FORMS);
        self.stage != Stage::Compute
    }

    pub(crate) fn print(&self) -> String {
        let Self { name, body, .. } = self;
        let body = print_body(body);
        let (stage, ty, parts) = match self.stage {
            Stage::Compute => return self.print_compute(&body),
            Stage::Vertex => (
                "@vertex",
                "VertexIn",
                "@location(0) in_a: vec4<f32>, @location(1) in_b: vec4<f32>,
                 @location(2) in_n: u32, @builtin(instance_index) in_at: u32",
            ),
            Stage::Fragment => (
                "@fragment",
                "FragmentIn",
                "@builtin(position) in_a: vec4<f32>, @location(0) in_b: vec4<f32>,
                 @location(1) @interpolate(flat) in_n: u32,
                 @location(2) @interpolate(flat) in_at: u32",
            ),
        };
        let outputs = self.stage.outputs();
        let in_parts = |prefix: &str| {
            let parts = INPUTS.map(|(name, _)| name.replace("in.", prefix));
            let whole = format!("({ty}({}))", parts.join(", "));
            body.replace("(in)", &whole).replace("in.", prefix)
        };
        match self.form {
            Form::Structure => {
                format!("{stage} fn {name}(in: {ty}) -> {outputs} {{ var out: {outputs}; {body} }}")
            }
            Form::Parts => {
                let body = in_parts("in_");
                format!("{stage} fn {name}({parts}) -> {outputs} {{ var out: {outputs}; {body} }}")
            }
            Form::Wrapper => {
                let code = self.through_variables(&in_parts(&format!("{name}_in_")));
                let variables = self.variables();
                let passed = INPUTS.map(|(input, _)| {
                    let input = &input["in.".len()..];
                    format!("{name}_in_{input} = in_{input};")
                });
                let passed = passed.concat();
                let results = self.outputs().join(", ");
                format!(
                    "{variables} fn {name}_code() {{ {code} }}
                     {stage} fn {name}({parts}) -> {outputs} {{
                         {passed} {name}_code(); return {outputs}({results});
                     }}"
                )
            }
        }
    }

    fn print_compute(&self, body: &str) -> String {
        let name = self.name;
        let main = format!("@compute @workgroup_size(4) fn {name}(@builtin(global_invocation_id)");
        if self.form != Form::Wrapper {
            return format!("{main} id: vec3<u32>) {{ {body} }}");
        }
        let code = body.replace("id.", &format!("{name}_id."));
        format!(
            "var<private> {name}_id: vec3<u32>;
             fn {name}_code() {{ {code} }}
             {main} at: vec3<u32>) {{ {name}_id = at; {name}_code(); }}"
        )
    }

    /// The private variables of the outputs.
    fn outputs(&self) -> [String; 4] {
        OUTPUTS.map(|(output, _)| output.replace("out.", &format!("{}_out_", self.name)))
    }

    /// Declares the private variables.
    fn variables(&self) -> String {
        let inputs =
            INPUTS.map(|(input, ty)| (input.replace("in.", &format!("{}_in_", self.name)), ty));
        let outputs = self.outputs().into_iter().zip(OUTPUTS.map(|(_, ty)| ty));
        let all = inputs.into_iter().chain(outputs);
        all.map(|(name, ty)| format!("var<private> {name}: {};\n", ty.name()))
            .collect()
    }

    /// Leaves what code returns in the private variables of the outputs.
    fn through_variables(&self, code: &str) -> String {
        let code = code.replace("return out;", "return;");
        let code = code.replace("out.", &format!("{}_out_", self.name));
        let mut parts = code.split("return ");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (value, rest) = part.split_once(';').unwrap_or_default();
            let stores = self.outputs().into_iter().zip(OUTPUTS);
            let stores = stores.map(|(variable, (output, _))| {
                format!("{variable} = {};", output.replace("out.", "result."))
            });
            let stores: String = stores.collect();
            text += &format!("{{ let result = {value}; {stores} return; }} {rest}");
        }
        text
    }
}
