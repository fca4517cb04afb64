//! Reads one whole, plain callback from the bytes of a connection. None means: httptools reads them.
//!
//! A plain request is one that every reader of HTTP/1.1 reads alike.

/// httptools reads requests with more headers.
const MAX_HEADERS: usize = 64;
const LENGTH_DIGITS: usize = 6;
const PREFIXES: [&str; 2] = ["/yida/", "/sources/"];

pub struct PlainRequest<'a> {
    pub path: &'a str,
    /// Names are in lower case, and each is there once.
    pub headers: Vec<(String, &'a str)>,
    pub body: &'a [u8],
}

/// Read bytes that are exactly one POST without a query.
pub fn read_request(bytes: &[u8]) -> Option<PlainRequest<'_>> {
    let (first, mut body) = line(bytes.strip_prefix(b"POST ")?)?;
    let path = std::str::from_utf8(first.strip_suffix(b" HTTP/1.1")?).ok()?;
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    (is_plain && PREFIXES.iter().any(|prefix| path.starts_with(prefix))).then_some(())?;
    let mut headers: Vec<(String, &str)> = Vec::with_capacity(16);
    let mut length = None;
    loop {
        let (header, rest) = line(body)?;
        body = rest;
        if header.is_empty() {
            break;
        }
        let (name, value) = name_and_value(header)?;
        (headers.len() < MAX_HEADERS && headers.iter().all(|(other, _)| *other != name)).then_some(())?;
        match name.as_str() {
            "content-length" => length = Some(digits(value)?),
            "connection" => value.eq_ignore_ascii_case("keep-alive").then_some(())?,
            "expect" | "proxy-connection" | "transfer-encoding" | "upgrade" => return None,
            _ => (),
        }
        headers.push((name, value));
    }
    (length? == body.len()).then_some(PlainRequest { path, headers, body })
}

/// The bytes up to the end of the line, and the bytes after it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\r')?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}

fn name_and_value(header: &[u8]) -> Option<(String, &str)> {
    let (name, value) = std::str::from_utf8(header).ok()?.split_once(':')?;
    let value = value.strip_prefix(' ').unwrap_or(value);
    let is_plain = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && !value.starts_with(' ')
        && !value.ends_with(' ');
    is_plain.then(|| (name.to_ascii_lowercase(), value))
}

fn digits(value: &str) -> Option<usize> {
    let is_plain = value.len() <= LENGTH_DIGITS && value.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| value.parse().ok())?
}
