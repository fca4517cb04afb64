//! From the bytes of a request to its parameters, where they are plain.
//!
//! Mirrors `edge/parsing/parameters.py`, and never accepts more than it does. None means: the general path decides.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::callback::Action;
use crate::json::{self, Value};

/// The parser allows more headers.
const MAX_HEADERS: usize = 64;
const LENGTH_DIGITS: usize = 6;
const MAX_PARAMETERS: usize = 256;
/// Larger requests are rare, and Python reads them in fewer ways.
const MAX_BYTES: usize = 64 << 10;
const MAX_DIGITS: usize = 18;

/// One `POST` to one of Yida's paths, with the headers that matter.
pub struct PlainRequest<'a> {
    pub wire_action: &'a str,
    pub content_type: Option<&'a str>,
    pub forwarded_for: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub body: &'a [u8],
}

/// Read bytes that are exactly one request, which every reader of HTTP/1.1 reads alike.
pub fn read_request(bytes: &[u8]) -> Option<PlainRequest<'_>> {
    let (first, mut rest) = line(bytes.strip_prefix(b"POST /yida/tasks/")?)?;
    let wire_action = std::str::from_utf8(first.strip_suffix(b" HTTP/1.1")?).ok()?;
    Action::of(wire_action)?;
    let mut found = PlainRequest { wire_action, content_type: None, forwarded_for: None, traceparent: None, body: &[] };
    let mut length = None;
    let mut names: Vec<Vec<u8>> = Vec::with_capacity(16);
    loop {
        let (header, after) = line(rest)?;
        rest = after;
        if header.is_empty() {
            break;
        }
        let (name, value) = name_and_value(header)?;
        let name = name.to_ascii_lowercase();
        (names.len() < MAX_HEADERS && !names.contains(&name)).then_some(())?;
        match name.as_slice() {
            b"content-length" => length = Some(digits(value)?),
            b"content-type" => found.content_type = Some(value),
            b"x-forwarded-for" => found.forwarded_for = Some(value),
            b"traceparent" => found.traceparent = Some(value),
            b"connection" => value.eq_ignore_ascii_case("keep-alive").then_some(())?,
            b"proxy-connection" | b"transfer-encoding" | b"expect" | b"upgrade" | b"content-encoding"
            | b"http2-settings" | b"trailer" => {
                return None;
            }
            _ => (),
        }
        names.push(name);
    }
    found.body = rest;
    (length? == rest.len()).then_some(found)
}

/// The bytes up to the end of the line, and the bytes after it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\r')?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}

fn name_and_value(header: &[u8]) -> Option<(&[u8], &str)> {
    let colon = header.iter().position(|&byte| byte == b':')?;
    let (name, value) = (&header[..colon], &header[colon + 1..]);
    let value = value.strip_prefix(b" ").unwrap_or(value);
    let is_plain = !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
        && value.iter().all(|byte| (b' '..=b'~').contains(byte))
        && value.first() != Some(&b' ')
        && value.last() != Some(&b' ');
    is_plain.then_some((name, std::str::from_utf8(value).ok()?))
}

fn digits(value: &str) -> Option<usize> {
    let is_plain = value.len() <= LENGTH_DIGITS && value.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| value.parse().ok())?
}

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
