//! The fold for Python.
//!
//! Records and instances that cannot be read here (another version's schema, damage) are given to the Python codec,
//! which converts them or raises.

use std::collections::HashSet;

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::batches::{FetchedRecord, Records};
use crate::avro::Unreadable;
use crate::fold::{
    ChunkOptions, Event, FixedHeader, FixedHeaders, FormFields, Known, Outcome, Prepared, Rules, fold_all, prepare,
};

#[pyclass(frozen)]
pub struct Core {
    rules: Rules,
    headers: FixedHeaders,
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (
        *, id_characters, moments, ahead_ms, form_bytes, every_field, id_namespace,
        specversion, content_type, notification_types, state_changed, state_deleted
    ))]
    fn new(
        id_characters: usize,
        moments: (i64, i64),
        ahead_ms: i64,
        form_bytes: usize,
        every_field: String,
        id_namespace: [u8; 16],
        specversion: FixedHeader,
        content_type: FixedHeader,
        notification_types: Vec<FixedHeader>,
        state_changed: FixedHeader,
        state_deleted: FixedHeader,
    ) -> Self {
        let moments = moments.0..=moments.1;
        Self {
            rules: Rules { id_characters, moments, ahead_ms, form_bytes, every_field, id_namespace },
            headers: FixedHeaders { specversion, content_type, notification_types, state_changed, state_deleted },
        }
    }

    #[pyo3(signature = (
        records, *, own_frames, translate, load, renew, state_frame, notification_frame, now_ms, too_large,
        max_published_bytes, form_fields
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
        max_published_bytes: usize,
        form_fields: HashSet<String>,
    ) -> PyResult<Folded> {
        let fields = FormFields::new(form_fields, &self.rules.every_field, self.rules.form_bytes);
        let inputs = records.iter().map(|each| input(&each)).collect::<PyResult<Vec<_>>>()?;
        let mut events: Vec<Option<Event<'_>>> = Vec::with_capacity(inputs.len());
        for each in &inputs {
            events.push(each.value.as_ref().and_then(|value| Event::read_own(value.as_bytes(), &own_frames, &fields)));
        }
        let mut rejected: Vec<(usize, Bound<'py, PyAny>)> = Vec::new();
        let mut bodies: Vec<(usize, Bound<'py, PyBytes>)> = Vec::new();
        for record in (0..inputs.len()).filter(|&record| events[record].is_none()) {
            match translate.call1((&inputs[record].value,))?.cast_into::<PyBytes>() {
                Ok(body) => bodies.push((record, body)),
                Err(error) => rejected.push((record, error.into_inner())),
            }
        }
        for (record, body) in &bodies {
            events[*record] = Some(Event::read(body.as_bytes(), &fields).map_err(written_by_python)?);
        }

        let keys = inputs.iter().map(|each| (each.key.as_ref().map(PyBytesMethods::as_bytes), each.offset));
        let (prepared, with_key) = prepare(keys, events, &self.rules);
        let keys: Vec<_> = with_key.iter().filter_map(|&record| inputs[record].key.as_ref()).collect();
        let stored: Vec<Option<Bound<'py, PyBytes>>> = load.call1((PyList::new(py, &keys)?,))?.extract()?;
        if stored.len() != keys.len() {
            return Err(PyValueError::new_err("load must return one value for each key"));
        }
        let mut known: Vec<Known<'_>> = Vec::with_capacity(keys.len());
        let mut unread: Vec<usize> = Vec::new();
        for (place, bytes) in stored.iter().enumerate() {
            known.push(match bytes.as_ref().map(|bytes| Known::read(bytes.as_bytes(), state_frame)) {
                None => Known::default(),
                Some(Ok(known)) => known,
                Some(Err(Unreadable)) => {
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
            known[place] = Known::read(bytes.as_bytes(), state_frame).map_err(written_by_python)?;
        }

        let options = ChunkOptions {
            rules: &self.rules,
            headers: &self.headers,
            state_frame,
            notification_frame,
            now_ms,
            too_large: &too_large,
            max_published_bytes,
        };
        let key_bytes: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let outcome = py.detach(|| fold_all(&prepared, &mut known, &key_bytes, options));
        Folded::of(py, outcome, &prepared, &keys, rejected)
    }
}

struct Input<'py> {
    key: Option<Bound<'py, PyBytes>>,
    value: Option<Bound<'py, PyBytes>>,
    offset: i64,
}

fn input<'py>(record: &Bound<'py, PyAny>) -> PyResult<Input<'py>> {
    let py = record.py();
    if let Ok(fetched) = record.cast::<FetchedRecord>() {
        let FetchedRecord { key, value, offset, .. } = fetched.get();
        let bound = |bytes: &Option<Py<PyBytes>>| bytes.as_ref().map(|bytes| bytes.bind(py).clone());
        return Ok(Input { key: bound(key), value: bound(value), offset: *offset });
    }
    Ok(Input {
        key: record.getattr(intern!(py, "key"))?.extract()?,
        value: record.getattr(intern!(py, "value"))?.extract()?,
        offset: record.getattr(intern!(py, "offset"))?.extract()?,
    })
}

fn written_by_python(_: Unreadable) -> PyErr {
    PyValueError::new_err("the native core cannot read bytes that the Python implementation wrote")
}

/// The result of a chunk: records for Kafka, and instances for the store.
#[pyclass(frozen, get_all)]
pub struct Folded {
    changelog: Py<Records>,
    states: Py<Records>,
    notifications: Py<Records>,
    causes: Vec<i64>,
    stored: Py<PyDict>,
    rejected: Py<PyList>,
    actions: Vec<u64>,
    changes: Vec<Vec<u64>>,
    unpublished: Py<PyList>,
    largest: usize,
}

impl Folded {
    /// `rejected`: records that the codec could not read, and its errors.
    fn of<'py>(
        py: Python<'py>,
        outcome: Outcome<'_>,
        prepared: &[Prepared<'_>],
        keys: &[&Bound<'py, PyBytes>],
        mut rejected: Vec<(usize, Bound<'py, PyAny>)>,
    ) -> PyResult<Self> {
        let changelog = outcome.changelog.finish();
        let stored = PyDict::new(py);
        for (at, &known) in outcome.written.iter().enumerate() {
            let value = changelog.get(at).and_then(|record| record.value);
            stored.set_item(keys[known], value.map(|value| PyBytes::new(py, value)))?;
        }
        for (record, refusal) in &outcome.refused {
            rejected.push((*record, refusal.code().into_pyobject(py)?.into_any()));
        }
        rejected.sort_by_key(|(record, _)| *record);
        let records = |records| Py::new(py, Records(records));
        Ok(Self {
            changelog: records(changelog)?,
            states: records(outcome.states.finish())?,
            notifications: records(outcome.notifications.finish())?,
            causes: outcome.causes.iter().map(|&cause| prepared[cause].offset).collect(),
            stored: stored.unbind(),
            rejected: PyList::new(py, rejected)?.unbind(),
            actions: outcome.actions.to_vec(),
            changes: outcome.changes.iter().map(|counts| counts.to_vec()).collect(),
            unpublished: PyList::new(py, outcome.unpublished.iter().map(|&cause| prepared[cause].offset))?.unbind(),
            largest: outcome.largest,
        })
    }
}
