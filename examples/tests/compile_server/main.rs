//! `compile_server`: the real program, on a port that was free, and its service alone, on a cache that the
//! test holds.
#![cfg(unix)]

#[path = "../../compile_server/activity.rs"]
mod activity;
#[path = "../../compile_server/artifact.rs"]
mod artifact;
#[path = "../cache_server/support.rs"]
#[expect(dead_code, reason = "the tests of cache_server use the rest")]
mod cache_server;
#[path = "../../compile_server/compile.rs"]
mod compile;
mod compiles;
#[cfg(feature = "wasmtime")]
#[path = "../../function_store/mod.rs"]
mod function_store;
mod http_caching;
#[path = "../../http_server/mod.rs"]
#[expect(dead_code, reason = "a program uses the rest")]
mod http_server;
mod limits;
#[path = "../../naga_compiler/mod.rs"]
mod naga_compiler;
#[cfg_attr(feature = "wasmtime", path = "../../compile_server/native.rs")]
#[cfg_attr(not(feature = "wasmtime"), path = "../../compile_server/no_native.rs")]
#[expect(dead_code, reason = "the program opens it")]
mod native;
mod nesting;
#[cfg(feature = "object-store")]
mod object_stores;
mod operation;
#[path = "../../compile_server/problem.rs"]
mod problem;
#[path = "../../../tests/store/prometheus.rs"]
mod prometheus;
#[cfg(feature = "object-store")]
#[path = "../../../tests/network/support/seaweed.rs"]
#[expect(dead_code, reason = "the tests of the library use the rest")]
mod seaweed;
#[path = "../../compile_server/shader.rs"]
mod shader;
#[path = "../../compile_server/site.rs"]
mod site;
#[path = "../../compile_server/status.rs"]
mod status;
mod strange_clients;
mod support;
#[path = "../../compile_server/targets/mod.rs"]
mod targets;
#[cfg(feature = "otlp")]
#[path = "../../compile_server/traces.rs"]
#[expect(dead_code, reason = "the program sends them")]
mod traces;
#[cfg(feature = "otlp")]
mod tracing_spans;
#[cfg(feature = "wasmtime")]
mod wasm;
#[cfg(feature = "wasmtime")]
#[path = "../../wasmtime_compiler/mod.rs"]
mod wasmtime_compiler;
#[path = "../../wgsl_nesting/mod.rs"]
mod wgsl_nesting;
