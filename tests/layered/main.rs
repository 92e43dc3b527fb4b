//! The layered cache: what a lookup, a promotion, a removal and a compile promise.
#![cfg(feature = "testing")]

mod bounds;
mod compile;
mod intents;
mod lookup;
mod lost_writes;
mod many_keys;
mod parts;
mod prefetch;
mod promotion;
mod recorded_runs;
mod removal;
mod requests;
mod single_flight;
mod unwritten;
