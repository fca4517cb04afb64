//! What a chunk comes to, as Python has it: records for Kafka, encoded, and what is to be stored.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::batches::python::Records;
use crate::batches::{EncodedRecords, Encoder, Header};
use crate::fold::chunk::{Given, Outcome};
use crate::fold::outgoing::{FixedHeaders, Sink, write_out};
use crate::fold::rules::Rules;

/// See `native/_native.pyi`.
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
    untold: Py<PyList>,
    largest: usize,
}

impl Folded {
    /// `rejected`: records that the codec could not read, and its errors.
    pub fn of<'py>(
        py: Python<'py>,
        outcome: &Outcome<'_>,
        encoded: Encoded,
        given: &[Given<'_>],
        keys: &[&Bound<'py, PyBytes>],
        mut rejected: Vec<(usize, Bound<'py, PyAny>)>,
    ) -> PyResult<Self> {
        let stored = PyDict::new(py);
        for each in &outcome.written {
            stored.set_item(keys[each.known], PyBytes::new(py, &outcome.bytes[each.stored.clone()]))?;
        }
        for (record, refusal) in &outcome.refused {
            rejected.push((*record, refusal.code().into_pyobject(py)?.into_any()));
        }
        rejected.sort_by_key(|(record, _)| *record);
        let [changelog, states, notifications] = encoded;
        let records = |encoded| Py::new(py, Records(encoded));
        Ok(Self {
            changelog: records(changelog)?,
            states: records(states)?,
            notifications: records(notifications)?,
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

/// Changelog, states and notifications.
pub type Encoded = [EncodedRecords; 3];

/// The records that a chunk comes to; `keys` of the instances that are known.
pub fn encode(
    outcome: &Outcome<'_>,
    given: &[Given<'_>],
    keys: &[&[u8]],
    rules: &Rules,
    fixed: &FixedHeaders,
) -> Encoded {
    let mut encoders = Encoders::default();
    write_out(outcome, given, keys, rules, fixed, &mut encoders);
    [encoders.changelog.done(), encoders.states.done(), encoders.told.done()]
}

#[derive(Default)]
struct Encoders {
    changelog: Encoder,
    states: Encoder,
    told: Encoder,
}

impl Sink for Encoders {
    fn instance(&mut self, key: &[u8], stored: &[u8]) {
        self.changelog.push(Some(key), Some(stored), &[]);
    }

    fn state(&mut self, key: &[u8], value: Option<&[u8]>, headers: &[Header<'_>]) {
        self.states.push(Some(key), value, headers);
    }

    fn notification(&mut self, key: &[u8], value: &[u8], headers: &[Header<'_>]) {
        self.told.push(Some(key), Some(value), headers);
    }
}
