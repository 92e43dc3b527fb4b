//! WebAssembly to native code.

use super::support::{DOUBLE, Server, folder, header, problem};
use super::wasmtime_compiler::Wasmtime;
use pipeline_cache::Program as _;
use pipeline_cache::key::wasm::WasmModule;
use reqwest::StatusCode;
use wasmtime::{Engine, Precompiled};

/// Many functions, of which one adds this number.
fn module(number: u32) -> Vec<u8> {
    let others: String = (0..200)
        .map(|n| {
            format!(
                "(func (export \"f{n}\") (param i32) (result i32)
                   (i32.mul (i32.add (local.get 0) (i32.const {n})) (i32.const {})))",
                n * 7 + 3
            )
        })
        .collect();
    let text = format!(
        "(module {others}
           (func (export \"add\") (param i32) (result i32)
             (i32.add (local.get 0) (i32.const {number}))))"
    );
    wat::parse_str(text).unwrap()
}

/// What wasmtime makes of it without any cache.
fn direct(module: Vec<u8>) -> Vec<u8> {
    let canonical = WasmModule::new(module).canonicalize().unwrap();
    Wasmtime::new().unwrap().compile(canonical.bytes()).unwrap()
}

#[tokio::test]
async fn a_module_is_compiled_once_to_what_wasmtime_makes() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let compiled = server.post("native", module(5)).await;
    assert_eq!(compiled.status(), StatusCode::OK);
    assert_eq!(header(&compiled, "artifact-source"), "compiled");
    assert_eq!(
        header(&compiled, "content-type"),
        "application/octet-stream"
    );
    let again = server.post("native", module(5)).await;
    assert_eq!(header(&again, "artifact-source"), "memory");
    let artifact = compiled.bytes().await.unwrap();
    assert_eq!(again.bytes().await.unwrap(), artifact);
    assert_eq!(artifact, direct(module(5)));
    let kind = Engine::detect_precompiled(&artifact);
    assert_eq!(kind, Some(Precompiled::Module));
    let changed = server.post("native", module(9)).await;
    assert_eq!(header(&changed, "artifact-source"), "compiled");
    assert_eq!(changed.bytes().await.unwrap(), direct(module(9)));
}

/// The functions that both modules have are stored once.
#[tokio::test]
async fn of_a_changed_module_only_what_has_changed_is_compiled() {
    let folder = folder();
    let stored = |server: &mut Server| {
        server.terminate();
        let (status, said) = server.wait();
        assert!(status.success(), "{said}");
        let functions = folder.path().join("functions");
        let entries = super::cache_server::files(&functions);
        entries
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "bin"))
            .count()
    };
    let mut server = Server::start(folder.path(), &[]);
    assert_eq!(
        server.post("native", module(5)).await.status(),
        StatusCode::OK
    );
    let first = stored(&mut server);
    assert!(first > 200, "{first}");
    let mut server = Server::start(folder.path(), &[]);
    assert_eq!(
        server.post("native", module(6)).await.status(),
        StatusCode::OK
    );
    let second = stored(&mut server) - first;
    assert!((1..20).contains(&second), "{second}");
}

#[tokio::test]
async fn what_is_no_module_is_told() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let broken = [&b"\0asm\x01\0\0\0"[..], &[10, 200, 1, 2, 3]].concat();
    for source in [Vec::new(), DOUBLE.into(), broken] {
        let response = server.post("native", source).await;
        let problem = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(problem["type"], "urn:problem-type:invalid-module");
    }
    let response = server.post("native?version=1.3", module(1)).await;
    problem(response, StatusCode::BAD_REQUEST).await;
    let response = server.post("native", module(1)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

/// Blocks in blocks, and an expression in itself, as deep as a source can be.
#[tokio::test]
async fn no_nesting_of_a_module_ends_the_server() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    for (before, repeated, after) in [
        ("", &b"\x02\x40"[..], &b"\x0b"[..]),
        ("\x20\0", b"\x45", b""),
        ("\x20\0", b"\x04\x7f\x41\x01", b"\x05\x41\0\x0b"),
    ] {
        let levels = 4_000;
        let mut body = before.as_bytes().to_vec();
        body.extend(repeated.repeat(levels));
        body.extend(after.repeat(levels));
        if before.is_empty() {
            body.extend(b"\x20\0");
        }
        let response = server.post("native", one_function(&body)).await;
        assert!(
            [StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY].contains(&response.status()),
            "{}",
            response.status()
        );
    }
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
}

/// A module of one exported function from i32 to i32 with this body.
fn one_function(body: &[u8]) -> Vec<u8> {
    use wasm_encoder::{
        CodeSection, ExportKind, ExportSection, Function, FunctionSection, Module, TypeSection,
        ValType,
    };
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut exports = ExportSection::new();
    exports.export("f", ExportKind::Func, 0);
    let mut function = Function::new([]);
    function.raw(body.iter().copied().chain([0x0b]));
    let mut code = CodeSection::new();
    code.function(&function);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&exports)
        .section(&code);
    module.finish()
}
