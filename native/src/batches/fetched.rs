//! The records of a batch that was fetched. What is packed, older or damaged is aiokafka's to read, or to refuse.

use std::borrow::Cow;
use std::ops::Range;

use crc32c::crc32c;

/// Where a record's parts stand among the bytes that the batch is part of.
pub struct Fetched {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Range<usize>>,
    pub value: Option<Range<usize>>,
    /// From their number on: see `headers`.
    pub headers: Range<usize>,
}

/// All of a batch, with whether their time is that of the broker's log; `None` where they are not read here.
pub fn read_batch(bytes: &[u8], batch: Range<usize>) -> Option<(Vec<Fetched>, bool)> {
    const RECORDS: usize = 61;
    const BEHIND_CHECKSUM: usize = 21;
    const CODEC_OR_CONTROL: i16 = 0x27;
    const IS_LOG_TIME: i16 = 0x08;
    let header = bytes.get(batch.clone())?;
    let attributes = i16::from_be_bytes(part(header, 21)?);
    if header.get(16) != Some(&2) || attributes & CODEC_OR_CONTROL != 0 {
        return None;
    }
    if u32::from_be_bytes(part(header, 17)?) != crc32c(header.get(BEHIND_CHECKSUM..)?) {
        return None;
    }
    let (base_offset, first_ms) = (i64::from_be_bytes(part(header, 0)?), i64::from_be_bytes(part(header, 27)?));
    let (last_ms, count) = (i64::from_be_bytes(part(header, 35)?), i32::from_be_bytes(part(header, 57)?));
    let is_log_time = attributes & IS_LOG_TIME != 0;
    let mut cursor = Cursor { bytes, at: batch.start + RECORDS, end: batch.end };
    let mut found = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(cursor.number()?).ok()?;
        let mut record = cursor.within(length)?;
        record.number()?; // attributes: there are none
        let after_ms = record.number()?;
        let timestamp = if is_log_time { last_ms } else { first_ms.checked_add(after_ms)? };
        let offset = base_offset.checked_add(record.number()?)?;
        let (key, value) = (record.bytes()?, record.bytes()?);
        let headers = record.at..record.end;
        record.headers(|_, _| ())?;
        // -1 is no time.
        if record.at != record.end || timestamp == -1 {
            return None;
        }
        found.push(Fetched { offset, timestamp, key, value, headers });
    }
    (cursor.at == cursor.end).then_some((found, is_log_time))
}

/// Names and values, of what `read_batch` has read. In a name that is no UTF-8 a mark is in place of what is none: no name
/// keeps an event from being folded.
pub fn headers(bytes: &[u8], at: Range<usize>) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
    let mut found = Vec::new();
    let take = |name, value| found.push((String::from_utf8_lossy(name), value));
    Cursor { bytes, at: at.start, end: at.end }.headers(take);
    found
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// The next bytes, which are left behind.
    fn within(&mut self, length: usize) -> Option<Self> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.end)?;
        let found = Self { bytes: self.bytes, at: self.at, end };
        self.at = end;
        Some(found)
    }

    fn number(&mut self) -> Option<i64> {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let byte = *self.bytes.get(self.at).filter(|_| self.at < self.end && shift < 64)?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
            shift += 7;
        }
    }

    fn headers(&mut self, mut take: impl FnMut(&'a [u8], Option<&'a [u8]>)) -> Option<()> {
        let count = u64::try_from(self.number()?).ok()?;
        for _ in 0..count {
            let (name, value) = (self.bytes()??, self.bytes()?);
            take(&self.bytes[name], value.map(|value| &self.bytes[value]));
        }
        Some(())
    }

    #[allow(clippy::option_option)] // damaged, or none
    fn bytes(&mut self) -> Option<Option<Range<usize>>> {
        let Ok(length) = usize::try_from(self.number()?) else {
            return Some(None);
        };
        let found = self.within(length)?;
        Some(Some(found.at..found.end))
    }
}
