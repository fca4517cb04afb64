//! The native core of both services, and `python`, which binds it to the module `taskbridge.native._native`.
//!
//! Each part has a Python implementation, which is its specification: `edge` decides callbacks, `fold` folds events.

mod avro;
mod cloudevents;
mod edge;
mod fold;

#[cfg(feature = "python")]
mod python;
