//! What a chunk comes to, as Python hands it to librdkafka and to the store.

use std::ops::Range;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::cloudevents::{Header, header, rfc3339, source};
use crate::fold::chunk::{Given, Outcome, Told, Written};
use crate::fold::event::Event;
use crate::fold::rules::Rules;

/// See `native/_native.pyi`.
#[pyclass(frozen, get_all)]
pub struct Folded {
    changelog: Py<PyList>,
    states: Py<PyList>,
    notifications: Py<PyList>,
    causes: Vec<i64>,
    stored: Py<PyDict>,
    rejected: Py<PyList>,
    actions: Vec<u64>,
    changes: Vec<Vec<u64>>,
    untold: Py<PyList>,
    largest: usize,
}

impl Folded {
    /// `rejected`: records that the codec could not read, and its errors.
    pub fn of<'py>(
        py: Python<'py>,
        outcome: &Outcome<'_>,
        given: &[Given<'_>],
        keys: &[&Bound<'py, PyBytes>],
        mut rejected: Vec<(usize, Bound<'py, PyAny>)>,
        rules: &Rules,
        fixed: &FixedHeaders,
    ) -> PyResult<Self> {
        let bytes = |range: &Range<usize>| PyBytes::new(py, &outcome.bytes[range.clone()]);
        let (changelog, states, stored) = (PyList::empty(py), PyList::empty(py), PyDict::new(py));
        let mut headers = Headers { py, fixed, rules, cause: None, source: None };
        for each in &outcome.written {
            let (key, value) = (keys[each.known], bytes(&each.stored));
            changelog.append(record(key, &value)?)?;
            let state = (!each.is_deleted).then(|| bytes(&each.state));
            states.append((key, state, headers.of_state(each, key)?))?;
            stored.set_item(key, value)?;
        }
        let notifications = PyList::empty(py);
        for each in &outcome.told {
            let told = headers.of(each, &given[each.cause].event)?;
            notifications.append((bytes(&each.key), bytes(&each.value), told))?;
        }
        for (record, refusal) in &outcome.refused {
            rejected.push((*record, refusal.code().into_pyobject(py)?.into_any()));
        }
        rejected.sort_by_key(|(record, _)| *record);
        Ok(Self {
            changelog: changelog.unbind(),
            states: states.unbind(),
            notifications: notifications.unbind(),
            causes: outcome.told.iter().map(|each| given[each.cause].offset).collect(),
            stored: stored.unbind(),
            rejected: PyList::new(py, rejected)?.unbind(),
            actions: outcome.actions.to_vec(),
            changes: outcome.changes.iter().map(|counts| counts.to_vec()).collect(),
            untold: PyList::new(py, outcome.untold.iter().map(|&cause| given[cause].offset))?.unbind(),
            largest: outcome.largest(),
        })
    }
}

fn record<'py>(key: &Bound<'py, PyBytes>, value: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyDict>> {
    let py = key.py();
    let record = PyDict::new(py);
    record.set_item(intern!(py, "key"), key)?;
    record.set_item(intern!(py, "value"), value)?;
    Ok(record)
}

/// Those that say the same of many records. Python has them.
pub struct FixedHeaders {
    pub specversion: Header,
    pub content_type: Header,
    /// By change.
    pub notification_types: Vec<Header>,
    pub state_changed: Header,
    pub state_deleted: Header,
}

/// CloudEvents headers of states and notifications. Mirrors `schemas/cloudevents.py`.
///
/// Neighbours share what is the same: all but the id within an event, and the source within an app.
struct Headers<'h, 'py> {
    py: Python<'py>,
    fixed: &'h FixedHeaders,
    rules: &'h Rules,
    cause: Option<Cause<'py>>,
    source: Option<Source<'py>>,
}

struct Cause<'py> {
    place: usize,
    subject: Bound<'py, PyTuple>,
    time: Bound<'py, PyTuple>,
}

struct Source<'py> {
    segments: [String; 3],
    header: Bound<'py, PyTuple>,
}

impl<'py> Headers<'_, 'py> {
    fn of(&mut self, told: &Told<'_>, event: &Event<'_>) -> PyResult<Bound<'py, PyList>> {
        let py = self.py;
        let id = header(intern!(py, "ce_id"), &told.id)?;
        let cause = match self.cause.take().filter(|known| known.place == told.cause) {
            Some(known) => known,
            None => Cause {
                place: told.cause,
                subject: header(intern!(py, "ce_subject"), event.instance_id.as_bytes())?,
                time: header(intern!(py, "ce_time"), &rfc3339(event.occurred_at))?,
            },
        };
        let source = self.source(told.source)?;
        let FixedHeaders { specversion, content_type, notification_types, .. } = self.fixed;
        let kind = notification_types[told.change.number()].bind(py);
        let (specversion, content_type) = (specversion.bind(py), content_type.bind(py));
        let headers = PyList::new(py, [specversion, &id, kind, &source, &cause.subject, &cause.time, content_type]);
        self.cause = Some(cause);
        headers
    }

    /// Of a state, or of its tombstone, which has no content.
    fn of_state(&mut self, written: &Written<'_>, key: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyList>> {
        let py = self.py;
        let FixedHeaders { specversion, content_type, state_changed, state_deleted, .. } = self.fixed;
        let updated_at = written.updated_at.clamp(*self.rules.moments.start(), *self.rules.moments.end());
        let id = header(intern!(py, "ce_id"), &written.id)?;
        // The record's key is the instance's id.
        let subject = PyTuple::new(py, [intern!(py, "ce_subject").as_any(), key.as_any()])?;
        let time = header(intern!(py, "ce_time"), &rfc3339(updated_at))?;
        let source = self.source(written.source)?;
        let kind = if written.is_deleted { state_deleted } else { state_changed };
        let headers = [specversion.bind(py), &id, kind.bind(py), &source, &subject, &time, content_type.bind(py)];
        PyList::new(py, &headers[..headers.len() - usize::from(written.is_deleted)])
    }

    fn source(&mut self, segments: [&str; 3]) -> PyResult<Bound<'py, PyTuple>> {
        if let Some(known) = &self.source
            && known.segments == segments
        {
            return Ok(known.header.clone());
        }
        let header = header(intern!(self.py, "ce_source"), &source(segments))?;
        self.source = Some(Source { segments: segments.map(str::to_owned), header: header.clone() });
        Ok(header)
    }
}
