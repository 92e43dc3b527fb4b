//! The language server: the real program, spoken to as editors speak to it, and by editors.
#![cfg(unix)]

#[path = "../cache_server/support.rs"]
#[expect(dead_code, reason = "the tests of cache_server use the rest")]
mod cache_server;
mod editors;
mod hostile;
mod protocol;
mod remembers;
mod support;
#[path = "../../wgsl_language_server/text.rs"]
#[expect(dead_code, reason = "only its own tests are run")]
mod text;
#[path = "../../wgsl_language_server/transport.rs"]
#[expect(dead_code, reason = "only its own tests are run")]
mod transport;
mod typing;
