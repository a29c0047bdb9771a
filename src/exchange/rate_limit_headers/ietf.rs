//! Parses the header `RateLimit` of draft-ietf-httpapi-ratelimit-headers.
//!
//! The `sfv` crate is not used, because it rejects spaces before `;` and integers of more than 15
//! digits. With `sfv`, the tests `all_draft_forms_are_parsed` and `well_formed_item_is_parsed`
//! fail.

use std::time::Duration;

use http::header::HeaderMap;

use super::AnnouncedRateLimit;
use super::reset_time::{delay_until_reset, parse_non_negative_number};

/// Parses the `RateLimit` header, either a list of items or a dictionary.
pub(super) fn parse_ratelimit_header(headers: &HeaderMap) -> Option<AnnouncedRateLimit> {
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
    use proptest::prelude::*;

    use super::super::tests::{parse, parse_one};

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

    proptest! {
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
