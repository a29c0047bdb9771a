//! Parses the rate limit that a server announces in its response headers: the remaining number of
//! requests, and the time until the server resets that number.
//!
//! Four forms are supported. If a response has several forms, the first in this list counts:
//!
//! - `RateLimit: "default";r=50;t=30` (draft-ietf-httpapi-ratelimit-headers from 08 on). If `t` is
//!   missing, the parameter `w` of the policy with the same name in `RateLimit-Policy` is used.
//!   Draft 07 has the form `RateLimit: limit=100, remaining=50, reset=30`;
//! - `RateLimit-Remaining` and `RateLimit-Reset` in seconds (drafts up to 06);
//! - `X-RateLimit-Remaining` and `X-RateLimit-Reset-After` or `X-RateLimit-Reset`, in seconds or as
//!   a Unix timestamp in seconds, milliseconds, microseconds or nanoseconds;
//! - `X-Rate-Limit-Remaining` and `X-Rate-Limit-Reset`, with the same values.
//!
//! Malformed headers are ignored.
//!
//! The `sfv` crate is not used, because it rejects spaces before `;` and integers of more than 15
//! digits. With `sfv`, the tests `all_draft_forms_are_parsed` and `well_formed_item_is_parsed`
//! fail.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{DATE, HeaderMap};

use crate::header_date::header_date;

/// The rate limit that a server announced in a response.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct AnnouncedRateLimit {
    /// The number of requests that are allowed until the reset.
    pub(crate) remaining_requests: u64,
    pub(crate) reset_after: Duration,
}

impl AnnouncedRateLimit {
    /// Parses the announced rate limit, and returns the strictest if there are several. Headers
    /// without a rate limit cost a single scan of the header names.
    pub(super) fn parse_announced_rate_limit(headers: &HeaderMap) -> Option<Self> {
        if !headers
            .keys()
            .any(|name| is_rate_limit_header(name.as_str()))
        {
            return None;
        }
        let pair = |remaining, reset| parse_remaining_and_reset_headers(headers, remaining, reset);
        parse_ratelimit_header(headers)
            .or_else(|| pair("ratelimit-remaining", "ratelimit-reset"))
            .or_else(|| pair("x-ratelimit-remaining", "x-ratelimit-reset-after"))
            .or_else(|| pair("x-ratelimit-remaining", "x-ratelimit-reset"))
            .or_else(|| pair("x-rate-limit-remaining", "x-rate-limit-reset"))
    }

    /// Returns the stricter of two limits: the one with fewer remaining requests or, if these are
    /// equal, the one with the later reset.
    fn stricter_of(self, other: Self) -> Self {
        std::cmp::min_by_key(self, other, |rate_limit| {
            (
                rate_limit.remaining_requests,
                Reverse(rate_limit.reset_after),
            )
        })
    }
}

fn is_rate_limit_header(name: &str) -> bool {
    name.starts_with("ratelimit") || name.starts_with("x-rate")
}

fn parse_remaining_and_reset_headers(
    headers: &HeaderMap,
    remaining: &str,
    reset: &str,
) -> Option<AnnouncedRateLimit> {
    Some(AnnouncedRateLimit {
        remaining_requests: parse_non_negative_number(header_value_as_str(headers, remaining)?)?
            as u64,
        reset_after: delay_until_reset(
            parse_non_negative_number(header_value_as_str(headers, reset)?)?,
            headers,
        )?,
    })
}

/// Reset values below this bound are delays in seconds, because no service has a window of 30
/// years. The other values are Unix timestamps.
const MIN_UNIX_TIMESTAMP_SECONDS: f64 = 1e9;
/// The units of Unix timestamps, each with the number of units per second and an upper bound. A
/// bound is the year 5138 in its own unit, and the year 1973 in the next smaller unit.
const UNIX_TIMESTAMP_UNITS: [(f64, f64); 4] = [(1.0, 1e11), (1e3, 1e14), (1e6, 1e17), (1e9, 1e20)];

