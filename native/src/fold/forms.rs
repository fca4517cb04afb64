//! Which of a form's values stand in its instance's state. Mirrors `streams/fold/instance.py`.

use std::collections::HashSet;

use crate::avro::{Read, Reader};

/// Names and values, in the order of the names.
pub type Form<'a> = Vec<(&'a str, Option<&'a str>)>;

/// The fields that are wanted.
pub struct FormFields {
    names: HashSet<String>,
    every: bool,
    bytes: usize,
}

impl FormFields {
    /// All where `every` is among the names; at most so many bytes of a form.
    pub fn new(names: HashSet<String>, every: &str, bytes: usize) -> Self {
        Self { every: names.contains(every), names, bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The values of the wanted fields, of which a later one of the same name holds; what does not fit is left out.
    pub fn of<'a>(&self, mut form: Form<'a>) -> Form<'a> {
        form.reverse();
        form.sort_by_key(|&(name, _)| name);
        form.dedup_by_key(|&mut (name, _)| name);
        let mut room = self.bytes;
        form.retain(|&(name, value)| {
            let size = name.len() + value.map_or(0, str::len);
            let fits = (self.every || self.names.contains(name)) && size <= room;
            if fits {
                room -= size;
            }
            fits
        });
        form
    }
}

/// An entry of an Avro map: maps are written as arrays of these.
pub fn read_field<'a>(reader: &mut Reader<'a>) -> Read<(&'a str, Option<&'a str>)> {
    Ok((reader.text()?, reader.optional_text()?))
}
