//! `key=value&…`, never more lenient than `edge/parsing/forms.py`: printable ASCII, and escapes that are whole.

use std::borrow::Cow;

use super::parameters::{MAX_PARAMETERS, Pairs};

/// Add the pairs of a query or a form, in their order. None where Python has to decide.
pub fn read<'a>(encoded: &'a [u8], pairs: &mut Pairs<'a>) -> Option<()> {
    // Without an end at the first that is not, so that many are looked at together.
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
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match first {
            b'%' => {
                let [high, low, after @ ..] = rest else { return None };
                rest = after;
                let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
                (high | low < 16).then_some(high << 4 | low)?
            }
            b'+' => b' ',
            other => *other,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// What each byte is as a digit of base 16.
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut digit = 0;
    while digit < 16 {
        digits[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digits[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    digits
};
