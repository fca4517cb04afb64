//! What a callback proves: from the bytes of a request to a verified event, without I/O or state.
//!
//! The Python implementation (`edge/deciding/interpret.py` and what it imports) is the specification and has the last word: what
//! is not taken here, refusals of every kind among it, is decided there from the start. So this may be strict, and takes
//! what nearly all callbacks are. Nothing it takes may differ by a byte: `tests/unit/edge/test_native_decision.py` and
//! the corpus of `fuzz/` hold that.

#![allow(clippy::option_option)] // the outer is None where Python has to decide

mod callback;
pub mod decide;
mod fields;
mod form;
pub mod head;
mod json;
pub mod parameters;
mod scanner;
pub mod signature;

#[cfg(feature = "python")]
pub mod python;

#[cfg(test)]
mod vectors;
