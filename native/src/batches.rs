//! Kafka's record batches of format 2: records that are sent, encoded once, and the records of a fetched batch.
//!
//! Mirrors `streams/engine/transaction_requests.py`.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crc32c::crc32c;

use crate::avro::{Read, Reader, Unreadable, Writer, size_of_long};

const HEADER_BYTES: usize = 61;
/// The batch's length counts the bytes from here on.
const AFTER_LENGTH: usize = 12;
/// The checksum covers the bytes from here on.
const AFTER_CHECKSUM: usize = 21;
const MAGIC: u8 = 2;

pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Records without the parts that depend on their place in a batch. Clones and splits share the bytes.
#[derive(Clone, Default)]
pub struct EncodedRecords {
    bytes: Arc<Vec<u8>>,
    entries: Vec<EncodedRecord>,
}

#[derive(Clone)]
struct EncodedRecord {
    /// Of its key: it decides the partition.
    hash: u32,
    /// Where its key, value and headers are.
    body: Range<usize>,
    value_bytes: usize,
}

/// Collects records for `EncodedRecords`.
#[derive(Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    entries: Vec<EncodedRecord>,
}

impl Encoder {
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        let bytes = &mut self.bytes;
        let begin = bytes.len();
        bytes.nullable_bytes(key);
        bytes.nullable_bytes(value);
        bytes.count(headers.len());
        for &(name, value) in headers {
            bytes.nullable_bytes(Some(name.as_bytes()));
            bytes.nullable_bytes(value);
        }
        // A record without a key may go to any partition.
        let hash = key.map_or_else(|| RandomState::new().build_hasher().finish() as u32, murmur2);
        let value_bytes = value.map_or(0, <[u8]>::len);
        self.entries.push(EncodedRecord { hash, body: begin..self.bytes.len(), value_bytes });
    }

    pub fn finish(self) -> EncodedRecords {
        EncodedRecords { bytes: Arc::new(self.bytes), entries: self.entries }
    }
}

pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<Header<'a>>,
}

impl EncodedRecords {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, at: usize) -> Option<Record<'_>> {
        let mut body = Reader::new(self.body(self.entries.get(at)?));
        let (key, value) = (body.nullable_bytes().ok()?, body.nullable_bytes().ok()?);
        let mut headers = Vec::new();
        let text = |name| str::from_utf8(name).expect("encoded from a text");
        read_headers(&mut body, |name, value| headers.push((text(name), value))).ok()?;
        Some(Record { key, value, headers })
    }

    pub fn value_bytes(&self) -> usize {
        self.entries.iter().map(|each| each.value_bytes).sum()
    }

    /// The records of each partition, by their keys, in their order.
    pub fn split(&self, partitions: u32) -> Vec<(u32, Self)> {
        let mut found: Vec<(u32, Self)> = Vec::new();
        let mut place_of: Vec<Option<usize>> = vec![None; partitions as usize];
        for each in &self.entries {
            let partition = (each.hash & 0x7fff_ffff) % partitions;
            let place = *place_of[partition as usize].get_or_insert_with(|| {
                found.push((partition, Self { bytes: Arc::clone(&self.bytes), entries: Vec::new() }));
                found.len() - 1
            });
            found[place].1.entries.push(each.clone());
        }
        found
    }

    fn body(&self, entry: &EncodedRecord) -> &[u8] {
        &self.bytes[entry.body.clone()]
    }
}

/// A batch of one partition that is being filled.
pub struct Batch {
    bytes: Vec<u8>,
    max_bytes: usize,
    count: i32,
    first_ms: i64,
    last_ms: i64,
}

impl Batch {
    /// The batch stays below `max_bytes`, unless its first record is larger.
    pub fn new(max_bytes: usize) -> Self {
        Self { bytes: vec![0; HEADER_BYTES], max_bytes, count: 0, first_ms: 0, last_ms: 0 }
    }

    /// Append records from `begin` on until the batch is full, and return how many were appended.
    pub fn extend(&mut self, records: &EncodedRecords, begin: usize, now_ms: i64) -> usize {
        let entries = records.entries.get(begin..).unwrap_or_default();
        entries.iter().take_while(|entry| self.push(records.body(entry), now_ms)).count()
    }

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

