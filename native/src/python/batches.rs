//! Records and batches for Python.

use std::ops::Range;

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyByteArray, PyBytes, PyList, PyString, PyTuple};

use crate::batches::{self, Batch, EncodedRecords, Encoder, Header};

/// Key, value and headers.
type RecordParts = (Option<PyBackedBytes>, Option<PyBackedBytes>, Vec<(PyBackedStr, Option<PyBackedBytes>)>);

#[pyclass(frozen, sequence, name = "EncodedRecords")]
pub struct Records(pub EncodedRecords);

#[pymethods]
impl Records {
    #[new]
    fn new(records: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut encoder = Encoder::default();
        for each in records.try_iter()? {
            let (key, value, headers): RecordParts = each?.extract()?;
            let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
            encoder.push(key.as_deref(), value.as_deref(), &headers);
        }
        Ok(Self(encoder.finish()))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, at: isize) -> PyResult<Bound<'py, PyTuple>> {
        let from_start = if at < 0 { at + self.0.len().cast_signed() } else { at };
        let found = usize::try_from(from_start).ok().and_then(|at| self.0.get(at));
        let record = found.ok_or_else(|| PyIndexError::new_err("record index out of range"))?;
        let bytes = |bytes: Option<&[u8]>| bytes.map(|bytes| PyBytes::new(py, bytes));
        let headers = record.headers.iter().map(|&(name, value)| (name, bytes(value)));
        (bytes(record.key), bytes(record.value), PyList::new(py, headers)?).into_pyobject(py)
    }

    #[getter]
    fn value_bytes(&self) -> usize {
        self.0.value_bytes()
    }

    fn split(&self, partitions: u32) -> PyResult<Vec<(u32, Self)>> {
        if partitions == 0 {
            return Err(PyValueError::new_err("partitions must be positive"));
        }
        Ok(self.0.split(partitions).into_iter().map(|(partition, records)| (partition, Self(records))).collect())
    }
}

/// A fetched record, with the attributes of aiokafka's `ConsumerRecord`.
#[pyclass(frozen)]
pub struct FetchedRecord {
    #[pyo3(get)]
    topic: Py<PyString>,
    #[pyo3(get)]
    partition: i32,
    #[pyo3(get)]
    pub offset: i64,
    #[pyo3(get)]
    timestamp: i64,
    #[pyo3(get)]
    timestamp_type: u8,
    #[pyo3(get)]
    pub key: Option<Py<PyBytes>>,
    #[pyo3(get)]
    pub value: Option<Py<PyBytes>>,
    /// The fetched bytes, which the record is part of.
    bytes: Py<PyBytes>,
    headers: Range<usize>,
}

#[pymethods]
impl FetchedRecord {
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let found = batches::headers(&self.bytes.as_bytes(py)[self.headers.clone()]);
        PyTuple::new(py, found.iter().map(|(name, value)| (&**name, value.map(|value| PyBytes::new(py, value)))))
    }

    #[getter]
    fn serialized_key_size(&self, py: Python<'_>) -> isize {
        size(py, self.key.as_ref())
    }

    #[getter]
    fn serialized_value_size(&self, py: Python<'_>) -> isize {
        size(py, self.value.as_ref())
    }

    #[getter]
    #[allow(clippy::unused_self)] // a property
    fn checksum(&self) -> Option<u32> {
        None
    }
}

fn size(py: Python<'_>, bytes: Option<&Py<PyBytes>>) -> isize {
    bytes.map_or(-1, |bytes| bytes.as_bytes(py).len().cast_signed())
}

#[pyfunction]
pub fn read_batch<'py>(
    bytes: &Bound<'py, PyBytes>,
    begin: usize,
    end: usize,
    topic: &Bound<'py, PyString>,
    partition: i32,
) -> PyResult<Option<Bound<'py, PyList>>> {
    let py = bytes.py();
    let Ok((found, is_log_time)) = batches::read_batch(bytes.as_bytes(), begin..end) else { return Ok(None) };
    let copied = |part: Option<&[u8]>| part.map(|part| PyBytes::new(py, part).unbind());
    let records = found.into_iter().map(|each| FetchedRecord {
        topic: topic.clone().unbind(),
        partition,
        offset: each.offset,
        timestamp: each.timestamp,
        timestamp_type: is_log_time.into(),
        key: copied(each.key),
        value: copied(each.value),
        bytes: bytes.clone().unbind(),
        headers: each.headers,
    });
    let records = records.map(|each| Py::new(py, each)).collect::<PyResult<Vec<_>>>()?;
    PyList::new(py, records).map(Some)
}

#[pyclass]
pub struct BatchBuilder {
    batch: Batch,
    codec: u8,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
}

#[pymethods]
impl BatchBuilder {
    #[new]
    fn new(codec: u8, producer_id: i64, epoch: i16, sequence: i32, max_bytes: usize) -> Self {
        Self { batch: Batch::new(max_bytes), codec, producer_id, epoch, sequence }
    }

    fn extend(&mut self, records: &Records, begin: usize, now_ms: i64) -> usize {
        self.batch.extend(&records.0, begin, now_ms)
    }

    fn build<'py>(&mut self, py: Python<'py>, pack: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyByteArray>> {
        if let Some(pack) = pack {
            let packed = pack.call1((PyBytes::new(py, self.batch.records()),))?.cast_into::<PyBytes>()?;
            self.batch.replace(packed.as_bytes());
        }
        let Self { codec, producer_id, epoch, sequence, .. } = *self;
        Ok(PyByteArray::new(py, self.batch.finish(codec, producer_id, epoch, sequence)))
    }
}
