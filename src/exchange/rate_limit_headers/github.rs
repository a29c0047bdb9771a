//! The rules of GitHub's REST API, from the page "Rate limits for the REST API" of its
//! documentation.
//!
//! - `x-ratelimit-resource` names the resource that the other `x-ratelimit-` headers describe.
//! - A refused request has status 403 or 429. If `x-ratelimit-remaining` is 0, the request may be
//!   sent again after the reset. After a secondary limit, it may be sent again after `Retry-After`
//!   or, without such a header, after a minute at least.
//!
//! A header that requests a delay after a 403 is obeyed from any server. The other rules apply to
//! GitHub only: most servers send a 403 to refuse access. Every 403 of GitHub has GitHub's own
//! headers, so the body tells whether the reason is a secondary limit.

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderMap;

use super::reset_time::{header_text, parse_count};
use super::{AnnouncedBudget, parse_remaining_and_reset_headers};
use crate::response::Response;

/// The delay after a secondary limit without a header that requests a delay.
const MIN_SECONDARY_LIMIT_DELAY: Duration = Duration::from_secs(60);
/// The length of the part of a body that is searched for the error message.
const MAX_SEARCHED_BODY_LENGTH: usize = 4096;

/// Parses the limit of the resource in `x-ratelimit-resource`.
pub(super) fn parse_resource_budget(headers: &HeaderMap) -> Option<AnnouncedBudget> {
    let name = header_text(headers.get("x-ratelimit-resource")?)?;
    let announced =
        parse_remaining_and_reset_headers(headers, "x-ratelimit-remaining", "x-ratelimit-reset")?;
    (!name.is_empty()).then(|| AnnouncedBudget {
        name: name.into(),
        limit: headers.get("x-ratelimit-limit").and_then(parse_count),
        remaining: announced.remaining_requests,
        reset_after: Some(announced.reset_after),
        counts_requests: true,
    })
}

/// Returns the delay after which a request is accepted that was refused because of a rate limit.
/// `None` if the request was refused for another reason, or if the status and `Retry-After` say
/// everything.
pub(crate) fn delay_of_rate_limited_request(response: &Response) -> Option<Duration> {
    let status = response.status();
    let is_forbidden = status == StatusCode::FORBIDDEN;
    if !is_forbidden && status != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let is_from_github = response
        .first_value_of_header("x-github-request-id")
        .is_some();
    if !is_forbidden && !is_from_github {
        return None;
    }
    let has_secondary_limit =
        || is_from_github && (!is_forbidden || mentions_secondary_limit(response.bytes()));
    response
        .retry_after()
        .or_else(|| delay_until_reset_of_used_up_limit(response.headers()))
        .or_else(|| has_secondary_limit().then_some(MIN_SECONDARY_LIMIT_DELAY))
}

fn delay_until_reset_of_used_up_limit(headers: &HeaderMap) -> Option<Duration> {
    let announced =
        parse_remaining_and_reset_headers(headers, "x-ratelimit-remaining", "x-ratelimit-reset")?;
    (announced.remaining_requests == 0).then_some(announced.reset_after)
}

/// Whether the error message of GitHub names a secondary rate limit.
fn mentions_secondary_limit(body: &[u8]) -> bool {
    let searched = &body[..body.len().min(MAX_SEARCHED_BODY_LENGTH)];
    let text = String::from_utf8_lossy(searched).to_ascii_lowercase();
    text.contains("secondary rate limit")
}

#[cfg(test)]
mod tests {
    use super::super::tests::header_map;
    use super::*;

    const DATE: (&str, &str) = ("date", "Mon, 13 Jun 2022 11:48:53 GMT");
    const GITHUB: (&str, &str) = ("x-github-request-id", "A1B2:3C4D");
    const SECONDARY: &str =
        r#"{"message":"You have exceeded a secondary rate limit. Please wait"}"#;

    fn delay_secs(status: u16, headers: &[(&str, &str)], body: &'static str) -> Option<u64> {
        let mut response = http::Response::builder().status(status);
        *response.headers_mut().unwrap() = header_map(headers);
        let response = Response::from(response.body(body.into()).unwrap());
        delay_of_rate_limited_request(&response).map(|delay| delay.as_secs())
    }

    /// KnpLabs/php-github-api pull request 1072: the headers of a response of GitHub's search.
    #[test]
    fn limit_of_a_resource_is_parsed() {
        let headers = header_map(&[
            DATE,
            ("x-ratelimit-limit", "30"),
            ("x-ratelimit-remaining", "14"),
            ("x-ratelimit-reset", "1655120964"),
            ("x-ratelimit-used", "16"),
            ("x-ratelimit-resource", "search"),
        ]);
        let expected = AnnouncedBudget {
            name: "search".into(),
            limit: Some(30),
            remaining: 14,
            reset_after: Some(Duration::from_secs(31)),
            counts_requests: true,
        };
        assert_eq!(parse_resource_budget(&headers), Some(expected));
        let without_numbers = header_map(&[("x-ratelimit-resource", "core")]);
        assert_eq!(parse_resource_budget(&without_numbers), None);
    }

    /// GitHub Docs, "Rate limits for the REST API", section "Exceeding the rate limit".
    #[test]
    fn delay_of_a_refused_request_follows_the_documentation() {
        let used_up = [
            DATE,
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1655120964"),
        ];
        let reset = ("x-ratelimit-reset", "1655120964");
        let left = ("x-ratelimit-remaining", "14");
        let after = ("retry-after", "7");
        for (row, status, headers, body, expected) in [
            ("primary", 403, &used_up[..], "", Some(31)),
            ("primary, 404", 404, &used_up, "", None),
            (
                "primary, 429 of GitHub",
                429,
                &[GITHUB, used_up[0], used_up[1], reset],
                "",
                Some(31),
            ),
            ("primary, 429 of another server", 429, &used_up, "", None),
            ("Retry-After", 403, &[after], "", Some(7)),
            (
                "Retry-After precedes",
                403,
                &[after, used_up[1], reset],
                "",
                Some(7),
            ),
            (
                "secondary without a hint",
                403,
                &[GITHUB],
                SECONDARY,
                Some(60),
            ),
            (
                "secondary with requests left",
                403,
                &[GITHUB, DATE, left, reset],
                SECONDARY,
                Some(60),
            ),
            ("secondary, 429", 429, &[GITHUB], "", Some(60)),
            (
                "no access",
                403,
                &[GITHUB, DATE, left, reset],
                "Must have admin rights",
                None,
            ),
            ("another server", 403, &[], SECONDARY, None),
            ("another server, 429", 429, &[after], SECONDARY, None),
            ("without a reset", 403, &[used_up[1]], "", None),
            (
                "malformed",
                403,
                &[("x-ratelimit-remaining", "-1"), reset],
                "",
                None,
            ),
        ] {
            assert_eq!(delay_secs(status, headers, body), expected, "{row}");
        }
    }
}
