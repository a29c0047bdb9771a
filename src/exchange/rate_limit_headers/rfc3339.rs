//! Parses the times of RFC 3339, such as `2025-08-21T12:40:59Z`.
//!
//! No dependency of this crate parses them: `httpdate` reads the three forms of HTTP only, and
//! `jiff`, `time` or `chrono` is a whole calendar library.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::calendar::{days_in_month, days_since_unix_epoch};

/// Parses an RFC 3339 time with any offset. A second 60, which is a leap second, counts as the
/// first second of the next minute. A time before 1970 is malformed.
pub(super) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    let separator_at = |index: usize| bytes.get(index).copied().unwrap_or_default();
    let has_separators = separator_at(4) == b'-'
        && separator_at(7) == b'-'
        && matches!(separator_at(10), b'T' | b't' | b' ')
        && separator_at(13) == b':'
        && separator_at(16) == b':';
    if !has_separators {
        return None;
    }
    let year = digits_at(text, 0..4)?;
    let month = digits_in(text, 5..7, 1..=12)?;
    let day = digits_in(text, 8..10, 1..=days_in_month(year, month))?;
    let hour = digits_in(text, 11..13, 0..=23)?;
    let minute = digits_in(text, 14..16, 0..=59)?;
    let second = digits_in(text, 17..19, 0..=60)?;
    let (fraction, offset) = split_fraction(text.get(19..)?)?;
    let local_seconds =
        days_since_unix_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let unix_seconds = local_seconds - parse_offset_seconds(offset)?;
    let whole = Duration::from_secs(unix_seconds.try_into().ok()?);
    UNIX_EPOCH.checked_add(whole + fraction)
}

/// Splits the fraction of a second, if there is one, from the offset.
fn split_fraction(text: &str) -> Option<(Duration, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((Duration::ZERO, text));
    };
    let (digits, offset) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
    // Digits after the ninth are less than a nanosecond.
    let nanos = digits_at(&format!("{digits:0<9}"), 0..9)?;
    (!digits.is_empty()).then_some((Duration::from_nanos(nanos.try_into().ok()?), offset))
}

/// Parses `Z` or an offset such as `+05:30`.
fn parse_offset_seconds(text: &str) -> Option<i64> {
    let sign = match text.as_bytes() {
        b"Z" | b"z" => return Some(0),
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return None,
    };
    let hours = digits_in(text, 1..3, 0..=23)?;
    let minutes = digits_in(text, 4..6, 0..=59)?;
    Some(sign * (hours * 3_600 + minutes * 60))
}

fn digits_in(
    text: &str,
    range: Range<usize>,
    values: std::ops::RangeInclusive<i64>,
) -> Option<i64> {
    digits_at(text, range).filter(|number| values.contains(number))
}

/// Parses the digits in `range`, of which there are at most nine.
fn digits_at(text: &str, range: Range<usize>) -> Option<i64> {
    let digits = text.get(range)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unix_millis(text: &str) -> Option<u128> {
        let time = parse_rfc3339(text)?;
        Some(time.duration_since(UNIX_EPOCH).unwrap().as_millis())
    }

    /// RFC 3339 §5.8, and the forms that RFC 3339 §5.6 permits.
    #[test]
    fn times_are_parsed_with_offsets_and_fractions() {
        for (text, millis) in [
            ("1985-04-12T23:20:50.52Z", 482_196_050_520),
            ("1996-12-19T16:39:57-08:00", 851_042_397_000),
            ("1990-12-31T23:59:60Z", 662_688_000_000),
            ("1990-12-31T15:59:60-08:00", 662_688_000_000),
            ("1937-01-01T12:00:27.87+00:20", -1_i64),
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T01:00:00+01:00", 0),
            ("2000-02-29T00:00:00z", 951_782_400_000),
            ("2025-08-21t12:40:59Z", 1_755_780_059_000),
            ("2025-08-21 12:40:59+00:00", 1_755_780_059_000),
            ("2025-08-21T18:10:59+05:30", 1_755_780_059_000),
            ("2025-08-21T12:40:59.123456789012Z", 1_755_780_059_123),
            ("2025-08-21T12:40:59-00:00", 1_755_780_059_000),
        ] {
            assert_eq!(unix_millis(text), u128::try_from(millis).ok(), "{text}");
        }
    }

    #[test]
    fn malformed_times_are_rejected() {
        for text in [
            "",
            "2025-08-21",
            "2025-08-21T12:40:59",
            "2025-08-21T12:40Z",
            "2025-08-21T12:40:59.Z",
            "2025-08-21T12:40:59.5",
            "2025-8-21T12:40:59Z",
            "2025-13-21T12:40:59Z",
            "2025-00-21T12:40:59Z",
            "2025-02-29T12:40:59Z",
            "2025-08-00T12:40:59Z",
            "2025-08-21T24:00:00Z",
            "2025-08-21T12:60:59Z",
            "2025-08-21T12:40:61Z",
            "2025-08-21T12:40:59+0530",
            "2025-08-21T12:40:59+24:00",
            "2025-08-21T12:40:59+05:60",
            "2025-08-21T12:40:59ZZ",
            "2025-08-21T12:40:+9Z",
            "+025-08-21T12:40:59Z",
            "\u{661}\u{661}\u{661}\u{661}-08-21T12:40:59Z",
            "1969-12-31T23:59:59Z",
            "2025-08-21T12:40:5\u{e9}Z",
            "Sun, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text:?}");
        }
    }

    proptest! {
        /// `httpdate` formats the same instant independently.
        #[test]
        fn every_second_until_the_year_9999_is_parsed(
            unix_seconds in 0..253_402_300_800_u64,
            offset_minutes in -1_439..1_440_i64,
        ) {
            let time = UNIX_EPOCH + Duration::from_secs(unix_seconds);
            let local = unix_seconds.checked_add_signed(offset_minutes * 60);
            prop_assume!(local.is_some_and(|local| local < 253_402_300_800));
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(local.unwrap()));
            let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = months.find(&date[8..11]).unwrap() / 3 + 1;
            let sign = if offset_minutes < 0 { '-' } else { '+' };
            let offset = offset_minutes.abs();
            let text = format!(
                "{}-{month:02}-{}T{}{sign}{:02}:{:02}",
                &date[12..16], &date[5..7], &date[17..25], offset / 60, offset % 60,
            );
            prop_assert_eq!(parse_rfc3339(&text), Some(time), "{}", text);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}[0-9.Zz:\u{e9}+-]{0,20}") {
            let _ = parse_rfc3339(&text);
        }
    }
}
