//! `cache_server --store`: an object store below the folder, shared by several servers.
#![cfg(unix)]

#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../cache_server/support.rs"]
mod cache_server;
mod folder;
mod outages;
mod requests;
mod seaweed;
mod support;
