//! The fold of a chunk of records.
//!
//! The Python implementation (`streams/fold/python.py` and what it imports) is the specification; both give the same bytes.
//! `vectors` compares this one with results that Python exported, `tests/unit/streams/test_native_core.py` compares both on
//! random input.

mod chunk;
mod event;
mod instance;
mod lifecycle;
mod published;
mod rules;
mod stored;
#[cfg(test)]
#[path = "../../../tests/native/fold_vectors.rs"]
mod vectors;
mod views;

// For `python`.
pub use chunk::{Known, Outcome, Prepared, fold_all, prepare};
pub use event::{Event, FormFields};
pub use published::{FixedHeader, FixedHeaders};
pub use rules::{ChunkOptions, Refusal, Rules};
