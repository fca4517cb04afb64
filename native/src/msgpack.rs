//! MessagePack as msgspec writes it: each value in its shortest form. See `streams/fold/stored_instance.py`.

use rmp::decode::{read_array_len, read_bool, read_int, read_str_from_slice};
use rmp::encode::{write_array_len, write_bool, write_nil, write_sint, write_str};

use crate::avro::{Read, Unreadable};

const NIL: u8 = 0xc0;

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

    pub fn integer(&mut self) -> Read<i64> {
        read_int(&mut self.rest).map_err(|_| Unreadable)
    }

    pub fn boolean(&mut self) -> Read<bool> {
        read_bool(&mut self.rest).map_err(|_| Unreadable)
    }

    pub fn text(&mut self) -> Read<&'a str> {
        let (text, rest) = read_str_from_slice(self.rest).map_err(|_| Unreadable)?;
        self.rest = rest;
        Ok(text)
    }

    /// The number of items of the array that follows.
    pub fn array(&mut self) -> Read<usize> {
        read_array_len(&mut self.rest).map_err(|_| Unreadable).map(|items| items as usize)
    }

    /// A struct is an array of exactly this many items.
    pub fn fields(&mut self, count: usize) -> Read<()> {
        if self.array()? == count { Ok(()) } else { Err(Unreadable) }
    }

    pub fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if let Some((&NIL, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(None);
        }
        value(self).map(Some)
    }

    pub fn texts(&mut self) -> Read<Vec<&'a str>> {
        let mut texts = Vec::new();
        for _ in 0..self.array()? {
            texts.push(self.text()?);
        }
        Ok(texts)
    }
}

/// Appends values; a vector accepts all bytes, so nothing here can fail.
pub trait Packer: AsMut<Vec<u8>> {
    fn pack_boolean(&mut self, value: bool) {
        let _ = write_bool(self.as_mut(), value);
    }

    fn pack_integer(&mut self, value: i64) {
        let _ = write_sint(self.as_mut(), value);
    }

    fn pack_text(&mut self, value: &str) {
        let _ = write_str(self.as_mut(), value);
    }

    fn pack_array(&mut self, items: usize) {
        let _ = write_array_len(self.as_mut(), items as u32);
    }

    fn pack_optional<T>(&mut self, value: Option<T>, pack: impl FnOnce(&mut Self, T)) {
        match value {
            None => drop(write_nil(self.as_mut())),
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
