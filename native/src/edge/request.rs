//! From the query and the body of a request to its parameters, where they are plain.
//!
//! Mirrors `edge/parsing/parameters.py`, and never accepts more than it does. None means: Python decides.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::json::{self, Value};

const MAX_PARAMETERS: usize = 256;
/// Larger requests are rare, and Python reads them in fewer ways.
const MAX_BYTES: usize = 64 << 10;
const MAX_DIGITS: usize = 18;

/// Names and values; a null of JSON is None.
type Pairs<'a> = Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>;

pub struct Parameters<'a> {
    /// In the order in which they came.
    pub pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Indexes of the pairs in the order of Java's `CASE_INSENSITIVE_ORDER`.
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
        read_form(query, &mut pairs)?;
        match (kind(content_type.unwrap_or(""))?, body.first()) {
            (_, None) => {}
            (_, Some(b'{')) => read_json(body, &mut pairs)?,
            (Kind::Form | Kind::Either, Some(first)) if first.is_ascii_alphanumeric() => read_form(body, &mut pairs)?,
            _ => return None,
        }
        (pairs.len() <= MAX_PARAMETERS && pairs.iter().all(|(key, _)| key.is_ascii())).then_some(())?;
        let mut order = ordered(&pairs);
        let is_distinct = |two: &[usize]| ignoring_case(&pairs[two[0]].0, &pairs[two[1]].0).is_lt();
        order.windows(2).all(is_distinct).then_some(())?;
        if pairs.iter().any(|(_, value)| value.is_none()) {
            pairs.retain(|(_, value)| value.is_some());
            order = ordered(&pairs);
        }
        let pairs = pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Some(Self { pairs, order })
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }
}

fn ordered(pairs: &Pairs<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_unstable_by(|&a, &b| ignoring_case(&pairs[a].0, &pairs[b].0));
    order
}

/// As Python compares the results of `str.lower`, of ASCII.
fn ignoring_case(a: &str, b: &str) -> Ordering {
    a.bytes().map(|byte| byte.to_ascii_lowercase()).cmp(b.bytes().map(|byte| byte.to_ascii_lowercase()))
}

/// The form of the body by its content type; None for a type that leaves the form open.
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

/// Add the members of an object of texts, nulls and small whole numbers.
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

/// Add the pairs of `key=value&…` in printable ASCII whose escapes are whole.
fn read_form<'a>(encoded: &'a [u8], pairs: &mut Pairs<'a>) -> Option<()> {
    // Without an early end, so that the compiler compares many bytes at once.
    encoded.iter().fold(true, |all, byte| all & byte.is_ascii_graphic()).then_some(())?;
    let text = std::str::from_utf8(encoded).ok()?;
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (pairs.len() < MAX_PARAMETERS).then_some(())?;
        pairs.push((decoded(key)?, Some(decoded(value)?)));
    }
    Some(())
}

fn decoded(encoded: &str) -> Option<Cow<'_, str>> {
    if !encoded.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(Cow::Borrowed(encoded));
    }
    let mut decoded = vec![0; encoded.len()];
    let (mut length, mut rest) = (0, encoded.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        decoded[length] = match first {
            b'%' => {
                let [high, low, after @ ..] = rest else { return None };
                rest = after;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(*high)? << 4 | digit(*low)?) as u8
            }
            b'+' => b' ',
            other => *other,
        };
        length += 1;
    }
    decoded.truncate(length);
    String::from_utf8(decoded).ok().map(Cow::Owned)
}
