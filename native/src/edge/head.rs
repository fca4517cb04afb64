//! Requests that came whole and are so plain that they need no parser. Mirrors `edge/server/heads.py`.

use super::callback::Action;

/// Fewer than Python takes.
const MAX_HEADERS: usize = 64;
const LENGTH_DIGITS: usize = 6;

/// One `POST` to one of Yida's paths, as far as it counts.
pub struct Whole<'a> {
    pub wire_action: &'a str,
    pub content_type: Option<&'a str>,
    pub forwarded_for: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub body: &'a [u8],
}

/// What the bytes are, where they are exactly one request and all readers of HTTP/1.1 agree on it.
pub fn whole(bytes: &[u8]) -> Option<Whole<'_>> {
    let (first, mut rest) = line(bytes.strip_prefix(b"POST /yida/tasks/")?)?;
    let wire_action = std::str::from_utf8(first.strip_suffix(b" HTTP/1.1")?).ok()?;
    Action::of(wire_action)?;
    let mut found = Whole { wire_action, content_type: None, forwarded_for: None, traceparent: None, body: &[] };
    let mut length = None;
    let mut names = [&[] as &[u8]; MAX_HEADERS];
    for at in 0.. {
        let (header, after) = line(rest)?;
        rest = after;
        if header.is_empty() {
            break;
        }
        let (name, value) = parts(header)?;
        let is_new = !names[..at.min(MAX_HEADERS)].iter().any(|other| other.eq_ignore_ascii_case(name));
        *names.get_mut(at).filter(|_| is_new)? = name;
        match lower(name, &mut [0; 20]) {
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
    }
    found.body = rest;
    (length? == rest.len()).then_some(found)
}

/// Up to the end of the line, and what comes behind it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\r')?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}

/// Name and value of a line that no parser reads in another way.
fn parts(header: &[u8]) -> Option<(&[u8], &str)> {
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

/// The name in lower case, or nothing for one that is longer than those that count.
fn lower<'a>(name: &[u8], room: &'a mut [u8; 20]) -> &'a [u8] {
    let Some(room) = room.get_mut(..name.len()) else { return &[] };
    room.copy_from_slice(name);
    room.make_ascii_lowercase();
    room
}

fn digits(value: &str) -> Option<usize> {
    let is_plain = value.len() <= LENGTH_DIGITS && value.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| value.parse().ok())?
}
