//! The servers of the tests of network tiers.

#[cfg(all(feature = "redis", unix))]
#[path = "../network/support/real_server.rs"]
pub(crate) mod real_server;
#[cfg(all(feature = "redis", unix))]
#[expect(dead_code, reason = "one server alone is needed here")]
#[path = "../network/support/redis.rs"]
pub(crate) mod redis;
#[cfg(feature = "remote-cache")]
#[expect(dead_code, reason = "no server misbehaves here")]
#[path = "../network/support/scripted_http.rs"]
pub(crate) mod scripted_http;
#[cfg(all(feature = "redis", unix))]
#[path = "../network/support/signals.rs"]
pub(crate) mod signals;
