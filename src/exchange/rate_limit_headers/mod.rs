//! Parses the rate limits that a server announces in its response headers: the remaining number of
//! requests or other units, and the time until the server resets that number.
//!
//! A limit of all requests to a host has one of four forms. If a response has several forms, the
//! first in this list counts:
//!
//! - `RateLimit: "default";r=50;t=30` (draft-ietf-httpapi-ratelimit-headers from 08 on). If `t` is
//!   missing, the parameter `w` of the policy with the same name in `RateLimit-Policy` is used.
//!   Draft 07 has the form `RateLimit: limit=100, remaining=50, reset=30`;
//! - `RateLimit-Remaining` and `RateLimit-Reset` in seconds (drafts up to 06);
//! - `X-RateLimit-Remaining` and `X-RateLimit-Reset-After` or `X-RateLimit-Reset`, in seconds, as a
//!   Unix timestamp in seconds, milliseconds, microseconds or nanoseconds, as a Go duration, or as
//!   an RFC 3339 time;
//! - `X-Rate-Limit-Remaining` and `X-Rate-Limit-Reset`, with the same values.
//!
//! [`by_resource`] and [`github`] describe the forms with a name.
//!
//! Malformed headers are ignored.

mod by_resource;
mod github;
mod go_duration;
mod ietf;
mod reset_time;
mod rfc3339;

use std::cmp::Reverse;
use std::time::Duration;

use http::header::HeaderMap;

pub(crate) use github::delay_of_rate_limited_request;

use reset_time::{parse_count, parse_reset};

/// The rate limits that a server announced in a response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AnnouncedLimits {
    /// The limit of all requests to the host.
    host_limit: Option<AnnouncedRateLimit>,
    /// The limits with a name.
    budgets: Vec<AnnouncedBudget>,
}

/// The limit of all requests to a host.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct AnnouncedRateLimit {
    /// The number of requests that are allowed until the reset.
    pub(crate) remaining_requests: u64,
    pub(crate) reset_after: Duration,
}

/// A limit with a name, which lowers the budget of this name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AnnouncedBudget {
    pub(crate) name: Box<str>,
    pub(crate) limit: Option<u64>,
    /// The number of units that are allowed until the reset.
    pub(crate) remaining: u64,
    pub(crate) reset_after: Option<Duration>,
    /// Whether the units are requests. Such a limit applies to the host if the host has no budget
    /// of this name.
    counts_requests: bool,
}

impl AnnouncedLimits {
    /// Parses the announced limits. Headers without a rate limit cost a single scan of the header
    /// names. The limits are boxed, because few responses have any.
    #[inline]
    pub(super) fn parse_announced_limits(headers: &HeaderMap) -> Option<Box<Self>> {
        headers
            .keys()
            .any(|name| is_rate_limit_header(name.as_str()))
            .then(|| Box::new(Self::parse_rate_limit_headers(headers)))
    }

    #[inline(never)]
    fn parse_rate_limit_headers(headers: &HeaderMap) -> Self {
        let mut budgets = by_resource::parse_budgets(headers);
        let resource_budget = github::parse_resource_budget(headers);
        let host_limit = if resource_budget.is_some() {
            None
        } else {
            AnnouncedRateLimit::parse_announced_rate_limit(headers)
        };
        budgets.extend(resource_budget);
        Self {
            host_limit,
            budgets,
        }
    }

    /// Calls `lower_budget` for each limit with a name, and returns the limit of the host.
    /// `lower_budget` returns false if the host has no budget of this name. A limit of requests
    /// then becomes a limit of the host.
    pub(crate) fn host_limit_after_lowering(
        &self,
        mut lower_budget: impl FnMut(&AnnouncedBudget) -> bool,
    ) -> Option<AnnouncedRateLimit> {
        let mut host_limit = self.host_limit;
        for budget in &self.budgets {
            if !lower_budget(budget)
                && let Some(of_requests) = budget.as_host_limit()
            {
                host_limit =
                    Some(host_limit.map_or(of_requests, |limit| limit.stricter_of(of_requests)));
            }
        }
        host_limit
    }
}

impl AnnouncedBudget {
    fn as_host_limit(&self) -> Option<AnnouncedRateLimit> {
        let reset_after = self.reset_after.filter(|_| self.counts_requests)?;
        Some(AnnouncedRateLimit {
            remaining_requests: self.remaining,
            reset_after,
        })
    }
}

