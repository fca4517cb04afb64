//! What Python has of the edge's decision. See `native/_native.pyi`.

use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use super::decide::{Decided, Request, Rules, decide};
use super::head::{Whole, whole};
use super::signature::Signer;
use crate::cloudevents::{Header, header, rfc3339, source};

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
        decide(&self.rules, request).map(|decided| self.told(py, &decided)).transpose()
    }

    #[pyo3(signature = (bytes, received_at, /))]
    fn decide_whole<'py>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
        received_at: i64,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(whole) = whole(bytes) else { return Ok(None) };
        let Whole { wire_action, content_type, body, .. } = whole;
        let request = Request { wire_action, query: b"", content_type, body, received_at };
        let Some(decided) = decide(&self.rules, request) else { return Ok(None) };
        let told = self.told(py, &decided)?;
        (wire_action, whole.forwarded_for, whole.traceparent, told).into_pyobject(py).map(Some)
    }
}

impl Edge {
    fn told<'py>(&self, py: Python<'py>, decided: &Decided) -> PyResult<Bound<'py, PyTuple>> {
        let key = PyBytes::new(py, decided.instance_id.as_bytes());
        let headers = [
            self.specversion.bind(py),
            &header(intern!(py, "ce_id"), &decided.event_id)?,
            self.event_types[decided.action].bind(py),
            &header(intern!(py, "ce_source"), &source(["yida", &decided.corp_id, &decided.app_type]))?,
            &PyTuple::new(py, [intern!(py, "ce_subject").as_any(), key.as_any()])?,
            &header(intern!(py, "ce_time"), &rfc3339(decided.occurred_at))?,
            self.content_type.bind(py),
        ];
        let headers = PyList::new(py, headers)?;
        let event_id = PyString::from_bytes(py, &decided.event_id)?;
        PyTuple::new(
            py,
            [
                event_id.as_any(),
                PyString::new(py, &decided.app_type).as_any(),
                key.as_any(),
                headers.as_any(),
                PyBytes::new(py, &decided.body).as_any(),
                PyBytes::new(py, &decided.digest).as_any(),
                decided.signer.into_pyobject(py)?.as_any(),
            ],
        )
    }
}
