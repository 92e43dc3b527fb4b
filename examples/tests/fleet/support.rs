//! The servers that the library's own tests start.

#[path = "../../../tests/network/support/real_server.rs"]
pub(crate) mod real_server;
#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../../../tests/network/support/redis.rs"]
pub(crate) mod redis;
#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../../../tests/network/support/seaweed.rs"]
pub(crate) mod seaweed;
#[path = "../../../tests/network/support/signals.rs"]
pub(crate) mod signals;
