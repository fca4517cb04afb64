//! Records for Python, and Kafka's record batches of format 2: fetched ones, and those of transactions.
//!
//! Mirrors `streams/engine/transaction_requests.py`.

use std::ops::Range;

use crc32c::crc32c;

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyByteArray, PyBytes, PyList, PyString, PyTuple};

use crate::avro::{Read, Reader, Unreadable, Writer, size_of_long};
use crate::batches::{self, EncodedRecords, Encoder, Header, read_headers};

const HEADER_BYTES: usize = 61;
/// The batch's length counts the bytes from here on.
const AFTER_LENGTH: usize = 12;
/// The checksum covers the bytes from here on.
const AFTER_CHECKSUM: usize = 21;
const MAGIC: u8 = 2;

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
    let Ok(found) = records_of(bytes, begin..end, topic, partition) else { return Ok(None) };
    let records = found.into_iter().map(|each| Py::new(bytes.py(), each)).collect::<PyResult<Vec<_>>>()?;
    PyList::new(bytes.py(), records).map(Some)
}

/// Batches that are compressed, older, damaged or a transaction's marker are unreadable here: aiokafka reads them.
fn records_of(
    fetched: &Bound<'_, PyBytes>,
    batch: Range<usize>,
    topic: &Bound<'_, PyString>,
    partition: i32,
) -> Read<Vec<FetchedRecord>> {
    const CODEC_OR_CONTROL: i16 = 0x27;
    const IS_LOG_TIME: i16 = 0x08;
    let header = fetched.as_bytes().get(batch.clone()).ok_or(Unreadable)?;
    let attributes = i16::from_be_bytes(part(header, 21)?);
    if header.get(16) != Some(&MAGIC) || attributes & CODEC_OR_CONTROL != 0 {
        return Err(Unreadable);
    }
    if u32::from_be_bytes(part(header, 17)?) != crc32c(header.get(AFTER_CHECKSUM..).ok_or(Unreadable)?) {
        return Err(Unreadable);
    }
    let (base_offset, first_ms) = (i64::from_be_bytes(part(header, 0)?), i64::from_be_bytes(part(header, 27)?));
    let (last_ms, count) = (i64::from_be_bytes(part(header, 35)?), i32::from_be_bytes(part(header, 57)?));
    // The time of the broker's log, or of the record.
    let is_log_time = attributes & IS_LOG_TIME != 0;
    let copied = |part: Option<&[u8]>| part.map(|part| PyBytes::new(fetched.py(), part).unbind());
    let mut records = Reader::new(&header[HEADER_BYTES..]);
    let mut found = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(records.long()?).map_err(|_| Unreadable)?;
        let mut record = Reader::new(records.bytes(length)?);
        let end = batch.end - records.remaining();
        record.long()?; // attributes, of which there are none
        let after_ms = record.long()?;
        let timestamp = if is_log_time { last_ms } else { first_ms.checked_add(after_ms).ok_or(Unreadable)? };
        let offset = base_offset.checked_add(record.long()?).ok_or(Unreadable)?;
        let (key, value) = (record.nullable_bytes()?, record.nullable_bytes()?);
        let headers = end - record.remaining()..end;
        read_headers(&mut record, |_, _| ())?;
        // -1 says that there is no time.
        if !record.is_at_end() || timestamp == -1 {
            return Err(Unreadable);
        }
        found.push(FetchedRecord {
            topic: topic.clone().unbind(),
            partition,
            offset,
            timestamp,
            timestamp_type: is_log_time.into(),
            key: copied(key),
            value: copied(value),
            bytes: fetched.clone().unbind(),
            headers,
        });
    }
    if records.is_at_end() { Ok(found) } else { Err(Unreadable) }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Read<[u8; N]> {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).ok_or(Unreadable)
}

/// A batch of one partition that is being filled.
#[pyclass]
pub struct BatchBuilder {
    codec: u8,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
    max_bytes: usize,
    bytes: Vec<u8>,
    count: i32,
    first_ms: i64,
    last_ms: i64,
}

#[pymethods]
impl BatchBuilder {
    #[new]
    fn new(codec: u8, producer_id: i64, epoch: i16, sequence: i32, max_bytes: usize) -> Self {
        let bytes = vec![0; HEADER_BYTES];
        Self { codec, producer_id, epoch, sequence, max_bytes, bytes, count: 0, first_ms: 0, last_ms: 0 }
    }

    fn extend(&mut self, records: &Records, begin: usize, now_ms: i64) -> usize {
        records.0.bodies(begin).take_while(|body| self.push(body, now_ms)).count()
    }

    fn build<'py>(&mut self, py: Python<'py>, pack: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyByteArray>> {
        const IS_TRANSACTIONAL: u8 = 1 << 4;
        if let Some(pack) = pack {
            let packed = pack.call1((PyBytes::new(py, &self.bytes[HEADER_BYTES..]),))?.cast_into::<PyBytes>()?;
            self.bytes.truncate(HEADER_BYTES);
            self.bytes.extend_from_slice(packed.as_bytes());
        }
        let length = (self.bytes.len() - AFTER_LENGTH) as i32;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&0_i64.to_be_bytes()); // the offset, which the broker sets
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&(-1_i32).to_be_bytes()); // the leader's epoch
        header.push(MAGIC);
        header.extend_from_slice(&0_u32.to_be_bytes()); // the checksum
        header.extend_from_slice(&[0, self.codec | IS_TRANSACTIONAL]);
        header.extend_from_slice(&(self.count - 1).max(0).to_be_bytes());
        header.extend_from_slice(&self.first_ms.to_be_bytes());
        header.extend_from_slice(&self.last_ms.to_be_bytes());
        header.extend_from_slice(&self.producer_id.to_be_bytes());
        header.extend_from_slice(&self.epoch.to_be_bytes());
        header.extend_from_slice(&self.sequence.to_be_bytes());
        header.extend_from_slice(&self.count.to_be_bytes());
        self.bytes[..HEADER_BYTES].copy_from_slice(&header);
        let checksum = crc32c(&self.bytes[AFTER_CHECKSUM..]);
        self.bytes[AFTER_CHECKSUM - 4..AFTER_CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        Ok(PyByteArray::new(py, &self.bytes))
    }
}

impl BatchBuilder {
    /// Append a record; false if the batch is full. It stays below `max_bytes`, unless its first record is larger.
    fn push(&mut self, body: &[u8], now_ms: i64) -> bool {
        if self.count == 0 {
            (self.first_ms, self.last_ms) = (now_ms, now_ms);
        }
        let (after_ms, at) = (now_ms - self.first_ms, i64::from(self.count));
        let length = 1 + size_of_long(after_ms) + size_of_long(at) + body.len();
        let size = size_of_long(length as i64) + length;
        if self.count > 0 && self.bytes.len() + size >= self.max_bytes {
            return false;
        }
        self.bytes.count(length);
        self.bytes.push(0); // attributes
        self.bytes.long(after_ms);
        self.bytes.long(at);
        self.bytes.extend_from_slice(body);
        self.count += 1;
        self.last_ms = self.last_ms.max(now_ms);
        true
    }
}