    pub fn records(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Replace the records by their compressed form.
    pub fn replace(&mut self, packed: &[u8]) {
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.extend_from_slice(packed);
    }

    /// The whole batch, as part of a transaction.
    pub fn finish(&mut self, codec: u8, producer_id: i64, epoch: i16, sequence: i32) -> &[u8] {
        const IS_TRANSACTIONAL: u8 = 1 << 4;
        let length = (self.bytes.len() - AFTER_LENGTH) as i32;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&0_i64.to_be_bytes()); // the offset, which the broker sets
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&(-1_i32).to_be_bytes()); // the leader's epoch
        header.push(MAGIC);
        header.extend_from_slice(&0_u32.to_be_bytes()); // the checksum
        header.extend_from_slice(&[0, codec | IS_TRANSACTIONAL]);
        header.extend_from_slice(&(self.count - 1).max(0).to_be_bytes());
        header.extend_from_slice(&self.first_ms.to_be_bytes());
        header.extend_from_slice(&self.last_ms.to_be_bytes());
        header.extend_from_slice(&producer_id.to_be_bytes());
        header.extend_from_slice(&epoch.to_be_bytes());
        header.extend_from_slice(&sequence.to_be_bytes());
        header.extend_from_slice(&self.count.to_be_bytes());
        self.bytes[..HEADER_BYTES].copy_from_slice(&header);
        let checksum = crc32c(&self.bytes[AFTER_CHECKSUM..]);
        self.bytes[AFTER_CHECKSUM - 4..AFTER_CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        &self.bytes
    }
}

/// As the Java client hashes keys.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (word ^ word >> 24).wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

/// One record of a fetched batch.
pub struct Fetched<'a> {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Where its headers are in the fetched bytes, from their number on.
    pub headers: Range<usize>,
}

/// All records of a batch, and whether their time is the time of the broker's log.
///
/// Batches that are compressed, older, damaged or a transaction's marker are unreadable here: aiokafka reads them.
pub fn read_batch(bytes: &[u8], batch: Range<usize>) -> Read<(Vec<Fetched<'_>>, bool)> {
    const CODEC_OR_CONTROL: i16 = 0x27;
    const IS_LOG_TIME: i16 = 0x08;
    let header = bytes.get(batch.clone()).ok_or(Unreadable)?;
    let attributes = i16::from_be_bytes(part(header, 21)?);
    if header.get(16) != Some(&MAGIC) || attributes & CODEC_OR_CONTROL != 0 {
        return Err(Unreadable);
    }
    if u32::from_be_bytes(part(header, 17)?) != crc32c(header.get(AFTER_CHECKSUM..).ok_or(Unreadable)?) {
        return Err(Unreadable);
    }
    let (base_offset, first_ms) = (i64::from_be_bytes(part(header, 0)?), i64::from_be_bytes(part(header, 27)?));
    let (last_ms, count) = (i64::from_be_bytes(part(header, 35)?), i32::from_be_bytes(part(header, 57)?));
    let is_log_time = attributes & IS_LOG_TIME != 0;
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
        found.push(Fetched { offset, timestamp, key, value, headers });
    }
    if records.is_at_end() { Ok((found, is_log_time)) } else { Err(Unreadable) }
}

/// Names and values of a record that `read_batch` returned.
///
/// U+FFFD replaces bytes of a name that are not UTF-8, so that no name keeps an event from being folded.
pub fn headers(bytes: &[u8]) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
    let mut found = Vec::new();
    let _ = read_headers(&mut Reader::new(bytes), |name, value| found.push((String::from_utf8_lossy(name), value)));
    found
}

fn read_headers<'a>(record: &mut Reader<'a>, mut each: impl FnMut(&'a [u8], Option<&'a [u8]>)) -> Read<()> {
    let count = u64::try_from(record.long()?).map_err(|_| Unreadable)?;
    for _ in 0..count {
        let name = record.nullable_bytes()?.ok_or(Unreadable)?;
        each(name, record.nullable_bytes()?);
    }
    Ok(())
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Read<[u8; N]> {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).ok_or(Unreadable)
}
