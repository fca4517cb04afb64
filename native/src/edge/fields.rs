//! Loosely typed values as an event may hold them, never more lenient than `edge/parsing/fields.py` and `details.py`.
//!
//! The outer Option is None where Python has to decide: what would be refused, or noted as not understood.

use std::borrow::Cow;
use std::collections::HashSet;

use super::json::{self, Value};

const LAST_MS: i64 = 253_402_300_799_999;
const HOUR_MS: i64 = 3_600_000;

/// What Python's `str.isspace` says of a character.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

pub fn is_blank(text: &str) -> bool {
    text.chars().all(is_space)
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// A value that stands under a key: nothing where it is blank.
#[derive(Clone, Copy)]
pub enum Told<'a> {
    Nothing,
    /// Numbers as they are written.
    Text(&'a str),
    List(&'a str),
    Object(&'a str),
    Bool,
}

impl<'a> Told<'a> {
    pub fn text(text: Option<&'a str>) -> Self {
        text.filter(|text| !is_blank(text)).map_or(Self::Nothing, Self::Text)
    }

    pub fn value(value: &'a Value<'_>) -> Self {
        match value {
            Value::Null => Self::Nothing,
            Value::Bool(_) => Self::Bool,
            Value::Text(text) => Self::text(Some(text)),
            Value::Number(digits) => Self::Text(digits),
            Value::List(list) => Self::List(list),
            Value::Object(object) => Self::Object(object),
        }
    }

    pub fn or(self, other: impl FnOnce() -> Self) -> Self {
        if matches!(self, Self::Nothing) { other() } else { self }
    }

    /// A text that is there and no list or object.
    pub fn plain(self) -> Option<Option<&'a str>> {
        match self {
            Self::Nothing => Some(None),
            Self::Text(text) => Some(Some(text)),
            _ => None,
        }
    }
}

/// How many characters an id may have.
#[derive(Clone, Copy)]
pub struct Ids {
    pub characters: usize,
}

impl Ids {
    fn is_id(self, text: &str) -> bool {
        let is_control = |character: char| matches!(character, '\0'..='\x1f' | '\x7f'..='\u{9f}');
        !text.contains(is_control) && (text.len() <= self.characters || text.chars().count() <= self.characters)
    }

    pub fn optional(self, told: Told<'_>) -> Option<Option<&str>> {
        let text = told.plain()?;
        text.is_none_or(|text| self.is_id(text)).then_some(text)
    }

    pub fn required(self, told: Told<'_>) -> Option<&str> {
        self.optional(told)?
    }

    /// The one person that is meant.
    pub fn person(self, told: Told<'_>) -> Option<Option<&str>> {
        let Some(text) = told.plain()?.map(strip) else { return Some(None) };
        (!text.starts_with(['[', '{']) && !text.contains(',') && self.is_id(text)).then_some(Some(text))
    }

    /// The people that are meant, each once, in their order.
    pub fn people<'a>(self, told: impl Iterator<Item = Told<'a>>) -> Option<Vec<Cow<'a, str>>> {
        let mut found = Vec::new();
        for each in told {
            self.listed(each, &mut found)?;
        }
        if found.len() > 1 {
            let mut known = HashSet::with_capacity(found.len());
            found.retain(|id| known.insert(id.clone()));
        }
        Some(found)
    }

    fn listed<'a>(self, told: Told<'a>, found: &mut Vec<Cow<'a, str>>) -> Option<()> {
        match told {
            Told::Nothing => {}
            Told::Text(text) => {
                (!strip(text).starts_with(['[', '{'])).then_some(())?;
                for each in text.split(',') {
                    self.add(Cow::Borrowed(each), found)?;
                }
            }
            Told::List(list) => {
                for each in json::items(list)? {
                    match each {
                        Value::Null => {}
                        Value::Number(digits) => self.add(Cow::Borrowed(digits), found)?,
                        Value::Text(text) => self.add(text, found)?,
                        _ => return None,
                    }
                }
            }
            Told::Object(_) | Told::Bool => return None,
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
pub fn moment(told: Told<'_>, latest: i64) -> Option<Option<i64>> {
    let Some(text) = told.plain()?.map(|text| strip(text).as_bytes()) else { return Some(None) };
    let ms = match text.len() {
        13 => number(text)?,
        10 if text[0] != b'0' => number(text)? * 1000,
        19 => date(text)?,
        _ => return None,
    };
    (0 < ms && ms <= LAST_MS && ms <= latest).then_some(Some(ms))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn date(text: &[u8]) -> Option<i64> {
    let separators = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':')];
    separators.iter().all(|&(at, byte)| text[at] == byte).then_some(())?;
    let year = number(&text[..4])?;
    let [month, day, hour, minute, second] = [5, 8, 11, 14, 17].map(|at| number(&text[at..at + 2]));
    let (month, day, hour, minute, second) = (month?, day?, hour?, minute?, second?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (year >= 1970 && 1 <= day && day <= days && hour < 24 && minute < 60 && second < 60).then_some(())?;
    // Years are counted from March: the leap day is a year's last.
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day = 365 * year + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 + day - 1 - 719_468;
    Some(((day * 24 + hour - 8) * HOUR_MS) + (minute * 60 + second) * 1000)
}

/// A page that a person can safely follow, of a host whose name is plain.
pub fn web_address(told: Told<'_>) -> Option<Option<&str>> {
    let Some(text) = told.plain()?.map(strip) else { return Some(None) };
    let is_odd = |character: char| matches!(character, '\0'..='\x20' | '\x7f'..='\u{9f}');
    (!text.contains(is_odd)).then_some(())?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let place = rest.split(['/', '?', '#']).next()?;
    let (host, port) = place.split_once(':').unwrap_or((place, "80"));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (!host.is_empty() && host.bytes().all(is_plain) && is_port).then_some(Some(text))
}

/// A form's values by field id: texts and nulls as they are, anything else as JSON text.
pub type Form<'a> = Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>;

pub fn form(told: Told<'_>) -> Option<Form<'_>> {
    let object = match told {
        Told::Nothing => return Some(Vec::new()),
        Told::Text(text) | Told::Object(text) => text,
        Told::List(_) | Told::Bool => return None,
    };
    let values = json::members(object)?.into_iter().map(|(name, value)| {
        let value = match value {
            Value::Null => None,
            Value::Text(text) => Some(text),
            Value::Number(word) | Value::Bool(word) => Some(Cow::Borrowed(word)),
            Value::List(json) | Value::Object(json) => {
                let mut text = String::with_capacity(json.len());
                json::compact(json, &mut text)?;
                Some(Cow::Owned(text))
            }
        };
        Some((name, value))
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::{Ids, Told};

    /// Were each compared with all before it, this would take an hour.
    #[test]
    fn any_number_of_people_are_each_named_once_in_their_order() {
        let many: Vec<String> = (0..500_000).rev().map(|number| number.to_string()).collect();
        let (text, list) = (many.join(","), format!("[{}]", many.join(", ")));
        let ids = Ids { characters: 128 };
        assert_eq!(ids.people([Told::Text(&text), Told::List(&list), Told::Text("0, x")].into_iter()).unwrap(), {
            let mut expected = many.clone();
            expected.push("x".into());
            expected
        });
    }
}
