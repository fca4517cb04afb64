//! The fold of a chunk of records, and the lines of a page as JSON; `python` and `records` bind them to Python.
//!
//! The Python implementation (`streams/fold/chunk.py` and what it imports, `item_json` of `streams/api/json_forms.py`) is
//! the specification. It holds this one to it, byte for byte: `vectors` has what it exported, and
//! `tests/unit/streams/test_native_core.py` and `query/test_lines.py` ask both for more.

mod acceptance;
mod chunk;
mod decisions;
mod event;
mod forms;
mod instance;
mod lifecycle;
mod lines;
mod msgpack;
mod outgoing;
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
pub use crate::batches::Header;
pub use chunk::{Given, Known, Outcome, Told, Written, fold_all, place};
pub use event::Event;
pub use forms::FormFields;
pub use outgoing::{FixedHeader, FixedHeaders, Sink, write_out};
pub use rules::{Rules, Terms};

#[cfg(test)]
mod vectors;
