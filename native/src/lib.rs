//! The native core of both services, and `python`, which binds it to the module `taskbridge.native._native`.
//!
//! Each part has a Python implementation, which is its specification: `fold`.

mod avro;
mod fold;

#[cfg(feature = "python")]
mod python;