/// Returns the time until `reset`, which is a delay in seconds or a Unix timestamp. The magnitude
/// of a timestamp determines its unit. A value too large for any unit is malformed.
fn delay_until_reset(reset: f64, headers: &HeaderMap) -> Option<Duration> {
    if reset < MIN_UNIX_TIMESTAMP_SECONDS {
        return Duration::try_from_secs_f64(reset).ok();
    }
    let (units_per_second, _) = UNIX_TIMESTAMP_UNITS
        .iter()
        .find(|(_, bound)| reset < *bound)?;
    let unix_seconds = reset / units_per_second;
    let reset_at = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(unix_seconds).ok()?)?;
    // The `Date` of the response is preferred to the local clock, which may be wrong.
    let now = header_date(headers, DATE).unwrap_or_else(SystemTime::now);
    Some(reset_at.duration_since(now).unwrap_or_default())
}

fn header_value_as_str<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Parses a non-negative number. Some servers send an integer with a fraction, such as `5.0`.
fn parse_non_negative_number(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

/// Parses the `RateLimit` header, either a list of items or a dictionary.
fn parse_ratelimit_header(headers: &HeaderMap) -> Option<AnnouncedRateLimit> {
    let mut strictest: Option<AnnouncedRateLimit> = None;
    let (mut remaining, mut reset) = (None, None);
    let text = joined_header_values(headers, "ratelimit");
    for member in split_outside_quotes(&text, ',') {
        let mut parts = split_outside_quotes(member, ';');
        let name = parts.next().unwrap_or_default().trim();
        match name.split_once('=').filter(|_| !name.starts_with('"')) {
            Some(("remaining", value)) => remaining = parse_non_negative_number(value),
            Some(("reset", value)) => reset = parse_non_negative_number(value),
            Some(_) => {}
            None => {
                let item = parse_ratelimit_list_item(headers, name, parts);
                strictest = match (strictest, item) {
                    (Some(limit), Some(item)) => Some(limit.stricter_of(item)),
                    (limit, item) => limit.or(item),
                };
            }
        }
    }
    let (Some(remaining), Some(reset)) = (remaining, reset) else {
        return strictest;
    };
    let dictionary = AnnouncedRateLimit {
        remaining_requests: remaining as u64,
        reset_after: delay_until_reset(reset, headers)?,
    };
    Some(strictest.map_or(dictionary, |limit| limit.stricter_of(dictionary)))
}

/// Parses the parameters `r` (remaining) and `t` (seconds until the reset) of one list item.
fn parse_ratelimit_list_item<'a>(
    headers: &HeaderMap,
    name: &str,
    parameters: impl Iterator<Item = &'a str> + Clone,
) -> Option<AnnouncedRateLimit> {
    let remaining = parse_integer_parameter(parameters.clone(), "r")?;
    let reset = parse_integer_parameter(parameters, "t")
        .or_else(|| policy_window_seconds(headers, name))?;
    Some(AnnouncedRateLimit {
        remaining_requests: remaining,
        reset_after: Duration::from_secs(reset),
    })
}

/// Returns the window length, in seconds, of the policy `name` in `RateLimit-Policy`.
fn policy_window_seconds(headers: &HeaderMap, name: &str) -> Option<u64> {
    let text = joined_header_values(headers, "ratelimit-policy");
    split_outside_quotes(&text, ',').find_map(|policy| {
        let mut parts = split_outside_quotes(policy, ';');
        let has_name = parts
            .next()
            .is_some_and(|policy_name| policy_name.trim() == name);
        has_name
            .then(|| parse_integer_parameter(parts, "w"))
            .flatten()
    })
}

/// Returns the values of a list header, joined by commas. Malformed UTF-8 is replaced, because the
/// name of a policy may contain bytes that are not ASCII.
fn joined_header_values(headers: &HeaderMap, name: &str) -> String {
    let values = headers.get_all(name).iter();
    let texts = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
    texts.collect::<Vec<_>>().join(",")
}

