//! Records as Kafka's batches of format 2 have them, without the parts that depend on their place in a batch.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crate::avro::{Read, Reader, Unreadable, Writer};

pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Clones and splits share the bytes.
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

    /// Key, value and headers of each record from `begin` on, as a batch has them.
    pub fn bodies(&self, begin: usize) -> impl Iterator<Item = &[u8]> {
        self.entries.get(begin..).unwrap_or_default().iter().map(|each| self.body(each))
    }

    fn body(&self, entry: &EncodedRecord) -> &[u8] {
        &self.bytes[entry.body.clone()]
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

/// Names and values of a record that `read_batch` returned.
///
/// U+FFFD replaces bytes of a name that are not UTF-8, so that no name keeps an event from being folded.
pub fn headers(bytes: &[u8]) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
    let mut found = Vec::new();
    let _ = read_headers(&mut Reader::new(bytes), |name, value| found.push((String::from_utf8_lossy(name), value)));
    found
}

pub fn read_headers<'a>(record: &mut Reader<'a>, mut each: impl FnMut(&'a [u8], Option<&'a [u8]>)) -> Read<()> {
    let count = u64::try_from(record.long()?).map_err(|_| Unreadable)?;
    for _ in 0..count {
        let name = record.nullable_bytes()?.ok_or(Unreadable)?;
        each(name, record.nullable_bytes()?);
    }
    Ok(())
}
