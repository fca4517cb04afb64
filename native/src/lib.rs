//! The native core of both services: `edge` decides callbacks, `fold` folds events, `batches` reads and writes records.
//!
//! Each part has a Python implementation, which is its specification. `python` binds them to `taskbridge.native._native`.

// Without Python, only tests use it.
#![cfg_attr(not(feature = "python"), allow(dead_code))]

mod avro;
mod batches;
mod cloudevents;
mod edge;
pub mod fold;
mod json;
#[cfg(feature = "python")]
mod python;
