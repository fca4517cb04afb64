//! Avro's binary form, as far as our schemas use it. Mirrors `schemas/avro/compiled.py`.
//!
//! The reader is never more lenient than the Python one: what it does not take is shown to that one, which has the
//! last word. Nothing is allocated by what a length or a count claims.

/// The bytes were not written by the schema, or are cut short.
#[derive(Debug, PartialEq, Eq)]
pub struct Damaged;

pub type Read<T> = Result<T, Damaged>;

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

    fn byte(&mut self) -> Read<u8> {
        let (&first, rest) = self.rest.split_first().ok_or(Damaged)?;
        self.rest = rest;
        Ok(first)
    }

    /// A number without a sign: seven bits a byte, the lowest first.
    pub fn unsigned(&mut self) -> Read<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Damaged);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    pub fn long(&mut self) -> Read<i64> {
        self.unsigned().map(unfold)
    }

    pub fn text(&mut self) -> Read<&'a str> {
        let length = usize::try_from(unfold(self.unsigned()?)).map_err(|_| Damaged)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(Damaged)?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| Damaged)
    }

    /// A union of null and something else.
    pub fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            2 => value(self).map(Some),
            _ => Err(Damaged),
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
        let at = usize::try_from(self.long()?).map_err(|_| Damaged)?;
        symbols.get(at).copied().ok_or(Damaged)
    }

    /// An array, in any number of blocks; a block with a negative count has its size in bytes behind the count.
    pub fn array<T>(&mut self, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut items = Vec::new();
        while *self.rest.first().ok_or(Damaged)? != 0 {
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

fn unfold(folded: u64) -> i64 {
    (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed()
}

/// Writes values to the end of a body.
pub trait Writer: AsMut<Vec<u8>> {
    fn unsigned(&mut self, mut rest: u64) {
        while rest >= 0x80 {
            self.as_mut().push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.as_mut().push(rest as u8);
    }

    fn long(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn count(&mut self, items: usize) {
        // No slice has more items than fit into an i64.
        self.long(items.cast_signed() as i64);
    }

    fn text(&mut self, value: &str) {
        self.count(value.len());
        self.as_mut().extend_from_slice(value.as_bytes());
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
