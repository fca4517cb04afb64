//! Records on their way to Kafka, as it stores them (format 2). Mirrors `streams/engine/producing/record_batches.py`.

pub mod fetched;
mod numbers;
#[cfg(feature = "python")]
pub mod python;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crc32c::crc32c;

use numbers::{read_bytes, read_number, size_of_number, write_bytes, write_number};

/// A name and a value.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Records without what their place in a batch decides. Parts of them share their bytes.
#[derive(Clone, Default)]
pub struct EncodedRecords {
    bytes: Arc<Vec<u8>>,
    places: Vec<Place>,
}

/// Of one record.
#[derive(Clone)]
struct Place {
    /// Of its key; its partition comes of it.
    hash: u32,
    /// Key, value and headers.
    body: Range<usize>,
    value_bytes: usize,
}

/// Collects what `EncodedRecords` are made of.
#[derive(Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

impl Encoder {
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        let bytes = &mut self.bytes;
        let begin = bytes.len();
        write_bytes(bytes, key);
        write_bytes(bytes, value);
        write_number(bytes, headers.len() as i64);
        for &(name, value) in headers {
            write_bytes(bytes, Some(name.as_bytes()));
            write_bytes(bytes, value);
        }
        // One without a key goes anywhere.
        let hash = key.map_or_else(|| RandomState::new().build_hasher().finish() as u32, murmur2);
        self.places.push(Place { hash, body: begin..bytes.len(), value_bytes: value.map_or(0, <[u8]>::len) });
    }

    pub fn done(self) -> EncodedRecords {
        EncodedRecords { bytes: Arc::new(self.bytes), places: self.places }
    }
}

/// A record as it was given.
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<Header<'a>>,
}

impl EncodedRecords {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn get(&self, at: usize) -> Option<Record<'_>> {
        let mut body = self.body(self.places.get(at)?);
        let (key, value) = (read_bytes(&mut body), read_bytes(&mut body));
        let headers = (0..read_number(&mut body)).map(|_| {
            let name = str::from_utf8(read_bytes(&mut body).unwrap_or_default()).expect("written from a text");
            (name, read_bytes(&mut body))
        });
        Some(Record { key, value, headers: headers.collect() })
    }

    pub fn value_bytes(&self) -> usize {
        self.places.iter().map(|each| each.value_bytes).sum()
    }

    /// Those of each partition, by their keys, in their order.
    pub fn split(&self, partitions: u32) -> Vec<(u32, Self)> {
        let mut found: Vec<(u32, Self)> = Vec::new();
        let mut place_of: Vec<Option<usize>> = vec![None; partitions as usize];
        for each in &self.places {
            let partition = (each.hash & 0x7fff_ffff) % partitions;
            let place = *place_of[partition as usize].get_or_insert_with(|| {
                found.push((partition, Self { bytes: Arc::clone(&self.bytes), places: Vec::new() }));
                found.len() - 1
            });
            found[place].1.places.push(each.clone());
        }
        found
    }

    fn body(&self, place: &Place) -> &[u8] {
        &self.bytes[place.body.clone()]
    }
}

/// What stands in front of a batch's records.
const HEADER: usize = 61;
/// From where on its length counts.
const BEHIND_LENGTH: usize = 12;
/// From where on its checksum counts.
const BEHIND_CHECKSUM: usize = 21;

/// A batch of one partition that is being filled.
pub struct Batch {
    bytes: Vec<u8>,
    most_bytes: usize,
    count: i32,
    first_ms: i64,
    last_ms: i64,
}

impl Batch {
    /// All of it has fewer than `most_bytes`, or one record.
    pub fn new(most_bytes: usize) -> Self {
        Self { bytes: vec![0; HEADER], most_bytes, count: 0, first_ms: 0, last_ms: 0 }
    }

    /// Put records behind those that are here, from one of them on, until it is full. How many were taken?
    pub fn extend(&mut self, records: &EncodedRecords, begin: usize, now_ms: i64) -> usize {
        let places = records.places.get(begin..).unwrap_or_default();
        places.iter().take_while(|place| self.push(records.body(place), now_ms)).count()
    }

    fn push(&mut self, body: &[u8], now_ms: i64) -> bool {
        if self.count == 0 {
            (self.first_ms, self.last_ms) = (now_ms, now_ms);
        }
        let (after_ms, at) = (now_ms - self.first_ms, i64::from(self.count));
        let length = 1 + size_of_number(after_ms) + size_of_number(at) + body.len();
        let size = size_of_number(length as i64) + length;
        if self.count > 0 && self.bytes.len() + size >= self.most_bytes {
            return false;
        }
        write_number(&mut self.bytes, length as i64);
        self.bytes.push(0); // attributes
        write_number(&mut self.bytes, after_ms);
        write_number(&mut self.bytes, at);
        self.bytes.extend_from_slice(body);
        self.count += 1;
        self.last_ms = self.last_ms.max(now_ms);
        true
    }

    pub fn records(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    /// Have these bytes in the place of the records.
    pub fn replace(&mut self, packed: &[u8]) {
        self.bytes.truncate(HEADER);
        self.bytes.extend_from_slice(packed);
    }

    /// The whole batch, as part of a transaction.
    pub fn finish(&mut self, codec: u8, producer_id: i64, epoch: i16, sequence: i32) -> &[u8] {
        const MAGIC: u8 = 2;
        const IS_TRANSACTIONAL: u8 = 1 << 4;
        let length = (self.bytes.len() - BEHIND_LENGTH) as i32;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&0_i64.to_be_bytes()); // the broker's: the offset
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
        self.bytes[..HEADER].copy_from_slice(&header);
        let checksum = crc32c(&self.bytes[BEHIND_CHECKSUM..]);
        self.bytes[BEHIND_CHECKSUM - 4..BEHIND_CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
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
