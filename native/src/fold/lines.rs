//! Lines of a view as the JSON that is answered, from the form in which they are stored.
//!
//! Mirrors `Item` of `streams/inbox/layout.py` and `item_json` of `streams/api/json_forms.py`; texts are escaped as
//! msgspec does.

use std::ops::RangeInclusive;

use crate::avro::{Damaged, Read};
use crate::cloudevents::rfc3339;
use crate::fold::msgpack::Unpacker;

/// Fields of a line that every version has written, and those that ours writes: the same, and more behind them.
const FIRST_FIELDS: usize = 10;
const FIELDS: usize = 16;

/// What is the same for all lines of a page.
pub struct Page<'p> {
    /// In lower case, as it is answered.
    pub view: &'p str,
    /// Of lines that say none.
    pub source: &'p str,
    /// What has a text; a moment beyond counts as the last before it.
    pub moments: &'p RangeInclusive<i64>,
}

/// A line as it is stored, as far as it is answered; texts are borrowed.
struct Line<'a> {
    instance_id: &'a str,
    task_id: Option<&'a str>,
    title: Option<&'a str>,
    url: Option<&'a str>,
    app_type: &'a str,
    originator: Option<(&'a str, Option<&'a str>)>,
    status: &'a str,
    created_at: i64,
    updated_at: i64,
    process_name: Option<&'a str>,
    source: Option<&'a str>,
    outcome: Option<&'a str>,
    finished_at: Option<i64>,
    result: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn read(stored: &'a [u8]) -> Read<Self> {
        let mut fields = Unpacker::new(stored);
        let count = fields.array()?;
        if !(FIRST_FIELDS..=FIELDS).contains(&count) {
            return Err(Damaged);
        }
        let mut line = Self {
            instance_id: fields.text()?,
            task_id: fields.optional(Unpacker::text)?,
            title: fields.optional(Unpacker::text)?,
            url: fields.optional(Unpacker::text)?,
            app_type: fields.text()?,
            originator: {
                let id = fields.optional(Unpacker::text)?;
                let name = fields.optional(Unpacker::text)?;
                id.map(|id| (id, name))
            },
            status: fields.text()?,
            created_at: fields.integer()?,
            updated_at: fields.integer()?,
            process_name: None,
            source: None,
            outcome: None,
            finished_at: None,
            result: None,
        };
        for field in FIRST_FIELDS..count {
            match field {
                10 => line.process_name = fields.optional(Unpacker::text)?,
                12 => line.source = Some(fields.text()?),
                13 => line.outcome = fields.optional(Unpacker::text)?,
                14 => line.finished_at = fields.optional(Unpacker::integer)?,
                15 => line.result = fields.optional(Unpacker::text)?,
                _ => drop(fields.optional(Unpacker::text)?), // the actor: nobody is answered this
            }
        }
        if fields.is_at_end() { Ok(line) } else { Err(Damaged) }
    }
}

/// Write one line as a JSON object; `name_of` says how a user is called whom the sender named by an id only.
///
/// Where it cannot be read, what was written of it so far is left behind.
pub fn write_line<E: From<Damaged>>(
    out: &mut Vec<u8>,
    stored: &[u8],
    page: &Page<'_>,
    name_of: impl FnOnce(&str) -> Result<Option<String>, E>,
) -> Result<(), E> {
    let line = Line::read(stored)?;
    write(out, "{\"instance_id\":", Some(line.instance_id));
    write(out, ",\"task_id\":", line.task_id);
    write(out, ",\"view\":", Some(page.view));
    write(out, ",\"title\":", line.title);
    write(out, ",\"url\":", line.url);
    write(out, ",\"app_type\":", Some(line.app_type));
    write(out, ",\"source\":", Some(line.source.unwrap_or(page.source)));
    write(out, ",\"process_name\":", line.process_name);
    match line.originator {
        None => out.extend_from_slice(b",\"originator\":null"),
        Some((id, name)) => {
            write(out, ",\"originator\":{\"user_id\":", Some(id));
            match name {
                Some(_) => write(out, ",\"name\":", name),
                None => write(out, ",\"name\":", name_of(id)?.as_deref()),
            }
            out.push(b'}');
        }
    }
    write(out, ",\"status\":", Some(line.status));
    write_moment(out, ",\"created_at\":", Some(line.created_at), page);
    write_moment(out, ",\"updated_at\":", Some(line.updated_at), page);
    write(out, ",\"outcome\":", line.outcome);
    write_moment(out, ",\"finished_at\":", line.finished_at, page);
    write(out, ",\"result\":", line.result);
    out.push(b'}');
    Ok(())
}

fn write(out: &mut Vec<u8>, before: &str, text: Option<&str>) {
    out.extend_from_slice(before.as_bytes());
    match text {
        None => out.extend_from_slice(b"null"),
        Some(text) => write_text(out, text),
    }
}

fn write_moment(out: &mut Vec<u8>, before: &str, time_ms: Option<i64>, page: &Page<'_>) {
    out.extend_from_slice(before.as_bytes());
    match time_ms {
        None => out.extend_from_slice(b"null"),
        Some(time_ms) => {
            out.push(b'"');
            out.extend_from_slice(&rfc3339(time_ms.clamp(*page.moments.start(), *page.moments.end())));
            out.push(b'"');
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        match special[0] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\x08' => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\x0c' => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            byte => {
                out.extend_from_slice(b"\\u00");
                out.push(DIGITS[usize::from(byte >> 4)]);
                out.push(DIGITS[usize::from(byte & 0x0f)]);
            }
        }
        rest = &special[1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
