//! The fold of a chunk of records, and `python`, which binds it to the module `taskbridge.native._native`.
//!
//! The Python implementation (`streams/fold/chunk.py` and what it imports) is the specification. It holds this one to
//! it, byte for byte: `vectors` has what it exported, and `tests/unit/streams/test_native_core.py` asks both for more.

mod acceptance;
mod avro;
mod chunk;
mod decisions;
mod event;
mod fold;
mod forms;
mod instance;
mod msgpack;
mod refusal;
mod rules;
mod stored;
mod told;
mod views;
mod words;

#[cfg(feature = "python")]
mod python;
#[cfg(feature = "python")]
mod records;

#[cfg(test)]
mod vectors;
