//! The native core of both services, and `python`, which binds it to the module `taskbridge.native._native`.
//!
//! Each part has a Python implementation, which is its specification: `edge` decides callbacks and claims
//! their signatures, `fold` folds events.

// Of the rest, Rust alone uses the fold: `tests/bench/streams/rust_loop`.
#![cfg_attr(not(feature = "python"), allow(dead_code, unused_imports))]

mod avro;
mod batches;
mod cloudevents;
mod edge;
pub mod fold;

#[cfg(feature = "python")]
mod python;
