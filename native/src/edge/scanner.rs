//! Goes through a JSON text: what is no JSON ends it, and is Python's.

use std::borrow::Cow;

use super::json::Value;

/// Nested deeper than this: Python decides.
const MAX_DEPTH: usize = 32;

pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn since(&self, begin: usize) -> &'a str {
        &self.text[begin..self.at]
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    pub fn is_at_end(&mut self) -> bool {
        self.skip_blanks();
        self.at == self.text.len()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    pub fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        let begin = self.at;
        Some(match self.peek()? {
            b'"' => Value::Text(self.string()?),
            b'{' | b'[' => {
                let is_list = self.peek()? == b'[';
                self.skip(depth)?;
                let text = &self.text[begin..self.at];
                if is_list { Value::List(text) } else { Value::Object(text) }
            }
            b'n' => self.word("null").map(|()| Value::Null)?,
            b't' => self.word("true").map(|()| Value::Bool("true"))?,
            b'f' => self.word("false").map(|()| Value::Bool("false"))?,
            _ => Value::Number(self.number()?),
        })
    }

    fn skip(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            _ if depth > MAX_DEPTH => None,
            b'{' => self.object_of(Self::skip_string, |scanner, ()| scanner.skip(depth + 1)),
            b'[' => self.list(|scanner| scanner.skip(depth + 1)),
            b'"' => self.skip_string(),
            _ => self.value(depth).map(|_| ()),
        }
    }

    pub fn object(&mut self, member: impl FnMut(&mut Self, Cow<'a, str>) -> Option<()>) -> Option<()> {
        self.object_of(Self::string, member)
    }

    fn object_of<N>(
        &mut self,
        name: impl Fn(&mut Self) -> Option<N>,
        mut member: impl FnMut(&mut Self, N) -> Option<()>,
    ) -> Option<()> {
        self.separated(b'{', b'}', |scanner| {
            let name = name(scanner)?;
            scanner.skip_blanks();
            scanner.take(b':')?;
            scanner.skip_blanks();
            member(scanner, name)
        })
    }

    pub fn list(&mut self, item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.separated(b'[', b']', item)
    }

    fn separated(&mut self, open: u8, close: u8, mut part: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        self.skip_blanks();
        if self.take(close).is_some() {
            return Some(());
        }
        loop {
            part(self)?;
            self.skip_blanks();
            if self.take(close).is_some() {
                return Some(());
            }
            self.take(b',')?;
            self.skip_blanks();
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<&'a str> {
        let begin = self.at;
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if self.take(b'e').or_else(|| self.take(b'E')).is_some() {
            let _ = self.take(b'+').or_else(|| self.take(b'-'));
            self.digits()?;
        }
        Some(&self.text[begin..self.at])
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }

    pub fn string(&mut self) -> Option<Cow<'a, str>> {
        self.take(b'"')?;
        let begin = self.at;
        if self.plain()? == b'"' {
            let text = &self.text[begin..self.at];
            self.at += 1;
            return Some(Cow::Borrowed(text));
        }
        // What is written anew is never longer than what it is written from.
        let mut written = String::with_capacity((self.at - begin) * 2 + 64);
        written.push_str(&self.text[begin..self.at]);
        loop {
            written.push(self.escape()?);
            let begin = self.at;
            let ends = self.plain()? == b'"';
            written.push_str(&self.text[begin..self.at]);
            if ends {
                self.at += 1;
                return Some(Cow::Owned(written));
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        while self.plain()? != b'"' {
            self.escape()?;
        }
        self.take(b'"')
    }

    /// Go on to the next quote or backslash, and say which.
    fn plain(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
        self.at += length;
        (rest[length] >= b' ').then_some(rest[length])
    }

    fn escape(&mut self) -> Option<char> {
        self.take(b'\\')?;
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
                self.take(b'\\')?;
                self.take(b'u')?;
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
