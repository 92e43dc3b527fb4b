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
mod http_caching;
#[path = "../../http_server/mod.rs"]
#[expect(dead_code, reason = "a program uses the rest")]
mod http_server;
mod limits;
#[path = "../../naga_compiler/mod.rs"]
mod naga_compiler;
mod nesting;
mod operation;
#[path = "../../compile_server/problem.rs"]
mod problem;
#[path = "../../../tests/store/prometheus.rs"]
mod prometheus;
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
#[path = "../../wgsl_nesting/mod.rs"]
mod wgsl_nesting;
