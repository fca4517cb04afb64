//! The parts of CloudEvents headers and ids. Mirrors `schemas/cloudevents.py` and `_uuid5` of `schemas/events.py`.

pub type Id = [u8; 36];

/// The text of the UUID of version 5 whose bytes begin the digest.
pub fn uuid_text(digest: &[u8]) -> Id {
    let bytes = *digest.first_chunk().expect("a digest has more bytes");
    let mut text = [0; 36];
    uuid::Builder::from_sha1_bytes(bytes).into_uuid().hyphenated().encode_lower(&mut text);
    text
}

/// `ce_source`: `/{source}/{corp_id}/{app_type}`, escaped as path segments of RFC 3986.
pub fn source(segments: [&str; 3]) -> Vec<u8> {
    let mut path = Vec::with_capacity(64);
    for segment in segments {
        path.push(b'/');
        escape(&mut path, segment);
    }
    path
}

fn escape(path: &mut Vec<u8>, segment: &str) {
    for &byte in segment.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            path.push(byte);
        } else {
            path.extend(format!("%{byte:02X}").bytes());
        }
    }
}

/// `2026-01-31T08:00:00.000Z`, from milliseconds since the epoch, in the years 1 to 9999.
pub fn rfc3339(time_ms: i64) -> [u8; 24] {
    const DAY_MS: i64 = 86_400_000;
    let (year, month, day) = date(time_ms.div_euclid(DAY_MS));
    let rest = time_ms.rem_euclid(DAY_MS);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let parts = [
        (0..4, year),
        (5..7, month),
        (8..10, day),
        (11..13, rest / 3_600_000),
        (14..16, rest / 60_000 % 60),
        (17..19, rest / 1000 % 60),
        (20..23, rest % 1000),
    ];
    for (places, mut value) in parts {
        for digit in text[places].iter_mut().rev() {
            *digit = b'0' + value.rem_euclid(10) as u8;
            value /= 10;
        }
    }
    text
}

/// Year, month and day, from days since the epoch, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year.
pub fn date(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097; // 400 years
    let days = days + 719_468; // from the first of March of the year 0
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10; // January and February
    let month = if is_next_year { month - 9 } else { month + 3 };
    (400 * era + year + i64::from(is_next_year), month, day_of_month)
}
