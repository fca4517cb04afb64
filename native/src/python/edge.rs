//! The edge's decision for Python.

use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::cloudevents::{rfc3339, source};
use crate::edge::decide::{Decided, Request, Rules, decide};
use crate::edge::plain;
use crate::edge::signature::Signer;

type Header = Py<PyTuple>;

#[pyclass(frozen)]
pub struct Edge {
    rules: Rules,
    specversion: Header,
    content_type: Header,
    event_types: Vec<Header>,
}

#[pymethods]
impl Edge {
    #[new]
    #[pyo3(signature = (apps, *, id_characters, ahead_ms, id_namespace, specversion, content_type, event_types))]
    fn new(
        apps: HashMap<String, Vec<(Option<String>, String)>>,
        id_characters: usize,
        ahead_ms: i64,
        id_namespace: [u8; 16],
        specversion: Header,
        content_type: Header,
        event_types: Vec<Header>,
    ) -> Self {
        let signers = |tokens: Vec<(Option<String>, String)>| {
            tokens.into_iter().map(|(corp_id, token)| Signer { corp_id, token }).collect()
        };
        let apps = apps.into_iter().map(|(app_type, tokens)| (app_type, signers(tokens))).collect();
        Self { rules: Rules { apps, id_characters, ahead_ms, id_namespace }, specversion, content_type, event_types }
    }

    #[pyo3(signature = (wire_action, query, content_type, body, received_at, /))]
    fn decide<'py>(
        &self,
        py: Python<'py>,
        wire_action: &str,
        query: &[u8],
        content_type: Option<&str>,
        body: &[u8],
        received_at: i64,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let request = Request { wire_action, query, content_type, body, received_at };
        decide(&self.rules, request).map(|decided| self.record(py, &decided)).transpose()
    }
}

impl Edge {
    /// As `Found` of `_native.pyi`.
    fn record<'py>(&self, py: Python<'py>, decided: &Decided) -> PyResult<Bound<'py, PyTuple>> {
        let key = PyBytes::new(py, decided.instance_id.as_bytes());
        let headers = [
            self.specversion.bind(py),
            &header(intern!(py, "ce_id"), &decided.event_id)?,
            self.event_types[decided.action].bind(py),
            &header(intern!(py, "ce_source"), &source(["yida", &decided.corp_id, &decided.app_type]))?,
            &(intern!(py, "ce_subject"), &key).into_pyobject(py)?,
            &header(intern!(py, "ce_time"), &rfc3339(decided.occurred_at))?,
            self.content_type.bind(py),
        ];
        let headers = PyList::new(py, headers)?;
        let event_id = PyString::from_bytes(py, &decided.event_id)?;
        let (body, digest) = (PyBytes::new(py, &decided.body), PyBytes::new(py, &decided.digest));
        (event_id, &decided.app_type, key, headers, body, digest, decided.signer).into_pyobject(py)
    }
}

fn header<'py>(name: &Bound<'py, PyString>, value: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    (name, PyBytes::new(name.py(), value)).into_pyobject(name.py())
}

type PlainRequest<'py> = (&'py str, Bound<'py, PyDict>, Bound<'py, PyBytes>);

#[pyfunction]
#[pyo3(signature = (data, /))]
pub fn read_request<'py>(py: Python<'py>, data: &'py [u8]) -> PyResult<Option<PlainRequest<'py>>> {
    let Some(plain::PlainRequest { path, headers, body }) = plain::read_request(data) else { return Ok(None) };
    Ok(Some((path, headers.into_py_dict(py)?, PyBytes::new(py, body))))
}
