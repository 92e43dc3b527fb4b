//! The disk tier. Where a test needs a limit, a user or an environment of its own, it starts this
//! program again as another process.
#![cfg(unix)]

mod abandoned_calls;
#[cfg(target_os = "linux")]
mod answers_as_a_map;
#[cfg(target_os = "linux")]
mod bad_names;
mod bounds_under_load;
#[path = "../network/support/captured_trace.rs"]
mod captured_trace;
mod cleaners;
mod clocks;
mod compile_leases;
mod compile_locks;
mod corruption;
#[cfg(feature = "signatures")]
mod cost_of_signatures;
mod durability;
mod eviction_order;
mod failures;
#[cfg(target_os = "linux")]
mod files_closed_off_the_workers;
mod foreign_entries;
mod hostile_folders;
mod large_entries;
mod maintenance;
mod many_processes;
#[cfg(target_os = "linux")]
mod page_cache;
#[cfg(target_os = "linux")]
mod power_loss;
#[cfg(target_os = "linux")]
mod scales;
mod shared_folders;
#[cfg(target_os = "linux")]
mod stale_handles;
mod support;
mod survives;
mod trim;
mod whole_or_absent;
