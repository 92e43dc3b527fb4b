//! The servers of the tests.

#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../cache_server/support.rs"]
pub(crate) mod cache_server;
#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../../../tests/network/support/nginx.rs"]
pub(crate) mod nginx;
#[path = "../../../tests/network/support/real_server.rs"]
pub(crate) mod real_server;
