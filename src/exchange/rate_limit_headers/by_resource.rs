//! Parses the rate-limit headers that name a resource, such as requests or tokens. Each resource
//! has a limit of its own.
//!
//! Two forms are supported:
//!
//! - `x-ratelimit-limit-<resource>`, `x-ratelimit-remaining-<resource>` and
//!   `x-ratelimit-reset-<resource>`, of OpenAI, Azure OpenAI, Groq, Cerebras and others. Azure
//!   OpenAI also spells them `x-rate-limit-…`;
//! - `anthropic-ratelimit-<resource>-limit`, `-remaining` and `-reset`, of Anthropic, and
//!   `anthropic-priority-<resource>-…`, where `priority-` is a part of the name.
//!
//! Only resources with a valid number of remaining units are announced.

use std::time::Duration;

use http::HeaderValue;
use http::header::HeaderMap;

use super::AnnouncedBudget;
use super::reset_time::{parse_count, parse_reset};

/// The name of the resource whose units are requests.
const REQUESTS: &str = "requests";
/// The maximum number of resources in one response. Any others are ignored, because the search for
/// a resource is linear.
const MAX_RESOURCE_COUNT: usize = 32;

/// The headers of one resource.
#[derive(Default)]
struct ResourceHeaders<'a> {
    name: &'a str,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_after: Option<Duration>,
}

/// The part of a limit that a header contains.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum LimitField {
    Limit,
    Remaining,
    Reset,
}

const LIMIT_FIELDS: [(&str, LimitField); 3] = [
    ("limit", LimitField::Limit),
    ("remaining", LimitField::Remaining),
    ("reset", LimitField::Reset),
];

/// Parses the limits of all resources.
pub(super) fn parse_budgets(headers: &HeaderMap) -> Vec<AnnouncedBudget> {
    let mut resources: Vec<ResourceHeaders<'_>> = Vec::new();
    for (header_name, value) in headers {
        let Some((field, name)) = parse_header_name(header_name.as_str()) else {
            continue;
        };
        let position = resources.iter().position(|resource| resource.name == name);
        let index = position.unwrap_or(resources.len());
        if index == MAX_RESOURCE_COUNT {
            continue;
        }
        if position.is_none() {
            resources.push(ResourceHeaders {
                name,
                ..ResourceHeaders::default()
            });
        }
        resources[index].set_field(field, value, headers);
    }
    let announced = resources.into_iter().filter_map(|resource| {
        Some(AnnouncedBudget {
            name: resource.name.into(),
            limit: resource.limit,
            remaining: resource.remaining?,
            reset_after: resource.reset_after,
            counts_requests: resource.name == REQUESTS,
        })
    });
    announced.collect()
}

impl ResourceHeaders<'_> {
    /// Sets the field unless an earlier header has set it.
    fn set_field(&mut self, field: LimitField, value: &HeaderValue, headers: &HeaderMap) {
        match field {
            LimitField::Limit => self.limit = self.limit.or_else(|| parse_count(value)),
            LimitField::Remaining => self.remaining = self.remaining.or_else(|| parse_count(value)),
            LimitField::Reset => {
                self.reset_after = self.reset_after.or_else(|| parse_reset(value, headers));
            }
        }
    }
}

