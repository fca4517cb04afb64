//! What a callback proves: from the bytes of a request to a verified event, without I/O or state.
//!
//! The Python implementation (`edge/decision/decide.py` and what it imports) is the specification. A request that is
//! not accepted here, is decided there from the start, so that this code may be strict. Every
//! event that is accepted here has the same bytes there: `tests/unit/edge/decision/test_native_decision.py` and the corpus of
//! `fuzz/` check that.

#![allow(clippy::option_option)] // the outer is None where Python decides

mod callback;
pub mod decide;
pub mod plain;
pub mod request;
pub mod signature;
#[cfg(test)]
#[path = "../../../tests/native/edge_vectors.rs"]
mod vectors;
