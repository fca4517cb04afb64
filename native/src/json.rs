//! JSON text: a strict reader that borrows values from the text, and a writer of texts.
//!
//! The reader mirrors `edge/parsing/strict_json.py` and never accepts more than it does. None means: Python decides.

use std::borrow::Cow;

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
    let mut scanner = Scanner { text, at: 0 };
    scanner.skip_blanks();
    let mut found: Members<'_> = Vec::with_capacity(16);
    scanner.object(Scanner::string, |scanner, name| {
        let value = scanner.value(1)?;
        (found.len() < MAX_MEMBERS && found.iter().all(|(known, _)| *known != name)).then_some(())?;
        found.push((name, value));
        Some(())
    })?;
    scanner.skip_blanks();
    (scanner.at == text.len()).then_some(found)
}

/// The values of a list, which is part of a JSON text.
pub fn items(list: &str) -> Option<Vec<Value<'_>>> {
    let mut found = Vec::new();
    Scanner { text: list, at: 0 }.list(|scanner| {
        found.push(scanner.value(1)?);
        Some(())
    })?;
    Some(found)
}

/// A value, which is part of a JSON text, without blanks. None where an object has a name twice.
pub fn compact(value: &str) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    Scanner { text: value, at: 0 }.write(&mut out)?;
    String::from_utf8(out).ok()
}

/// Append a text as Python's `json` and msgspec write it: all that is not ASCII is left as it is.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let short = match special[0] {
            b'"' | b'\\' => special[0],
            b'\x08' => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            b'\x0c' => b'f',
            b'\r' => b'r',
            _ => b'u',
        };
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let digit = |shift: u8| DIGITS[usize::from(special[0] >> shift & 0x0f)];
            out.extend_from_slice(&[b'0', b'0', digit(4), digit(0)]);
        }
        rest = &special[1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn since(&self, begin: usize) -> &'a str {
        &self.text[begin..self.at]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn consume(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        let begin = self.at;
        Some(match self.peek()? {
            b'"' => Value::Text(self.string()?),
            b'{' => self.skip(depth).map(|()| Value::Object(self.since(begin)))?,
            b'[' => self.skip(depth).map(|()| Value::List(self.since(begin)))?,
            b'n' => self.word("null").map(|()| Value::Null)?,
            b't' => self.word("true").map(|()| Value::Bool("true"))?,
            b'f' => self.word("false").map(|()| Value::Bool("false"))?,
            _ => Value::Number(self.number()?),
        })
    }

    fn skip(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            _ if depth > MAX_DEPTH => None,
            b'{' => self.object(Self::skip_string, |scanner, ()| scanner.skip(depth + 1)),
            b'[' => self.list(|scanner| scanner.skip(depth + 1)),
            b'"' => self.skip_string(),
            _ => self.value(depth).map(|_| ()),
        }
    }

    fn object<N>(
        &mut self,
        name: impl Fn(&mut Self) -> Option<N>,
        mut member: impl FnMut(&mut Self, N) -> Option<()>,
    ) -> Option<()> {
        self.separated(b'{', b'}', |scanner| {
            let name = name(scanner)?;
            scanner.skip_blanks();
            scanner.consume(b':')?;
            scanner.skip_blanks();
            member(scanner, name)
        })
    }

    fn list(&mut self, item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.separated(b'[', b']', item)
    }

    fn separated(&mut self, open: u8, close: u8, mut part: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.consume(open)?;
        self.skip_blanks();
        if self.consume(close).is_some() {
            return Some(());
        }
        loop {
            part(self)?;
            self.skip_blanks();
            if self.consume(close).is_some() {
                return Some(());
            }
            self.consume(b',')?;
            self.skip_blanks();
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Option<()> {
        match self.peek()? {
            b'{' => {
                let mut names: Vec<Cow<'a, str>> = Vec::new();
                out.push(b'{');
                self.object(Self::string, |scanner, name| {
                    if !names.is_empty() {
                        out.push(b',');
                    }
                    (names.len() < MAX_MEMBERS && !names.contains(&name)).then_some(())?;
                    write_text(out, &name);
                    out.push(b':');
                    names.push(name);
                    scanner.write(out)
                })?;
                out.push(b'}');
            }
            b'[' => {
                out.push(b'[');
                let begin = out.len();
                self.list(|scanner| {
                    if out.len() > begin {
                        out.push(b',');
                    }
                    scanner.write(out)
                })?;
                out.push(b']');
            }
            b'"' => write_text(out, &self.string()?),
            _ => {
                let begin = self.at;
                self.value(0)?;
                out.extend_from_slice(self.since(begin).as_bytes());
            }
        }
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<&'a str> {
        let begin = self.at;
        let _ = self.consume(b'-');
        if self.consume(b'0').is_none() {
            self.digits()?;
        }
        if self.consume(b'.').is_some() {
            self.digits()?;
        }
        if self.consume(b'e').or_else(|| self.consume(b'E')).is_some() {
            let _ = self.consume(b'+').or_else(|| self.consume(b'-'));
            self.digits()?;
        }
        Some(self.since(begin))
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.consume(b'"')?;
        let begin = self.at;
        if self.plain()? == b'"' {
            let text = self.since(begin);
            self.at += 1;
            return Some(Cow::Borrowed(text));
        }
        // A decoded text is never longer than its escaped form.
        let mut decoded = String::with_capacity((self.at - begin) * 2 + 64);
        decoded.push_str(self.since(begin));
        loop {
            decoded.push(self.escape()?);
            let begin = self.at;
            let ends = self.plain()? == b'"';
            decoded.push_str(self.since(begin));
            if ends {
                self.at += 1;
                return Some(Cow::Owned(decoded));
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.consume(b'"')?;
        while self.plain()? != b'"' {
            self.escape()?;
        }
        self.consume(b'"')
    }

    /// Move to the next quote or backslash, and return it.
    fn plain(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
        self.at += length;
        (rest[length] >= b' ').then_some(rest[length])
    }

    fn escape(&mut self) -> Option<char> {
        self.consume(b'\\')?;
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                if !(0xd800..0xdc00).contains(&unit) {
                    return char::from_u32(unit);
                }
                self.consume(b'\\')?;
                self.consume(b'u')?;
                let low = self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + low)?
            }
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        let unit = digits.iter().try_fold(0, |unit, &digit| Some(unit * 16 + char::from(digit).to_digit(16)?));
        self.at += 4;
        unit
    }
}
