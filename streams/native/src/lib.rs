//! The Python module `native._native`: a chunk's records in, what must be written out.
//!
//! The Python implementation (`streams/fold/chunk.py` and what it imports) is the specification, and
//! `tests/unit/streams/test_native_core.py` holds this one to it, byte for byte. Whatever cannot be read here (another
//! version's schema, damage) is shown to the Python codec, which has the last word: it translates it, or says in its
//! own words what is wrong with it.

mod acceptance;
mod avro;
mod chunk;
mod event;
mod fold;
mod instance;
mod msgpack;
mod records;
mod stored;
mod told;
mod views;
mod words;

use std::collections::{HashMap, HashSet};

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::acceptance::accept;
use crate::avro::Damaged;
use crate::chunk::{Bounds, Frames, Given, Known, fold_all};
use crate::event::Event;
use crate::fold::Refusal;
use crate::records::Folded;

/// A record, as far as the fold looks at it.
struct Taken<'py> {
    key: Option<Bound<'py, PyBytes>>,
    value: Option<Bound<'py, PyBytes>>,
    offset: i64,
}

/// Fold the records in their order; see `native/_native.pyi`.
#[pyfunction]
#[pyo3(signature = (
    records, *, own_frames, translate, load, renew, state_frame, notification_frame, now_ms, too_large, most_told_bytes
))]
fn fold_chunk<'py>(
    py: Python<'py>,
    records: &Bound<'py, PyList>,
    own_frames: Vec<Vec<u8>>,
    translate: &Bound<'py, PyAny>,
    load: &Bound<'py, PyAny>,
    renew: &Bound<'py, PyAny>,
    state_frame: &[u8],
    notification_frame: &[u8],
    now_ms: i64,
    too_large: HashSet<i64>,
    most_told_bytes: usize,
) -> PyResult<Folded> {
    let frames = Frames { state: state_frame, notification: notification_frame };
    let taken = records.iter().map(|each| take(&each)).collect::<PyResult<Vec<_>>>()?;

    let mut events: Vec<Option<Event<'_>>> = Vec::with_capacity(taken.len());
    for each in &taken {
        events.push(each.value.as_ref().and_then(|value| read_own(value.as_bytes(), &own_frames)));
    }
    let mut rejected: Vec<(usize, Bound<'py, PyAny>)> = Vec::new();
    let mut bodies: Vec<(usize, Bound<'py, PyBytes>)> = Vec::new();
    for record in (0..taken.len()).filter(|&record| events[record].is_none()) {
        match translate.call1((&taken[record].value,))?.cast_into::<PyBytes>() {
            Ok(body) => bodies.push((record, body)),
            Err(error) => rejected.push((record, error.into_inner())),
        }
    }
    for (record, body) in &bodies {
        events[*record] = Some(Event::read(body.as_bytes()).map_err(not_ours)?);
    }

    let (given, keys) = placed(&taken, events);
    let stored: Vec<Option<Bound<'py, PyBytes>>> = load.call1((PyList::new(py, &keys)?,))?.extract()?;
    if stored.len() != keys.len() {
        return Err(PyValueError::new_err("an answer for each key was expected"));
    }
    let mut known: Vec<Known<'_>> = Vec::with_capacity(keys.len());
    let mut unread: Vec<usize> = Vec::new();
    for (place, bytes) in stored.iter().enumerate() {
        known.push(match bytes.as_ref().map(|bytes| Known::read(bytes.as_bytes(), state_frame)) {
            None => Known::default(),
            Some(Ok(known)) => known,
            Some(Err(Damaged)) => {
                unread.push(place);
                Known::default()
            }
        });
    }
    let renewed = unread
        .iter()
        .map(|&place| Ok(renew.call1((&stored[place],))?.cast_into::<PyBytes>()?))
        .collect::<PyResult<Vec<_>>>()?;
    for (place, bytes) in unread.into_iter().zip(&renewed) {
        known[place] = Known::read(bytes.as_bytes(), state_frame).map_err(not_ours)?;
    }

    let bounds = Bounds { too_large: &too_large, told_bytes: most_told_bytes };
    let outcome = py.detach(|| fold_all(&given, &mut known, frames, bounds, now_ms));
    Folded::of(py, &outcome, &given, &keys, rejected)
}

fn take<'py>(record: &Bound<'py, PyAny>) -> PyResult<Taken<'py>> {
    let py = record.py();
    Ok(Taken {
        key: record.getattr(intern!(py, "key"))?.extract()?,
        value: record.getattr(intern!(py, "value"))?.extract()?,
        offset: record.getattr(intern!(py, "offset"))?.extract()?,
    })
}

/// The event, where our own schema wrote it and in the usual way.
fn read_own<'a>(value: &'a [u8], own_frames: &[Vec<u8>]) -> Option<Event<'a>> {
    let body = own_frames.iter().find_map(|frame| value.strip_prefix(frame.as_slice()))?;
    Event::read(body).ok()
}

/// Give each event that is accepted the place of its instance, and the places their keys.
///
/// Only these are loaded: an id that is none might be the name under which the store keeps something else.
fn placed<'t, 'py>(
    taken: &'t [Taken<'py>],
    events: Vec<Option<Event<'t>>>,
) -> (Vec<Given<'t>>, Vec<&'t Bound<'py, PyBytes>>) {
    let mut keys: Vec<&Bound<'py, PyBytes>> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut given = Vec::with_capacity(events.len());
    for (record, (each, event)) in taken.iter().zip(events).enumerate() {
        let Some(mut event) = event else {
            continue;
        };
        let key = each.key.as_ref().filter(|key| key.as_bytes() == event.instance_id.as_bytes());
        let known = accept(&mut event).and(key.ok_or(Refusal::MisplacedKey)).map(|key| {
            *places.entry(key.as_bytes()).or_insert_with(|| {
                keys.push(key);
                keys.len() - 1
            })
        });
        given.push(Given { record, offset: each.offset, event, known });
    }
    (given, keys)
}

fn not_ours(_: Damaged) -> PyErr {
    PyValueError::new_err("what the Python implementation wrote cannot be read by the native one")
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Folded>()?;
    module.add_function(wrap_pyfunction!(fold_chunk, module)?)
}
