//! What a callback says: the names of its fields, and their values as an event may have them.
//!
//! Mirrors `edge/decision/callbacks.py` and `edge/parsing/fields.py`, and never accepts more than they do. The outer
//! Option is None where Python decides: on values that it rejects, or that it notes as not understood.

use std::borrow::Cow;
use std::collections::HashSet;

use super::request::Parameters;
use crate::cloudevents::date;
use crate::json::{self, Members, Value};

const LAST_MS: i64 = 253_402_300_799_999;
const HOUR_MS: i64 = 3_600_000;

/// In the order of the schema's symbols.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Created,
    Completed,
    Cancelled,
    Deleted,
    Copied,
}

impl Action {
    pub fn of(wire_action: &str) -> Option<Self> {
        Some(match wire_action {
            "create" => Self::Created,
            "complete" => Self::Completed,
            "cancel" => Self::Cancelled,
            "delete" => Self::Deleted,
            "cc" => Self::Copied,
            _ => return None,
        })
    }

    pub fn is_of_one_task(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }

    pub fn describes(self) -> bool {
        matches!(self, Self::Created | Self::Copied)
    }

    pub fn recipients(self) -> &'static [&'static str] {
        const COPIED_IN: &[&str] = &["actionerId", "actionerIds", "actualWorkId", "ccUserIds"];
        match self {
            Self::Copied => COPIED_IN,
            Self::Created => &COPIED_IN[..2],
            _ => &[],
        }
    }
}

pub const TASK_INSTANCE: [&str; 3] = ["formInstanceId", "formInstId", "processInstanceId"];
pub const URLS: [&str; 5] = ["url", "taskUrl", "detailUrl", "approveUrl", "formUrl"];
const DELETE_KEYS: [&str; 5] = ["appType", "corpId", "formInstId", "dateTime", "sign"];
const FOREIGN_SIGNATURE: &str = "__signature";

/// The parameters, and the members of `task` where there is one.
pub struct Callback<'a> {
    pub parameters: &'a Parameters<'a>,
    task: Members<'a>,
}

impl<'a> Callback<'a> {
    pub fn of(action: Action, parameters: &'a Parameters<'a>) -> Option<Self> {
        let is_ours = |key: &str| match action {
            Action::Deleted => DELETE_KEYS.contains(&key),
            _ => key != FOREIGN_SIGNATURE,
        };
        parameters.pairs.iter().all(|(key, _)| is_ours(key)).then_some(())?;
        let task = parameters.get("task").filter(|_| action.describes());
        let task = match Field::text(task) {
            Field::Text(task) => json::members(task)?,
            _ if action == Action::Created => return None,
            _ => Vec::new(),
        };
        Some(Self { parameters, task })
    }

    pub fn in_task(&self, key: &str) -> Field<'_> {
        self.task.iter().find(|(name, _)| name == key).map_or(Field::Absent, |(_, value)| Field::of(value))
    }

    pub fn parameter(&self, key: &str) -> Field<'_> {
        Field::text(self.parameters.get(key))
    }

    /// The member of `task`, or else the parameter.
    pub fn get(&self, key: &str) -> Field<'_> {
        self.in_task(key).or(|| self.parameter(key))
    }

    /// The text in `task`, in the parameters or in both; None where they differ.
    pub fn agreed(&self, key: &str) -> Option<Option<&str>> {
        match (self.parameter(key).plain()?, self.in_task(key).plain()?) {
            (Some(one), Some(other)) if one != other => None,
            (one, other) => Some(one.or(other)),
        }
    }
}

