//! JSON objects and lists, with values that are borrowed from the text.
//!
//! Mirrors `edge/parsing/strict_json.py`, and never accepts more than it does. None means: Python decides.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

const MAX_MEMBERS: usize = 256;
const MAX_DEPTH: usize = 32;

/// A value as far as it was read: lists and objects are checked JSON text.
#[derive(Debug)]
pub enum Value<'a> {
    Null,
    Bool(&'a str),
    Text(Cow<'a, str>),
    /// As it is written.
    Number(&'a str),
    List(&'a str),
    Object(&'a str),
}

pub type Members<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// The members of the object that the text is; their names are distinct.
pub fn members(text: &str) -> Option<Members<'_>> {
    raw_members(text)?.into_iter().map(|(name, value)| Some((name, read(value)?))).collect()
}

/// The values of a list.
pub fn items(list: &str) -> Option<Vec<Value<'_>>> {
    raw_items(list)?.into_iter().map(read).collect()
}

/// A value without blanks, as Python's `json` writes it. None where an object has a name twice.
pub fn compact(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'{' => {
            let members = raw_members(json)?
                .into_iter()
                .map(|(name, value)| Some(format!("{}:{}", serde_json::to_string(&name).ok()?, compact(value.get())?)));
            Some(format!("{{{}}}", members.collect::<Option<Vec<_>>>()?.join(",")))
        }
        b'[' => {
            let items = raw_items(json)?.into_iter().map(|item| compact(item.get()));
            Some(format!("[{}]", items.collect::<Option<Vec<_>>>()?.join(",")))
        }
        b'"' => serde_json::to_string(&text(json)?).ok(),
        _ => Some(json.to_owned()),
    }
}

fn raw_members(object: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    serde_json::from_str(object).ok().map(|Object(members)| members)
}

fn raw_items(list: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(list).ok()
}

fn text(json: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str(json).ok().map(|Text(text)| text)
}

fn read(value: &RawValue) -> Option<Value<'_>> {
    let json = value.get();
    Some(match json.as_bytes().first()? {
        b'"' => Value::Text(text(json)?),
        b'{' | b'[' if is_too_deep(json) => return None,
        b'{' => Value::Object(json),
        b'[' => Value::List(json),
        b'n' => Value::Null,
        b't' | b'f' => Value::Bool(json),
        _ => Value::Number(json),
    })
}

fn is_too_deep(json: &str) -> bool {
    let (mut depth, mut in_text, mut is_escaped) = (0, false, false);
    json.bytes().any(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth -= 1,
            _ => {}
        }
        depth > MAX_DEPTH
    })
}

/// Borrowed unless it has an escape.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut found = Vec::with_capacity(16);
        while let Some((Text(name), value)) = map.next_entry()? {
            if found.len() == MAX_MEMBERS || found.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom("too many members, or one twice"));
            }
            found.push((name, value));
        }
        Ok(Object(found))
    }
}
