//! What the servers among these programs share: bounded connections, exchanges that are watched to
//! their end, signals, and lines that nobody waits for.

pub(crate) mod arguments;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod console;
pub(crate) mod counters;
pub(crate) mod etags;
pub(crate) mod exchange;
pub(crate) mod line_writer;
pub(crate) mod listener;
pub(crate) mod signals;