fn parse_integer_parameter<'a>(
    mut parameters: impl Iterator<Item = &'a str>,
    name: &str,
) -> Option<u64> {
    parameters.find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        (key.trim() == name).then(|| value.trim().parse().ok())?
    })
}

/// Splits a structured field (RFC 9651) at separators outside its quoted strings.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> + Clone {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |character| {
        let is_escaped = std::mem::take(&mut escaped);
        match character {
            '"' if !is_escaped => quoted = !quoted,
            '\\' if quoted && !is_escaped => escaped = true,
            _ => {}
        }
        character == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn parse(headers: &[(&str, &str)]) -> Option<(u64, u64)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let rate_limit = AnnouncedRateLimit::parse_announced_rate_limit(&map)?;
        Some((
            rate_limit.remaining_requests,
            rate_limit.reset_after.as_secs(),
        ))
    }

    fn parse_one(value: &str) -> Option<(u64, u64)> {
        parse(&[("RateLimit", value)])
    }

    #[test]
    fn all_draft_forms_are_parsed() {
        assert_eq!(parse_one(r#""default";r=50;t=30"#), Some((50, 30)));
        assert_eq!(
            parse_one(r#""a;r=1,b\"";r=50 ; t=30;pk=:cGs=:"#),
            Some((50, 30))
        );
        assert_eq!(parse_one("default;t=30;r=0"), Some((0, 30)));
        assert_eq!(parse_one("\"tarif-\u{e9}tendu\";r=50;t=30"), Some((50, 30)));
        assert_eq!(
            parse_one("limit=100, remaining=50, reset=30"),
            Some((50, 30))
        );
        let older = [
            ("ratelimit-limit", "100, 100;w=60"),
            ("ratelimit-remaining", "7"),
            ("ratelimit-reset", "30"),
        ];
        assert_eq!(parse(&older), Some((7, 30)));
    }

    #[test]
    fn unit_of_a_current_timestamp_is_found_from_its_magnitude() {
        for unix_seconds in [
            1_000_000_000_u64,
            1_700_000_000,
            4_000_000_000,
            99_000_000_000,
        ] {
            let date = UNIX_EPOCH + Duration::from_secs(unix_seconds);
            let date = httpdate::fmt_http_date(date);
            for units_per_second in [1, 1_000, 1_000_000, 1_000_000_000_u64] {
                let reset = u128::from(unix_seconds + 60) * u128::from(units_per_second);
                let reset = reset.to_string();
                let headers = [
                    ("date", &*date),
                    ("x-ratelimit-remaining", "5"),
                    ("x-ratelimit-reset", &reset),
                ];
                let (remaining, seconds) = parse(&headers).unwrap();
                assert_eq!(remaining, 5);
                assert!((59..=60).contains(&seconds), "{reset}: {seconds}");
                let dictionary = format!("limit=9, remaining=5, reset={reset}");
                let headers = [("date", &*date), ("ratelimit", &dictionary)];
                assert_eq!(parse(&headers), Some((remaining, seconds)), "{reset}");
            }
        }
    }

    #[test]
    fn strictest_of_several_limits_counts() {
        assert_eq!(
            parse_one(r#""day";r=900;t=3600, "second";r=5;t=1"#),
            Some((5, 1))
        );
        assert_eq!(parse_one(r#""a";r=0;t=1, "b";r=0;t=60"#), Some((0, 60)));
        let two = [("ratelimit", "a;r=9;t=9"), ("ratelimit", "b;r=3;t=9")];
        assert_eq!(parse(&two), Some((3, 9)));
    }

    #[test]
    fn policy_window_replaces_a_missing_reset() {
        let policies = ("ratelimit-policy", r#""a";q=9;w=1, "b";q=100;w=60"#);
        assert_eq!(
            parse(&[policies, ("ratelimit", r#""b";r=4"#)]),
            Some((4, 60))
        );
        assert_eq!(parse(&[policies, ("ratelimit", r#""c";r=4"#)]), None);
        assert_eq!(parse(&[policies]), None);
    }

    #[test]
    fn common_headers_are_parsed_with_delays_and_timestamps() {
        let date = ("date", "Sun, 09 Sep 2001 01:46:40 GMT");
        for (remaining, reset, value) in [
            ("x-ratelimit-remaining", "x-ratelimit-reset", "90"),
            ("x-ratelimit-remaining", "x-ratelimit-reset", "90.5"),
            ("x-ratelimit-remaining", "x-ratelimit-reset-after", "90.25"),
            ("x-rate-limit-remaining", "x-rate-limit-reset", "1000000090"),
            (
                "X-RateLimit-Remaining",
                "X-RateLimit-Reset",
                "1000000090000",
            ),
            ("x-ratelimit-remaining", "x-ratelimit-reset", "1000000090.5"),
            (
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
                "1000000090000000",
            ),
            (
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
                "1000000090000000000",
            ),
            (
                "x-ratelimit-remaining",
                "x-ratelimit-reset-after",
                "1000000090000000",
            ),
            (
                "x-rate-limit-remaining",
                "x-rate-limit-reset",
                "1.00000009e18",
            ),
            ("ratelimit-remaining", "ratelimit-reset", "1000000090000000"),
        ] {
            let headers = [(remaining, "12.0"), (reset, value), date];
            assert_eq!(parse(&headers), Some((12, 90)), "{reset}: {value}");
        }
        let past = [
            ("x-ratelimit-remaining", "1"),
            ("x-ratelimit-reset", "999999999999"),
        ];
        assert_eq!(
            parse(&[past[0], ("x-ratelimit-reset", "1000000000")]),
            Some((1, 0))
        );
        assert!(parse(&past).is_some());
    }

    #[test]
    fn malformed_headers_are_ignored() {
        for value in [
            "",
            "r=1",
            r#""a";r=x;t=1"#,
            r#""a";r=-1;t=1"#,
            r#""a";t=1"#,
            "a;r=1",
        ] {
            assert_eq!(parse_one(value), None, "{value}");
        }
        for (remaining, reset) in [
            ("", "1"),
            ("-1", "1"),
            ("1", "-1"),
            ("nan", "1"),
            ("1, 2", "1"),
            ("1", "inf"),
            ("1", "1e20"),
            ("1", "99999999999999999999999999"),
            ("1", "soon"),
            ("1", "Sun, 09 Sep 2001 01:46:40 GMT"),
        ] {
            let headers = [
                ("x-ratelimit-remaining", remaining),
                ("x-ratelimit-reset", reset),
            ];
            assert_eq!(parse(&headers), None, "{remaining:?} {reset:?}");
        }
        assert_eq!(parse(&[("x-ratelimit-remaining", "1")]), None);
        assert_eq!(parse(&[("content-type", "text/html")]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_header_values_never_panic(
            list in "[\\\\\"a-z0-9;=, .-]{0,40}",
            policy in "[\"a-c;wq=0-9, ]{0,30}",
            remaining in "[0-9.e+-]{0,30}",
            reset in "[0-9.e+-]{0,30}",
        ) {
            let _ = parse(&[("ratelimit", &list), ("ratelimit-policy", &policy)]);
            let _ = parse(&[("x-ratelimit-remaining", &remaining), ("x-ratelimit-reset", &reset)]);
        }

        #[test]
        fn well_formed_item_is_parsed(
            name in "[ -!#-\\[\\]-~]{0,20}",
            r in 0..u64::MAX,
            t in 0..u64::MAX,
        ) {
            prop_assert_eq!(parse_one(&format!("\"{name}\";r={r};t={t}")), Some((r, t)));
        }
    }
}
