//! Reads from the outcome of a request whether and when a retry is useful.

use std::time::Duration;

use http::StatusCode;

use crate::error::Error;
use crate::exchange::delay_of_rate_limited_request;
use crate::response::Response;

/// The properties of an outcome on which a retry decision depends.
pub(super) struct RetrySignals {
    /// Whether a later attempt may succeed.
    pub(super) is_transient: bool,
    /// Whether the server is overloaded.
    pub(super) is_overloaded: bool,
    /// Whether the server refused to process the request for now: status 429, 503 with
    /// `Retry-After`, or 403 because of a rate limit.
    pub(super) is_throttled: bool,
    /// Whether the server did not process the request, so that sending it again is safe for any
    /// method: the request was throttled, or the status is 425 (RFC 8470 §5.2).
    pub(super) is_unprocessed: bool,
    /// The delay in the response's `retry-after-ms` or `Retry-After`, or the delay that another
    /// header requests after a request that was refused because of a rate limit.
    pub(super) retry_after: Option<Duration>,
    /// Whether the server says that the request should be sent again. `None` if it says nothing.
    pub(super) server_retry_decision: Option<bool>,
}

impl RetrySignals {
    /// If `respect_rate_limit_headers` is false, a 403 is never a sign of a rate limit.
    pub(super) fn from_outcome(
        outcome: &Result<Response, Error>,
        respect_rate_limit_headers: bool,
    ) -> Self {
        let response = match outcome {
            Ok(response) => response,
            Err(error) => {
                return Self {
                    is_transient: error.kind().is_transient(),
                    is_overloaded: false,
                    is_throttled: false,
                    is_unprocessed: false,
                    retry_after: None,
                    server_retry_decision: None,
                };
            }
        };
        let status = response.status();
        let server_retry_decision = parse_x_should_retry(response);
        let rate_limit_delay = if respect_rate_limit_headers {
            delay_of_rate_limited_request(response)
        } else {
            None
        };
        let retry_after =
            if status_respects_retry_after(status) || server_retry_decision == Some(true) {
                response.retry_after()
            } else {
                None
            };
        let retry_after = retry_after.or(rate_limit_delay);
        let is_throttled = match status {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::SERVICE_UNAVAILABLE => retry_after.is_some(),
            _ => rate_limit_delay.is_some(),
        };
        Self {
            is_transient: is_transient_status(status) || is_throttled,
            is_overloaded: is_overload_status(status) || is_throttled,
            is_throttled,
            is_unprocessed: is_throttled || status == StatusCode::TOO_EARLY,
            retry_after,
            server_retry_decision,
        }
    }
}

/// Parses `x-should-retry: true` or `false`, which the servers of OpenAI and Anthropic send. The
/// header of a successful response is ignored.
fn parse_x_should_retry(response: &Response) -> Option<bool> {
    if response.status().is_success() {
        return None;
    }
    let value = response.first_value_of_header("x-should-retry")?;
    let is_value = |expected: &[u8]| value.trim_ascii().eq_ignore_ascii_case(expected);
    if is_value(b"true") {
        Some(true)
    } else if is_value(b"false") {
        Some(false)
    } else {
        None
    }
}

fn is_transient_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Whether a status says that the server is overloaded.
pub(crate) fn is_overload_status(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Whether `Retry-After` in a response with this status delays a retry (RFC 9110 §10.2.3, RFC 6585
/// §4). In a redirect, `Retry-After` delays the redirect instead.
fn status_respects_retry_after(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}
