//! Servers to test against. No promise is tested here.

#[cfg(feature = "remote-cache")]
pub(crate) mod captured_trace;
#[cfg(feature = "remote-cache")]
pub(crate) mod certificates;
#[cfg(all(feature = "remote-cache", unix))]
pub(crate) mod haproxy;
#[cfg(feature = "remote-cache")]
pub(crate) mod nginx;
pub(crate) mod real_server;
pub(crate) mod scripted_http;
#[cfg(all(feature = "object-store", feature = "testing"))]
pub(crate) mod seaweed;