/// The value of a key; blank texts and null count as absent.
#[derive(Clone, Copy)]
pub enum Field<'a> {
    Absent,
    /// Numbers as they are written.
    Text(&'a str),
    List(&'a str),
    Object(&'a str),
    Bool,
}

impl<'a> Field<'a> {
    pub fn text(text: Option<&'a str>) -> Self {
        text.filter(|text| !text.chars().all(is_space)).map_or(Self::Absent, Self::Text)
    }

    fn of(value: &'a Value<'_>) -> Self {
        match value {
            Value::Null => Self::Absent,
            Value::Bool(_) => Self::Bool,
            Value::Text(text) => Self::text(Some(text)),
            Value::Number(digits) => Self::Text(digits),
            Value::List(list) => Self::List(list),
            Value::Object(object) => Self::Object(object),
        }
    }

    pub fn or(self, other: impl FnOnce() -> Self) -> Self {
        if matches!(self, Self::Absent) { other() } else { self }
    }

    /// The text, where the value is not a list, an object or a boolean.
    pub fn plain(self) -> Option<Option<&'a str>> {
        match self {
            Self::Absent => Some(None),
            Self::Text(text) => Some(Some(text)),
            _ => None,
        }
    }
}

/// As Python's `str.isspace`.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Reads ids of at most this many characters.
#[derive(Clone, Copy)]
pub struct Ids {
    pub max_characters: usize,
}

impl Ids {
    fn is_id(self, text: &str) -> bool {
        !text.contains(char::is_control)
            && (text.len() <= self.max_characters || text.chars().count() <= self.max_characters)
    }

    pub fn optional(self, field: Field<'_>) -> Option<Option<&str>> {
        let text = field.plain()?;
        text.is_none_or(|text| self.is_id(text)).then_some(text)
    }

    pub fn required(self, field: Field<'_>) -> Option<&str> {
        self.optional(field)?
    }

    /// The id of exactly one person.
    pub fn person(self, field: Field<'_>) -> Option<Option<&str>> {
        let Some(text) = field.plain()?.map(strip) else { return Some(None) };
        (!text.starts_with(['[', '{']) && !text.contains(',') && self.is_id(text)).then_some(Some(text))
    }

    /// The ids of all people that the fields name, each once, in their order.
    pub fn people<'a>(self, fields: impl Iterator<Item = Field<'a>>) -> Option<Vec<Cow<'a, str>>> {
        let mut found = Vec::new();
        for field in fields {
            self.add_all(field, &mut found)?;
        }
        if found.len() > 1 {
            let mut known = HashSet::with_capacity(found.len());
            found.retain(|id| known.insert(id.clone()));
        }
        Some(found)
    }

    fn add_all<'a>(self, field: Field<'a>, found: &mut Vec<Cow<'a, str>>) -> Option<()> {
        match field {
            Field::Absent => {}
            Field::Text(text) => {
                (!strip(text).starts_with(['[', '{'])).then_some(())?;
                for each in text.split(',') {
                    self.add(Cow::Borrowed(each), found)?;
                }
            }
            Field::List(list) => {
                for each in json::items(list)? {
                    match each {
                        Value::Null => {}
                        Value::Number(digits) => self.add(Cow::Borrowed(digits), found)?,
                        Value::Text(text) => self.add(text, found)?,
                        _ => return None,
                    }
                }
            }
            Field::Object(_) | Field::Bool => return None,
        }
        Some(())
    }

    fn add<'a>(self, each: Cow<'a, str>, found: &mut Vec<Cow<'a, str>>) -> Option<()> {
        let id = match each {
            Cow::Borrowed(text) => Cow::Borrowed(strip(text)),
            Cow::Owned(text) => Cow::Owned(strip(&text).to_owned()),
        };
        if !id.is_empty() {
            self.is_id(&id).then_some(())?;
            found.push(id);
        }
        Some(())
    }
}

/// Milliseconds since the epoch: 13 digits, 10 digits that are seconds, or `yyyy-MM-dd HH:mm:ss` in Shanghai.
pub fn moment(field: Field<'_>, latest: i64) -> Option<Option<i64>> {
    let Some(text) = field.plain()?.map(|text| strip(text).as_bytes()) else { return Some(None) };
    let ms = match text.len() {
        13 => number(text)?,
        10 if text[0] != b'0' => number(text)? * 1000,
        19 => written_date(text)?,
        _ => return None,
    };
    (0 < ms && ms <= LAST_MS && ms <= latest).then_some(Some(ms))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn written_date(text: &[u8]) -> Option<i64> {
    let separators = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':')];
    separators.iter().all(|&(at, byte)| text[at] == byte).then_some(())?;
    let year = number(&text[..4])?;
    let [month, day, hour, minute, second] = [5, 8, 11, 14, 17].map(|at| number(&text[at..at + 2]));
    let (month, day, hour, minute, second) = (month?, day?, hour?, minute?, second?);
    (year >= 1970 && hour < 24 && minute < 60 && second < 60).then_some(())?;
    // Years are counted from March, so that the leap day is the last of its year.
    let (from_march, in_year) = if month > 2 { (month - 3, year) } else { (month + 9, year - 1) };
    let leap_days = in_year / 4 - in_year / 100 + in_year / 400;
    let days = 365 * in_year + leap_days + (153 * from_march + 2) / 5 + day - 1 - 719_468;
    // A day that its month does not have is another day.
    (date(days) == (year, month, day)).then_some(())?;
    Some(((days * 24 + hour - 8) * HOUR_MS) + (minute * 60 + second) * 1000)
}

/// An address that a person can safely follow, with a plain host name.
pub fn web_address(field: Field<'_>) -> Option<Option<&str>> {
    let Some(text) = field.plain()?.map(strip) else { return Some(None) };
    let is_odd = |character: char| matches!(character, '\0'..='\x20' | '\x7f'..='\u{9f}');
    (!text.contains(is_odd)).then_some(())?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (!host.is_empty() && host.bytes().all(is_plain) && is_port).then_some(Some(text))
}

/// A form's values by field id: texts and nulls as they are, all else as JSON text.
pub type Form<'a> = Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>;

pub fn form(field: Field<'_>) -> Option<Form<'_>> {
    let object = match field {
        Field::Absent => return Some(Vec::new()),
        Field::Text(text) | Field::Object(text) => text,
        Field::List(_) | Field::Bool => return None,
    };
    let values = json::members(object)?.into_iter().map(|(name, value)| {
        let value = match value {
            Value::Null => None,
            Value::Text(text) => Some(text),
            Value::Number(word) | Value::Bool(word) => Some(Cow::Borrowed(word)),
            value => Some(Cow::Owned(json::compact(&value)?)),
        };
        Some((name, value))
    });
    values.collect()
}

#[cfg(test)]
#[path = "../../../tests/native/edge_people.rs"]
mod tests;
