//! Parses the durations that Go's `time.Duration.String` writes, such as `6m0s`, `1.5s` and `12ms`.
//!
//! No dependency of this crate parses them, and `jiff`, which does, is a whole calendar library.

use std::time::Duration;

/// The units of [`parse_go_duration`], each with its length in nanoseconds. The micro sign has two
/// encodings, U+00B5 and U+03BC.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a duration in the syntax of Go's `time.ParseDuration`. A negative duration and one of
/// more than 584 years are malformed.
pub(super) fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total_nanos = 0_u64;
    while !rest.is_empty() {
        let (number, after_number) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, after_unit) = split_where(after_number, |c| c.is_ascii_digit() || c == '.');
        let (_, unit_nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total_nanos = total_nanos.checked_add(nanos_of(number, *unit_nanos)?)?;
        rest = after_unit;
    }
    Some(Duration::from_nanos(total_nanos))
}

/// Returns the nanoseconds of `number` units. The whole units are exact, as in Go.
fn nanos_of(number: &str, unit_nanos: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let fraction: f64 = format!("0.{fraction}0").parse().ok()?;
    let fraction_nanos = (fraction * unit_nanos as f64).round() as u64;
    whole.checked_mul(unit_nanos)?.checked_add(fraction_nanos)
}

/// Splits `text` before the first character for which `ends` returns true.
fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Go, src/time/time_test.go, `parseDurationTests`.
    #[test]
    fn durations_of_the_tests_of_go_are_parsed() {
        let s = 1_000_000_000;
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5 * s),
            ("30s", 30 * s),
            ("1478s", 1_478 * s),
            ("+5s", 5 * s),
            ("+0", 0),
            ("5.0s", 5 * s),
            ("5.6s", 5_600_000_000),
            ("5.s", 5 * s),
            (".5s", s / 2),
            ("1.004s", 1_004_000_000),
            ("100.00100s", 100_001_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("13ms", 13_000_000),
            ("14s", 14 * s),
            ("15m", 900 * s),
            ("16h", 57_600 * s),
            ("3h30m", 12_600 * s),
            ("10.5s4m", 250_500_000_000),
            ("2m3.4s", 123_400_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("39h9m14.425s", 140_954_425_000_000),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 1_200 * s),
            ("9007199254740993ns", 9_007_199_254_740_993),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
            ("0.100000000000000000000h", 360 * s),
            // Go, `durationTests`: the output of `Duration.String`.
            ("1.1\u{b5}s", 1_100),
            ("2.2ms", 2_200_000),
            ("3.3s", 3_300_000_000),
            ("4m5s", 245 * s),
            ("4m5.001s", 245_001_000_000),
            ("5h6m7.001s", 18_367_001_000_000),
        ] {
            assert_eq!(
                parse_go_duration(text),
                Some(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_durations_are_rejected() {
        for text in [
            "",
            "+",
            "-",
            "-5s",
            "3",
            "s",
            ".",
            ".s",
            "-.5s",
            "+.s",
            "1d",
            "1.2.3s",
            "1e3s",
            "5 s",
            "s5",
            "1h2",
            "1\u{a0}s",
            "\u{b5}s",
            "18446744073709551616ns",
            "99999999999999h",
            "1S",
        ] {
            assert_eq!(parse_go_duration(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn formatted_durations_are_parsed(hours in 0..100_000_u64, rest_nanos in 0..3_600_000_000_000_u64) {
            let minutes = rest_nanos / 60_000_000_000;
            let seconds = rest_nanos % 60_000_000_000 / 1_000_000_000;
            let nanos = rest_nanos % 1_000_000_000;
            let expected = Duration::from_nanos(hours * 3_600_000_000_000 + rest_nanos);
            let text = format!("{hours}h{minutes}m{seconds}.{nanos:09}s");
            prop_assert_eq!(parse_go_duration(&text), Some(expected));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[0-9.+hmnsu\u{b5}\u{3bc} -]{0,30}") {
            let _ = parse_go_duration(&text);
        }
    }
}
