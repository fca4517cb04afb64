//! The fold of a chunk of records; `python` and `records` bind it to Python.
//!
//! The Python implementation (`streams/fold/chunk.py` and what it imports) is the specification. It holds this one to
//! it, byte for byte: `vectors` has what it exported, and `tests/unit/streams/test_native_core.py` asks both for more.

mod acceptance;
mod chunk;
mod decisions;
mod event;
mod forms;
mod instance;
mod lifecycle;
mod msgpack;
mod refusal;
mod rules;
mod stored;
mod told;
mod views;
mod words;

#[cfg(feature = "python")]
pub mod python;
#[cfg(feature = "python")]
pub mod records;

// What folds from Rust: `tests/bench/streams/rust_loop`.
pub use crate::cloudevents::{rfc3339, source};
pub use chunk::{Given, Known, Outcome, Told, Written, fold_all, place};
pub use event::Event;
pub use forms::FormFields;
pub use rules::{Rules, Terms};

#[cfg(test)]
mod vectors;