impl AnnouncedRateLimit {
    /// Parses the limit of all requests to the host, and returns the strictest if there are
    /// several.
    fn parse_announced_rate_limit(headers: &HeaderMap) -> Option<Self> {
        let pair = |remaining, reset| parse_remaining_and_reset_headers(headers, remaining, reset);
        ietf::parse_ratelimit_header(headers)
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
    name.starts_with("ratelimit") || name.starts_with("x-rate") || name.starts_with("anthropic-")
}

fn parse_remaining_and_reset_headers(
    headers: &HeaderMap,
    remaining: &str,
    reset: &str,
) -> Option<AnnouncedRateLimit> {
    Some(AnnouncedRateLimit {
        remaining_requests: parse_count(headers.get(remaining)?)?,
        reset_after: parse_reset(headers.get(reset)?, headers)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    pub(super) fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    pub(super) fn parse(headers: &[(&str, &str)]) -> Option<(u64, u64)> {
        let limits = AnnouncedLimits::parse_announced_limits(&header_map(headers))?;
        let rate_limit = limits.host_limit?;
        Some((
            rate_limit.remaining_requests,
            rate_limit.reset_after.as_secs(),
        ))
    }

    pub(super) fn parse_one(value: &str) -> Option<(u64, u64)> {
        parse(&[("RateLimit", value)])
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

    }

    #[test]
    fn reset_may_be_a_go_duration_or_an_rfc_3339_time() {
        for (reset, seconds) in [
            ("1m30s", 90),
            ("90000ms", 90),
            ("90000000\u{b5}s", 90),
            ("2001-09-09T01:48:10Z", 90),
            ("2001-09-09T03:48:10+02:00", 90),
            ("2001-09-09T01:46:39Z", 0),
        ] {
            let headers = [
                ("date", "Sun, 09 Sep 2001 01:46:40 GMT"),
                ("x-ratelimit-remaining", "1"),
                ("x-ratelimit-reset", reset),
            ];
            assert_eq!(parse(&headers), Some((1, seconds)), "{reset}");
        }
    }

    fn host_limit_unless_lowered(headers: &[(&str, &str)], lowered: &str) -> Option<(u64, u64)> {
        let limits = AnnouncedLimits::parse_announced_limits(&header_map(headers))?;
        let host_limit = limits.host_limit_after_lowering(|budget| &*budget.name == lowered)?;
        Some((
            host_limit.remaining_requests,
            host_limit.reset_after.as_secs(),
        ))
    }

    #[test]
    fn limit_of_requests_without_a_budget_applies_to_the_host() {
        let openai = [
            ("x-ratelimit-remaining-requests", "5"),
            ("x-ratelimit-reset-requests", "20s"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ];
        assert_eq!(host_limit_unless_lowered(&openai, "tokens"), Some((5, 20)));
        assert_eq!(host_limit_unless_lowered(&openai, "none"), Some((5, 20)));
        assert_eq!(host_limit_unless_lowered(&openai, "requests"), None);
        let without_reset = [openai[0]];
        assert_eq!(host_limit_unless_lowered(&without_reset, "none"), None);
        let github = [
            ("x-ratelimit-remaining", "9"),
            ("x-ratelimit-reset", "30"),
            ("x-ratelimit-resource", "core"),
        ];
        assert_eq!(host_limit_unless_lowered(&github, "search"), Some((9, 30)));
        assert_eq!(host_limit_unless_lowered(&github, "core"), None);
    }

    #[test]
    fn stricter_of_the_limits_of_host_and_requests_counts() {
        let remaining = ("x-ratelimit-remaining", "3");
        let both = [
            remaining,
            ("x-ratelimit-reset", "30"),
            ("x-ratelimit-remaining-requests", "2"),
            ("x-ratelimit-reset-requests", "9s"),
        ];
        assert_eq!(host_limit_unless_lowered(&both, "none"), Some((2, 9)));
        assert_eq!(host_limit_unless_lowered(&both, "requests"), Some((3, 30)));
    }

    #[test]
    fn limits_of_ietf_headers_and_resources_are_all_announced() {
        let limits = AnnouncedLimits::parse_announced_limits(&header_map(&[
            ("ratelimit", r#""default";r=50;t=30"#),
            ("anthropic-ratelimit-tokens-remaining", "7"),
            ("x-ratelimit-remaining-images", "8"),
        ]));
        let limits = limits.unwrap();
        assert!(limits.host_limit.is_some());
        assert_eq!(limits.budgets.len(), 2);
        let none = AnnouncedLimits::parse_announced_limits(&header_map(&[("x-a", "1")]));
        assert_eq!(none, None);
    }
}
