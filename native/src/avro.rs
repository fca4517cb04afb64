//! Avro's binary encoding, as far as our schemas use it; Kafka's records have the same numbers.
//!
//! Mirrors `schemas/compiled_avro.py`, and never accepts more than it does: bytes that cannot be read here are given to
//! Python, which decides. No length or count in the bytes decides how much memory is allocated.

/// The bytes cannot be read here: another schema wrote them, or they are damaged.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

pub type Read<T> = Result<T, Unreadable>;

/// Reads values from the front of a body; texts are borrowed from it.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn byte(&mut self) -> Read<u8> {
        let (&first, rest) = self.rest.split_first().ok_or(Unreadable)?;
        self.rest = rest;
        Ok(first)
    }

    #[inline]
    pub fn bytes(&mut self, length: usize) -> Read<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Unreadable)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// An unsigned number: seven bits a byte, the lowest first.
    pub fn unsigned(&mut self) -> Read<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Unreadable);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    #[inline]
    pub fn long(&mut self) -> Read<i64> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    #[inline]
    pub fn text(&mut self) -> Read<&'a str> {
        let length = usize::try_from(self.long()?).map_err(|_| Unreadable)?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Unreadable)
    }

    /// Kafka's bytes, which are null where their length is negative.
    pub fn nullable_bytes(&mut self) -> Read<Option<&'a [u8]>> {
        usize::try_from(self.long()?).ok().map(|length| self.bytes(length)).transpose()
    }

    /// A union of null and another type.
    pub fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            2 => value(self).map(Some),
            _ => Err(Unreadable),
        }
    }

    pub fn optional_text(&mut self) -> Read<Option<&'a str>> {
        self.optional(Self::text)
    }

    pub fn optional_long(&mut self) -> Read<Option<i64>> {
        self.optional(Self::long)
    }

    /// An enum's symbol, given all of them in the schema's order.
    pub fn symbol<T: Copy>(&mut self, symbols: &[T]) -> Read<T> {
        let at = usize::try_from(self.long()?).map_err(|_| Unreadable)?;
        symbols.get(at).copied().ok_or(Unreadable)
    }

    /// An array in any number of blocks. After a negative count comes the size of the block in bytes.
    pub fn array<T>(&mut self, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut items = Vec::new();
        while *self.rest.first().ok_or(Unreadable)? != 0 {
            let count = self.long()?;
            if count < 0 {
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                items.push(item(self)?);
            }
        }
        self.byte()?;
        Ok(items)
    }

    pub fn texts(&mut self) -> Read<Vec<&'a str>> {
        self.array(Self::text)
    }
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// How many bytes `Writer::long` writes.
pub const fn size_of_long(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends values to a body.
pub trait Writer: AsMut<Vec<u8>> {
    fn unsigned(&mut self, mut rest: u64) {
        while rest >= 0x80 {
            self.as_mut().push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.as_mut().push(rest as u8);
    }

    fn long(&mut self, value: i64) {
        self.unsigned(zigzag(value));
    }

    fn count(&mut self, items: usize) {
        // No slice has more than i64::MAX items.
        self.long(items.cast_signed() as i64);
    }

    fn text(&mut self, value: &str) {
        self.count(value.len());
        self.as_mut().extend_from_slice(value.as_bytes());
    }

    /// Kafka's bytes: see `Reader::nullable_bytes`.
    fn nullable_bytes(&mut self, bytes: Option<&[u8]>) {
        self.long(bytes.map_or(-1, |bytes| bytes.len().cast_signed() as i64));
        self.as_mut().extend_from_slice(bytes.unwrap_or_default());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.as_mut().push(0),
            Some(value) => {
                self.as_mut().push(2);
                write(self, value);
            }
        }
    }

    fn optional_text(&mut self, value: Option<&str>) {
        self.optional(value, Self::text);
    }

    fn optional_long(&mut self, value: Option<i64>) {
        self.optional(value, Self::long);
    }

    fn array<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        if !items.is_empty() {
            self.count(items.len());
            for each in items {
                item(self, each);
            }
        }
        self.as_mut().push(0);
    }
}

impl Writer for Vec<u8> {}
