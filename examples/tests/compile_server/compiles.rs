//! What is compiled is what naga makes of the shader, once for each program.

use super::cache_server::client;
use super::shader;
use super::support::{DOUBLE, DOUBLE_RESPELLED, Server, folder, header, problem};
use super::targets::{Choices, Language, Target};
use bytes::Bytes;
use pipeline_cache::Program as _;
use reqwest::StatusCode;

#[tokio::test]
async fn all_targets_give_what_naga_gives() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    for name in ["spirv", "msl", "hlsl", "glsl"] {
        let target = Target::new(Language::of(name).unwrap(), &Choices::default()).unwrap();
        let source = Bytes::from(DOUBLE);
        let module = shader::parse(&source, target.capabilities).unwrap();
        let canonical = module.canonicalize().unwrap();
        let direct = target.write(canonical.module(), canonical.info().unwrap());
        let response = server.post(name, DOUBLE).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "artifact-source"), "compiled");
        let key = header(&response, "artifact-key").to_owned();
        let served = response.bytes().await.unwrap();
        assert_eq!(served, direct.unwrap(), "{name}");

        let by_key = server.get(&format!("/artifact/{key}")).await;
        assert_eq!(by_key.status(), StatusCode::OK);
        assert_eq!(by_key.bytes().await.unwrap(), served);
    }
}

#[tokio::test]
async fn a_known_spelling_is_a_hit_that_parses_nothing() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let first = server.post("spirv", DOUBLE).await;
    assert!(header(&first, "server-timing").contains("parse;dur="));
    let second = server.post("spirv", DOUBLE).await;
    assert_eq!(header(&second, "artifact-source"), "memory");
    let timing = header(&second, "server-timing");
    assert!(timing.contains("hash;dur="), "{timing}");
    assert!(!timing.contains("parse"), "{timing}");
    assert!(!timing.contains("compile"), "{timing}");
}

#[tokio::test]
async fn another_spelling_of_a_program_is_a_hit_under_its_key() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let first = server.post("msl", DOUBLE).await;
    let second = server.post("msl", DOUBLE_RESPELLED).await;
    assert_eq!(header(&second, "artifact-source"), "memory");
    let key = header(&first, "artifact-key");
    assert_eq!(header(&second, "artifact-key"), key);
    assert_eq!(key.len(), 64);
}

#[tokio::test]
async fn options_of_the_query_are_part_of_the_key() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let mut keys = Vec::new();
    for target in [
        "spirv",
        "spirv?version=1.5",
        "spirv?bounds_checks=false",
        "glsl",
        "glsl?entry=double",
        "glsl?version=310es",
    ] {
        let response = server.post(target, DOUBLE).await;
        assert_eq!(response.status(), StatusCode::OK, "{target}");
        keys.push(header(&response, "artifact-key").to_owned());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 6);
    for target in ["spirv?version=9.9", "spirv?entry=double", "msl?optimize=1"] {
        let response = server.post(target, DOUBLE).await;
        problem(response, StatusCode::BAD_REQUEST).await;
    }
    problem(server.post("dxil", DOUBLE).await, StatusCode::NOT_FOUND).await;
    let unknown = server.post("glsl?entry=other", DOUBLE).await;
    problem(unknown, StatusCode::UNPROCESSABLE_ENTITY).await;
}

#[tokio::test]
async fn a_bad_shader_is_told_with_message_and_span() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    // One that does not parse, one that does not validate, and one that is no text.
    for (source, line, column, length, says) in [
        (&b"\n  fn f() { missing(); }"[..], 2, 12, 7, "missing"),
        (b"\n fn f() -> u32 { }", 2, 2, 17, "return"),
        (b"// \n//\xff", 2, 3, 1, "UTF-8"),
    ] {
        let request = client().post(format!("{}/compile/spirv", server.url));
        let response = request.body(source).send().await.unwrap();
        let problem = problem(response, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(problem["type"], "urn:problem-type:invalid-shader");
        let detail = problem["detail"].as_str().unwrap();
        assert!(problem.to_string().contains(says), "{problem}");
        assert!(!detail.contains('\n'), "{detail}");
        let span = &problem["span"];
        assert_eq!(
            (&span["line"], &span["column"], &span["length"]),
            (&line.into(), &column.into(), &length.into()),
            "{problem}"
        );
    }
}
