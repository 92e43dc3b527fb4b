//! However deep a shader nests, the server answers.

use super::cache_server::client;
use super::support::{Server, folder, problem};
use reqwest::StatusCode;

/// A compute shader with two variables and a buffer.
fn shader(body: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> d: array<u32>;
         @compute @workgroup_size(1) fn main() {{ var a = d[0]; var b = a > 3u; {body} }}"
    )
}

/// Sources that nest so deep in one of the ways that naga does not bound, by their names.
fn deep(levels: usize) -> Vec<(&'static str, String)> {
    let repeat = |text: &str| text.repeat(levels);
    let each = |of: &dyn Fn(usize) -> String| (1..levels).rev().map(of).collect::<String>();
    let lets = (1..levels).map(|n| format!("let x{n}=-x{};", n - 1));
    let lets: String = lets.collect();
    let (last, none) = (levels - 1, shader(""));
    vec![
        ("sum", shader(&format!("d[1] = a{};", repeat("+a")))),
        (
            "constant sum",
            shader(&format!("d[1] = 1{};", repeat("+1"))),
        ),
        (
            "conjunction",
            shader(&format!("d[1] = u32(b{});", repeat("&&b"))),
        ),
        (
            "swizzles",
            shader(&format!("d[1] = vec2(a){}.x;", repeat(".yx"))),
        ),
        ("members", shader(&format!("d[1] = a{};", repeat(".x")))),
        ("accesses", shader(&format!("d[1] = d{};", repeat("[0]")))),
        (
            "else",
            shader(&format!("if b {{}} {}", repeat("else if b {d[1]=a;}"))),
        ),
        ("blocks", shader(&format!("{}{}", repeat("{"), repeat("}")))),
        (
            "brackets",
            shader(&format!("d[1] = {}a{};", repeat("("), repeat(")"))),
        ),
        (
            "lets",
            shader(&format!("let x0 = f32(a); {lets} d[1] = u32(x{last});")),
        ),
        (
            "aliases",
            format!(
                "{}alias a0=u32;{none}",
                each(&|n| format!("alias a{n}=a{};", n - 1))
            ),
        ),
        (
            "functions",
            format!(
                "{}fn f0(){{}}{none}",
                each(&|n| format!("fn f{n}(){{f{}();}}", n - 1))
            ),
        ),
        (
            "structs",
            format!(
                "{}struct s0{{a:u32}}{none}",
                each(&|n| format!("struct s{n}{{a:s{}}}", n - 1))
            ),
        ),
        (
            "arrays",
            format!(
                "{}const a0=array(1u);{none}",
                each(&|n| format!("const a{n}=array(a{});", n - 1))
            ),
        ),
        (
            "overrides",
            format!(
                "{}override o0=1u;{none}",
                each(&|n| format!("override o{n}=-o{};", n - 1))
            ),
        ),
        (
            "comments",
            format!("{}{}{none}", repeat("/*"), repeat("*/")),
        ),
        (
            "templates",
            shader(&format!("var x: {}u32{};", repeat("array<"), repeat(",1>"))),
        ),
    ]
}

/// It is compiled, or a shader to complain of.
async fn is_answered(server: &Server, target: &str, name: &str, source: String) {
    let request = client().post(format!("{}/compile/{target}", server.url));
    let response = request.body(source).send().await;
    let response = response.unwrap_or_else(|error| panic!("{target}, {name}: {error}"));
    if response.status() != StatusCode::OK {
        let problem = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(problem["type"], "urn:problem-type:invalid-shader");
    }
}

#[tokio::test]
async fn no_nesting_ends_the_server() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    // About as deep as it may be.
    for (name, source) in deep(970) {
        for target in ["spirv", "msl", "hlsl", "glsl"] {
            is_answered(&server, target, name, source.clone()).await;
        }
    }
    for (name, source) in deep(5_000) {
        is_answered(&server, "spirv", name, source).await;
    }
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_nests_too_deep_is_told_where() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let response = server
        .post("spirv", format!("\nconst x = 1{};", "+1".repeat(1001)))
        .await;
    let problem = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(problem["detail"], "the source nests deeper than 1000");
    let span = &problem["span"];
    assert_eq!(
        (&span["line"], &span["column"]),
        (&2.into(), &2010.into()),
        "{problem}"
    );
}
