//! MessagePack as msgspec writes it: each value in its shortest form. See `streams/fold/stored_instance.py`.

use crate::avro::{Read, Unreadable};

/// Reads values from the front; texts are borrowed.
pub struct Unpacker<'a> {
    rest: &'a [u8],
}

impl<'a> Unpacker<'a> {
    pub fn new(packed: &'a [u8]) -> Self {
        Self { rest: packed }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn bytes(&mut self, length: usize) -> Read<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Unreadable)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.bytes(1)?[0])
    }

    /// An unsigned number of this many bytes, the highest first.
    fn unsigned(&mut self, bytes: usize) -> Read<u64> {
        Ok(self.bytes(bytes)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn length(&mut self, bytes: usize) -> Read<usize> {
        usize::try_from(self.unsigned(bytes)?).map_err(|_| Unreadable)
    }

    pub fn integer(&mut self) -> Read<i64> {
        let kind = self.byte()?;
        match kind {
            0x00..=0x7f => Ok(i64::from(kind)),
            0xe0..=0xff => Ok(i64::from(kind.cast_signed())),
            0xcc..=0xcf => {
                let value = self.unsigned(1 << (kind - 0xcc))?;
                i64::try_from(value).map_err(|_| Unreadable)
            }
            0xd0..=0xd3 => {
                let bytes = 1 << (kind - 0xd0);
                let unused = 64 - 8 * bytes as u32;
                Ok((self.unsigned(bytes)? << unused).cast_signed() >> unused)
            }
            _ => Err(Unreadable),
        }
    }

    pub fn text(&mut self) -> Read<&'a str> {
        let kind = self.byte()?;
        let length = match kind {
            0xa0..=0xbf => usize::from(kind & 0x1f),
            0xd9..=0xdb => self.length(1 << (kind - 0xd9))?,
            _ => return Err(Unreadable),
        };
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Unreadable)
    }

    /// The number of items of the array that follows.
    pub fn array(&mut self) -> Read<usize> {
        let kind = self.byte()?;
        match kind {
            0x90..=0x9f => Ok(usize::from(kind & 0x0f)),
            0xdc | 0xdd => self.length(2 << (kind - 0xdc)),
            _ => Err(Unreadable),
        }
    }

    /// A struct is an array of exactly this many items.
    pub fn fields(&mut self, count: usize) -> Read<()> {
        if self.array()? == count { Ok(()) } else { Err(Unreadable) }
    }

    pub fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.rest.first() == Some(&NIL) {
            self.byte()?;
            return Ok(None);
        }
        value(self).map(Some)
    }

    pub fn boolean(&mut self) -> Read<bool> {
        match self.byte()? {
            FALSE => Ok(false),
            TRUE => Ok(true),
            _ => Err(Unreadable),
        }
    }

    pub fn texts(&mut self) -> Read<Vec<&'a str>> {
        let mut texts = Vec::new();
        for _ in 0..self.array()? {
            texts.push(self.text()?);
        }
        Ok(texts)
    }
}

const NIL: u8 = 0xc0;
const FALSE: u8 = 0xc2;
const TRUE: u8 = 0xc3;

/// Appends values.
pub trait Packer: AsMut<Vec<u8>> {
    fn pack_boolean(&mut self, value: bool) {
        self.as_mut().push(if value { TRUE } else { FALSE });
    }

    fn pack_integer(&mut self, value: i64) {
        let bytes = value.to_be_bytes();
        let (kind, length) = match value {
            -32..=0x7f => return self.as_mut().push(bytes[7]),
            0x80..=0xff => (0xcc, 1),
            0x100..=0xffff => (0xcd, 2),
            0x1_0000..=0xffff_ffff => (0xce, 4),
            0x1_0000_0000.. => (0xcf, 8),
            -0x80..-32 => (0xd0, 1),
            -0x8000..-0x80 => (0xd1, 2),
            -0x8000_0000..-0x8000 => (0xd2, 4),
            ..-0x8000_0000 => (0xd3, 8),
        };
        self.as_mut().push(kind);
        self.as_mut().extend_from_slice(&bytes[8 - length..]);
    }

    fn pack_text(&mut self, value: &str) {
        pack_length(self.as_mut(), value.len(), (0xa0, 32), &[(0xd9, 1), (0xda, 2), (0xdb, 4)]);
        self.as_mut().extend_from_slice(value.as_bytes());
    }

    fn pack_array(&mut self, items: usize) {
        pack_length(self.as_mut(), items, (0x90, 16), &[(0xdc, 2), (0xdd, 4)]);
    }

    fn pack_optional<T>(&mut self, value: Option<T>, pack: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.as_mut().push(NIL),
            Some(value) => pack(self, value),
        }
    }

    fn pack_texts(&mut self, values: &[&str]) {
        self.pack_array(values.len());
        for value in values {
            self.pack_text(value);
        }
    }
}

impl Packer for Vec<u8> {}

/// A length in its shortest form: within the first byte, or in more bytes after a byte of their kind.
fn pack_length(out: &mut Vec<u8>, length: usize, (short, below): (u8, usize), kinds: &[(u8, usize)]) {
    let bytes = (length as u64).to_be_bytes();
    if length < below {
        return out.push(short | bytes[7]);
    }
    for &(kind, size) in kinds {
        if size == 4 || length >> (8 * size) == 0 {
            out.push(kind);
            return out.extend_from_slice(&bytes[8 - size..]);
        }
    }
}
