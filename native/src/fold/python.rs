//! What Python has of the fold: a chunk's records in, what must be written out; and the lines of a page.
//!
//! Whatever cannot be read here (another version's schema, damage) is shown to the Python codec, which has the last
//! word: it translates it, or says in its own words what is wrong with it.

use std::collections::HashSet;

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::avro::Damaged;
use crate::batches::python::FetchedRecord;
use crate::fold::chunk::{Known, fold_all, place};
use crate::fold::event::Event;
use crate::fold::forms::FormFields;
use crate::fold::lines::{Page, write_line};
use crate::fold::outgoing::{FixedHeader, FixedHeaders};
use crate::fold::records::{Folded, encode};
use crate::fold::rules::{Rules, Terms};

/// See `native/_native.pyi`.
#[pyclass(frozen)]
pub struct Core {
    rules: Rules,
    headers: FixedHeaders,
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (
        *, id_characters, moments, ahead_ms, offsets, form_bytes, every_field, id_namespace,
        specversion, content_type, notification_types, state_changed, state_deleted
    ))]
    fn new(
        id_characters: usize,
        moments: (i64, i64),
        ahead_ms: i64,
        offsets: usize,
        form_bytes: usize,
        every_field: String,
        id_namespace: [u8; 16],
        specversion: FixedHeader,
        content_type: FixedHeader,
        notification_types: Vec<FixedHeader>,
        state_changed: FixedHeader,
        state_deleted: FixedHeader,
    ) -> Self {
        Self {
            rules: Rules {
                id_characters,
                moments: moments.0..=moments.1,
                ahead_ms,
                offsets,
                form_bytes,
                every_field,
                id_namespace,
            },
            headers: FixedHeaders { specversion, content_type, notification_types, state_changed, state_deleted },
        }
    }

    #[pyo3(signature = (
        records, *, own_frames, translate, load, renew, state_frame, notification_frame, now_ms, too_large, told_bytes,
        form_fields
    ))]
    fn fold<'py>(
        &self,
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
        told_bytes: usize,
        form_fields: HashSet<String>,
    ) -> PyResult<Folded> {
        let wanted = FormFields::new(form_fields, &self.rules.every_field, self.rules.form_bytes);
        let taken = records.iter().map(|each| take(&each)).collect::<PyResult<Vec<_>>>()?;
        let mut events: Vec<Option<Event<'_>>> = Vec::with_capacity(taken.len());
        for each in &taken {
            events.push(each.value.as_ref().and_then(|value| Event::read_own(value.as_bytes(), &own_frames, &wanted)));
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
            events[*record] = Some(Event::read(body.as_bytes(), &wanted).map_err(not_ours)?);
        }

        let keys = taken.iter().map(|each| (each.key.as_ref().map(PyBytesMethods::as_bytes), each.offset));
        let (given, with_key) = place(keys, events, &self.rules);
        let keys: Vec<_> = with_key.iter().filter_map(|&record| taken[record].key.as_ref()).collect();
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

        let rules = &self.rules;
        let terms = Terms { rules, state_frame, notification_frame, now_ms, too_large: &too_large, told_bytes };
        let texts: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let (outcome, encoded) = py.detach(|| {
            let outcome = fold_all(&given, &mut known, terms);
            let encoded = encode(&outcome, &given, &texts, rules, &self.headers);
            (outcome, encoded)
        });
        Folded::of(py, &outcome, encoded, &given, &keys, rejected)
    }

    #[pyo3(signature = (values, view, source, name_of, /))]
    fn lines<'py>(
        &self,
        py: Python<'py>,
        values: Vec<Bound<'py, PyBytes>>,
        view: &str,
        source: &str,
        name_of: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let page = Page { view, source, moments: &self.rules.moments };
        let mut out = Vec::with_capacity(values.len() * LINE_BYTES + 2);
        out.push(b'[');
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match write_line(&mut out, value.as_bytes(), &page, |id| Ok(name_of.call1((id,))?.extract()?)) {
                Ok(()) => (),
                Err(Unwritten::Damaged) => return Ok(None),
                Err(Unwritten::Raised(error)) => return Err(error),
            }
        }
        out.push(b']');
        Ok(Some(PyBytes::new(py, &out)))
    }
}

/// Of a usual line as JSON.
const LINE_BYTES: usize = 512;

/// Why a line was not written: it cannot be read here, or asking for a name raised.
enum Unwritten {
    Damaged,
    Raised(PyErr),
}

impl From<Damaged> for Unwritten {
    fn from(_: Damaged) -> Self {
        Self::Damaged
    }
}

impl From<PyErr> for Unwritten {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

/// A record, as far as the fold looks at it.
struct Taken<'py> {
    key: Option<Bound<'py, PyBytes>>,
    value: Option<Bound<'py, PyBytes>>,
    offset: i64,
}

fn take<'py>(record: &Bound<'py, PyAny>) -> PyResult<Taken<'py>> {
    let py = record.py();
    if let Ok(fetched) = record.cast::<FetchedRecord>() {
        let FetchedRecord { key, value, offset, .. } = fetched.get();
        let given = |bytes: &Option<Py<PyBytes>>| bytes.as_ref().map(|bytes| bytes.bind(py).clone());
        return Ok(Taken { key: given(key), value: given(value), offset: *offset });
    }
    Ok(Taken {
        key: record.getattr(intern!(py, "key"))?.extract()?,
        value: record.getattr(intern!(py, "value"))?.extract()?,
        offset: record.getattr(intern!(py, "offset"))?.extract()?,
    })
}

fn not_ours(_: Damaged) -> PyErr {
    PyValueError::new_err("what the Python implementation wrote cannot be read by the native one")
}
