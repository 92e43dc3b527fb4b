//! Servers to test against. No promise is tested here.

#[cfg(feature = "remote-cache")]
pub(crate) mod captured_trace;
#[cfg(any(feature = "remote-cache", feature = "redis"))]
pub(crate) mod certificates;
#[cfg(all(
    unix,
    any(feature = "remote-cache", all(feature = "redis", feature = "testing"))
))]
pub(crate) mod fault_table;
#[cfg(all(feature = "redis", feature = "testing", unix))]
pub(crate) mod faulty_link;
#[cfg(all(
    feature = "testing",
    any(feature = "object-store", all(feature = "redis", unix))
))]
pub(crate) mod fleet;
#[cfg(all(feature = "remote-cache", unix))]
pub(crate) mod haproxy;
#[cfg(feature = "remote-cache")]
pub(crate) mod nginx;
pub(crate) mod real_server;
#[cfg(all(feature = "redis", feature = "testing", unix))]
pub(crate) mod redis;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
pub(crate) mod scripted_http;
#[cfg(all(feature = "object-store", feature = "testing"))]
pub(crate) mod seaweed;
#[cfg(any(
    all(feature = "remote-cache", unix),
    all(feature = "redis", feature = "testing", unix),
    all(feature = "object-store", feature = "testing")
))]
pub(crate) mod signals;
