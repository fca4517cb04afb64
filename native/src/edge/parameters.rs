//! The parameters of a request, read in the way that nearly all are meant. Mirrors `edge/parsing/parameters.py`.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::form;
use super::json::{self, Value};

pub const MAX_PARAMETERS: usize = 256;
/// More than this is read in fewer ways, and is rare.
const MAX_BYTES: usize = 64 << 10;
const MAX_DIGITS: usize = 18;

/// Names and values; a null of JSON is None.
pub type Pairs<'a> = Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>;

pub struct Parameters<'a> {
    /// In the order in which they came.
    pub pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Places of the pairs in the order of Java's `CASE_INSENSITIVE_ORDER`.
    pub order: Vec<usize>,
}

enum Kind {
    Json,
    Form,
    Either,
}

impl<'a> Parameters<'a> {
    pub fn read(query: &'a [u8], content_type: Option<&str>, body: &'a [u8]) -> Option<Self> {
        (query.len() + body.len() <= MAX_BYTES).then_some(())?;
        let mut pairs: Pairs<'a> = Vec::with_capacity(16);
        form::read(query, &mut pairs)?;
        match (kind(content_type.unwrap_or(""))?, body.first()) {
            (_, None) => {}
            (_, Some(b'{')) => read_json(body, &mut pairs)?,
            (Kind::Form | Kind::Either, Some(first)) if first.is_ascii_alphanumeric() => form::read(body, &mut pairs)?,
            _ => return None,
        }
        (pairs.len() <= MAX_PARAMETERS && pairs.iter().all(|(key, _)| key.is_ascii())).then_some(())?;
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_unstable_by(|&a, &b| ignoring_case(&pairs[a].0, &pairs[b].0));
        let distinct = order.windows(2).all(|two| ignoring_case(&pairs[two[0]].0, &pairs[two[1]].0).is_lt());
        distinct.then_some(())?;
        if pairs.iter().any(|(_, value)| value.is_none()) {
            pairs.retain(|(_, value)| value.is_some());
            order = (0..pairs.len()).collect();
            order.sort_unstable_by(|&a, &b| ignoring_case(&pairs[a].0, &pairs[b].0));
        }
        let pairs = pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Some(Self { pairs, order })
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }
}

/// By what `str.lower` makes of ASCII.
fn ignoring_case(a: &str, b: &str) -> Ordering {
    a.bytes().map(|byte| byte.to_ascii_lowercase()).cmp(b.bytes().map(|byte| byte.to_ascii_lowercase()))
}

/// What the label says of the body; None for one that leaves more open than this.
fn kind(content_type: &str) -> Option<Kind> {
    let (media_type, charset) = content_type.split_once(';').unwrap_or((content_type, "charset=utf-8"));
    charset.trim_matches(' ').eq_ignore_ascii_case("charset=utf-8").then_some(())?;
    match media_type {
        "" if content_type.is_empty() => Some(Kind::Either),
        "application/json" => Some(Kind::Json),
        "application/x-www-form-urlencoded" => Some(Kind::Form),
        _ => None,
    }
}

/// An object of texts, nulls and small whole numbers.
fn read_json<'a>(body: &'a [u8], pairs: &mut Pairs<'a>) -> Option<()> {
    for (name, value) in json::members(std::str::from_utf8(body).ok()?)? {
        let value = match value {
            Value::Null => None,
            Value::Text(text) => Some(text),
            Value::Number(digits) if digits.len() <= MAX_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Cow::Borrowed(digits))
            }
            _ => return None,
        };
        pairs.push((name, value));
    }
    Some(())
}
