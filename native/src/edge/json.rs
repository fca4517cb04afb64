//! JSON, never more lenient than `edge/parsing/strict_json.py`: what is taken here is read there in the same way.
//!
//! Values are looked at where they stand. Only a text with an escape is written anew.

use std::borrow::Cow;

use super::scanner::Scanner;

/// With more members Python decides.
const MAX_MEMBERS: usize = 256;

/// A value as far as it was looked at; lists and objects are whole JSON.
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

/// The members of the object that the text is. None of them stands twice.
pub fn members(text: &str) -> Option<Members<'_>> {
    let mut scanner = Scanner::new(text);
    scanner.skip_blanks();
    let mut found: Members<'_> = Vec::with_capacity(16);
    scanner.object(|scanner, name| {
        let value = scanner.value(1)?;
        (found.len() < MAX_MEMBERS && found.iter().all(|(known, _)| *known != name)).then_some(())?;
        found.push((name, value));
        Some(())
    })?;
    scanner.is_at_end().then_some(found)
}

/// The values of a list that stands in a JSON text.
pub fn items(list: &str) -> Option<Vec<Value<'_>>> {
    let mut scanner = Scanner::new(list);
    let mut found = Vec::new();
    scanner.list(|scanner| {
        found.push(scanner.value(1)?);
        Some(())
    })?;
    Some(found)
}

/// A value that stands in a JSON text, without spaces: `strict_json.compact`. None where a name stands twice in it.
pub fn compact(value: &str, out: &mut String) -> Option<()> {
    write(&mut Scanner::new(value), out)
}

fn write<'a>(scanner: &mut Scanner<'a>, out: &mut String) -> Option<()> {
    match scanner.peek()? {
        b'{' => {
            out.push('{');
            let mut names: Vec<Cow<'a, str>> = Vec::new();
            scanner.object(|scanner, name| {
                if !names.is_empty() {
                    out.push(',');
                }
                (names.len() < MAX_MEMBERS && !names.contains(&name)).then_some(())?;
                write_text(&name, out);
                out.push(':');
                names.push(name);
                write(scanner, out)
            })?;
            out.push('}');
        }
        b'[' => {
            out.push('[');
            let mut is_first = true;
            scanner.list(|scanner| {
                if !is_first {
                    out.push(',');
                }
                is_first = false;
                write(scanner, out)
            })?;
            out.push(']');
        }
        b'"' => write_text(&scanner.string()?, out),
        _ => {
            let begin = scanner.at();
            scanner.value(0)?;
            out.push_str(scanner.since(begin));
        }
    }
    Some(())
}

/// A text as Python's `json` writes it without `ensure_ascii`.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\x1f' => {
                out.push_str(if character < '\x10' { "\\u000" } else { "\\u001" });
                out.extend(char::from_digit(u32::from(character) % 16, 16));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}
