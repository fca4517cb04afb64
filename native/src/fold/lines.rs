//! Stored entries of a view as JSON.
//!
//! Mirrors `Item` of `streams/inbox/layout.py` and `item_json` of `streams/api/json_forms.py`.

use std::ops::RangeInclusive;

use crate::avro::{Read, Unreadable};
use crate::cloudevents::rfc3339;
use crate::json::write_text;
use crate::msgpack::Unpacker;

/// How many fields the first version wrote, and ours, which appended fields.
const FIRST_FIELDS: usize = 10;
const FIELDS: usize = 16;

/// The values that all entries of a page share.
pub struct Page<'p> {
    /// In lower case.
    pub view: &'p str,
    /// The source of entries without one.
    pub source: &'p str,
    /// Times that have a text; times outside are replaced by the nearest.
    pub moments: &'p RangeInclusive<i64>,
}

/// The fields of a stored entry that the JSON has; texts are borrowed.
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
            return Err(Unreadable);
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
                _ => drop(fields.optional(Unpacker::text)?), // the actor, which the JSON does not have
            }
        }
        if fields.is_at_end() { Ok(line) } else { Err(Unreadable) }
    }
}

/// Append one entry as a JSON object; `name_of` finds the name of an originator whom the sender named by id only.
///
/// After an error, `out` has a part of the object.
pub fn write_line<E: From<Unreadable>>(
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