/// Splits the name of a header into a field and the name of a resource.
fn parse_header_name(header_name: &str) -> Option<(LimitField, &str)> {
    let (field, name) = if let Some(rest) = header_name.strip_prefix("anthropic-") {
        let rest = rest.strip_prefix("ratelimit-").unwrap_or(rest);
        let (name, field) = rest.rsplit_once('-')?;
        (field, name)
    } else {
        let rest = header_name
            .strip_prefix("x-ratelimit-")
            .or_else(|| header_name.strip_prefix("x-rate-limit-"))?;
        rest.split_once('-')?
    };
    let (_, field) = LIMIT_FIELDS.iter().find(|(text, _)| *text == field)?;
    (!name.is_empty()).then_some((*field, name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::header_map;
    use super::*;

    /// An announced budget with the reset in milliseconds.
    type Announced<'a> = (&'a str, Option<u64>, u64, Option<u64>);

    fn assert_announced(headers: &[(&str, &str)], mut expected: Vec<Announced<'_>>) {
        let budgets = parse_budgets(&header_map(headers));
        let mut actual: Vec<Announced<'_>> = budgets
            .iter()
            .map(|budget| {
                let reset_millis = budget.reset_after.map(|reset| reset.as_millis() as u64);
                (&*budget.name, budget.limit, budget.remaining, reset_millis)
            })
            .collect();
        actual.sort_unstable();
        expected.sort_unstable();
        assert_eq!(actual, expected);
        for budget in &budgets {
            assert_eq!(budget.counts_requests, &*budget.name == "requests");
        }
    }

    /// OpenAI, guide "Rate limits", table of header fields: the sample values.
    #[test]
    fn headers_of_openai_are_parsed() {
        assert_announced(
            &[
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-limit-tokens", "150000"),
                ("x-ratelimit-remaining-requests", "59"),
                ("x-ratelimit-remaining-tokens", "149984"),
                ("x-ratelimit-reset-requests", "1s"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
            vec![
                ("requests", Some(60), 59, Some(1_000)),
                ("tokens", Some(150_000), 149_984, Some(360_000)),
            ],
        );
    }

    /// OpenAI community, "How to get rate limit reset time for response API?": a response with a
    /// third resource.
    #[test]
    fn resource_with_any_name_is_parsed() {
        assert_announced(
            &[
                ("x-ratelimit-limit-requests", "5000"),
                ("x-ratelimit-limit-tokens", "160000"),
                ("x-ratelimit-limit-tokens_usage_based", "160000"),
                ("x-ratelimit-remaining-requests", "4999"),
                ("x-ratelimit-remaining-tokens", "159976"),
                ("x-ratelimit-remaining-tokens_usage_based", "159976"),
                ("x-ratelimit-reset-requests", "12ms"),
                ("x-ratelimit-reset-tokens", "9ms"),
                ("x-ratelimit-reset-tokens_usage_based", "9ms"),
            ],
            vec![
                ("requests", Some(5_000), 4_999, Some(12)),
                ("tokens", Some(160_000), 159_976, Some(9)),
                ("tokens_usage_based", Some(160_000), 159_976, Some(9)),
            ],
        );
    }

    /// GroqDocs, "Rate Limits", section "Rate Limit Headers".
    #[test]
    fn headers_of_groq_are_parsed() {
        assert_announced(
            &[
                ("retry-after", "2"),
                ("x-ratelimit-limit-requests", "14400"),
                ("x-ratelimit-limit-tokens", "18000"),
                ("x-ratelimit-remaining-requests", "14370"),
                ("x-ratelimit-remaining-tokens", "17997"),
                ("x-ratelimit-reset-requests", "2m59.56s"),
                ("x-ratelimit-reset-tokens", "7.66s"),
            ],
            vec![
                ("requests", Some(14_400), 14_370, Some(179_560)),
                ("tokens", Some(18_000), 17_997, Some(7_660)),
            ],
        );
    }

    /// DigitalOcean, "Quota-Specific Response Headers For Serverless Inference": three resources,
    /// with resets as Unix timestamps.
    #[test]
    fn resets_as_timestamps_are_parsed() {
        assert_announced(
            &[
                ("date", "Sun, 09 Sep 2001 01:46:40 GMT"),
                ("x-ratelimit-limit-requests", "120"),
                ("x-ratelimit-remaining-requests", "119"),
                ("x-ratelimit-reset-requests", "1000000001"),
                ("x-ratelimit-limit-tokens-per-minute", "10000"),
                ("x-ratelimit-remaining-tokens-per-minute", "0"),
                ("x-ratelimit-reset-tokens-per-minute", "1000000030"),
                ("x-ratelimit-remaining-tokens-per-day", "900000"),
            ],
            vec![
                ("requests", Some(120), 119, Some(1_000)),
                ("tokens-per-minute", Some(10_000), 0, Some(30_000)),
                ("tokens-per-day", None, 900_000, None),
            ],
        );
    }

    /// Cerebras Inference Docs, "Rate Limits": the reset in seconds with a fraction.
    #[test]
    fn resets_in_seconds_are_parsed() {
        assert_announced(
            &[
                ("x-ratelimit-limit-requests-day", "1000000000"),
                ("x-ratelimit-remaining-requests-day", "999997455"),
                ("x-ratelimit-reset-requests-day", "33011.382867"),
                ("x-ratelimit-limit-tokens-minute", "1000000000"),
                ("x-ratelimit-remaining-tokens-minute", "999998298"),
                ("x-ratelimit-reset-tokens-minute", "11.382867"),
            ],
            vec![
                (
                    "requests-day",
                    Some(1_000_000_000),
                    999_997_455,
                    Some(33_011_382),
                ),
                (
                    "tokens-minute",
                    Some(1_000_000_000),
                    999_998_298,
                    Some(11_382),
                ),
            ],
        );
    }

    /// Anthropic, "Rate limits", section "Response headers": RFC 3339 times. The values are those
    /// of a response in the tests of tidyllm, with other offsets and a fraction.
    #[test]
    fn headers_of_anthropic_are_parsed() {
        assert_announced(
            &[
                ("date", "Thu, 21 Aug 2025 12:41:00 GMT"),
                ("anthropic-ratelimit-input-tokens-limit", "80000"),
                ("anthropic-ratelimit-input-tokens-remaining", "79000"),
                (
                    "anthropic-ratelimit-input-tokens-reset",
                    "2025-08-21T12:41:02Z",
                ),
                ("anthropic-ratelimit-output-tokens-limit", "16000"),
                ("anthropic-ratelimit-output-tokens-remaining", "0"),
                (
                    "anthropic-ratelimit-output-tokens-reset",
                    "2025-08-21T14:41:30.5+02:00",
                ),
                ("anthropic-ratelimit-requests-limit", "1000"),
                ("anthropic-ratelimit-requests-remaining", "999"),
                ("anthropic-ratelimit-requests-reset", "2025-08-21T12:40:59Z"),
                ("anthropic-ratelimit-tokens-limit", "96000"),
                ("anthropic-ratelimit-tokens-remaining", "96000"),
                (
                    "anthropic-ratelimit-tokens-reset",
                    "2025-08-21T07:42:00-05:00",
                ),
                ("anthropic-priority-input-tokens-limit", "10000"),
                ("anthropic-priority-input-tokens-remaining", "9618"),
                (
                    "anthropic-organization-id",
                    "36562039-1ae4-48e6-ae28-1e517e3d2d12",
                ),
            ],
            vec![
                ("requests", Some(1_000), 999, Some(0)),
                ("tokens", Some(96_000), 96_000, Some(60_000)),
                ("input-tokens", Some(80_000), 79_000, Some(2_000)),
                ("output-tokens", Some(16_000), 0, Some(30_500)),
                ("priority-input-tokens", Some(10_000), 9_618, None),
            ],
        );
    }

    /// openai-dotnet issue 838: Azure OpenAI with `-1` for a limit that does not exist.
    /// openai-python issue 937: Azure OpenAI with another spelling of the reset.
    #[test]
    fn oddities_of_azure_are_handled() {
        assert_announced(
            &[
                ("x-ratelimit-limit-tokens", "-1"),
                ("x-ratelimit-remaining-tokens", "-1"),
                ("x-ratelimit-reset-tokens", "0"),
                ("x-ratelimit-remaining-requests", "79"),
            ],
            vec![("requests", None, 79, None)],
        );
        assert_announced(
            &[
                ("x-rate-limit-reset-tokens", "55"),
                ("x-ratelimit-remaining-tokens", "0"),
            ],
            vec![("tokens", None, 0, Some(55_000))],
        );
    }

    #[test]
    fn malformed_headers_are_ignored() {
        for remaining in ["", "-1", "unlimited", "nan", "inf", "1, 2", "5s", "\u{661}"] {
            assert_announced(&[("x-ratelimit-remaining-tokens", remaining)], vec![]);
        }
        for (limit, reset) in [("-1", "-1"), ("", ""), ("many", "soon"), ("inf", "-5s")] {
            assert_announced(
                &[
                    ("x-ratelimit-limit-tokens", limit),
                    ("x-ratelimit-remaining-tokens", "5"),
                    ("x-ratelimit-reset-tokens", reset),
                ],
                vec![("tokens", None, 5, None)],
            );
        }
        for name in [
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-remaining-",
            "x-ratelimit-used",
            "x-ratelimit-reset-after",
            "x-ratelimit-over-limit",
            "ratelimit-remaining-tokens",
            "anthropic-ratelimit-remaining",
            "anthropic-remaining",
            "anthropic-ratelimit-unified-5h-utilization",
            "x-remaining-tokens",
        ] {
            assert_announced(&[(name, "5")], vec![]);
        }
    }

    #[test]
    fn first_valid_header_of_a_resource_counts() {
        assert_announced(
            &[
                ("x-ratelimit-remaining-tokens", "-1"),
                ("x-ratelimit-remaining-tokens", "7"),
                ("x-ratelimit-remaining-tokens", "9"),
            ],
            vec![("tokens", None, 7, None)],
        );
    }

    #[test]
    fn number_of_resources_is_limited() {
        let names: Vec<String> = (0..100)
            .map(|index| format!("x-ratelimit-remaining-r{index}"))
            .collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "1")).collect();
        assert_eq!(
            parse_budgets(&header_map(&headers)).len(),
            MAX_RESOURCE_COUNT
        );
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(
            suffix in "[a-z_-]{0,12}",
            limit in "[0-9.e+-]{0,25}",
            remaining in "[0-9.e+-]{0,25}",
            reset in "[0-9.hmnsuTZ:+-]{0,30}",
        ) {
            for (prefix, infix) in [("x-ratelimit-", ""), ("anthropic-ratelimit-", "-")] {
                let name = |field: &str| {
                    if infix.is_empty() {
                        format!("{prefix}{field}-{suffix}")
                    } else {
                        format!("{prefix}{suffix}{infix}{field}")
                    }
                };
                let names = [name("limit"), name("remaining"), name("reset")];
                let values = [&limit, &remaining, &reset];
                let headers: Vec<(&str, &str)> =
                    names.iter().zip(values).map(|(name, value)| (&**name, &**value)).collect();
                let budgets = parse_budgets(&header_map(&headers));
                prop_assert!(budgets.len() <= 1);
                if let [budget] = &*budgets {
                    prop_assert_eq!(&*budget.name, suffix.as_str());
                }
            }
        }
    }
}
