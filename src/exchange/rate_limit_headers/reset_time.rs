//! Parses the numbers of rate-limit headers, and the reset: the time until the server resets its
//! counter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use http::header::{DATE, HeaderMap};

use super::go_duration::parse_go_duration;
use super::rfc3339::parse_rfc3339;
use crate::header_date::header_date;

/// Reset values below this bound are delays in seconds, because no service has a window of 30
/// years. The other values are Unix timestamps.
const MIN_UNIX_TIMESTAMP_SECONDS: f64 = 1e9;
/// The units of Unix timestamps, each with the number of units per second and an upper bound. A
/// bound is the year 5138 in its own unit, and the year 1973 in the next smaller unit.
const UNIX_TIMESTAMP_UNITS: [(f64, f64); 4] = [(1.0, 1e11), (1e3, 1e14), (1e6, 1e17), (1e9, 1e20)];

/// Parses a reset: a number, as in [`delay_until_reset`], a Go duration or an RFC 3339 time.
pub(super) fn parse_reset(value: &HeaderValue, headers: &HeaderMap) -> Option<Duration> {
    let text = header_text(value)?;
    if let Some(number) = parse_non_negative_number(text) {
        return delay_until_reset(number, headers);
    }
    parse_go_duration(text).or_else(|| Some(delay_until(parse_rfc3339(text)?, headers)))
}

/// Returns the time until `reset`, which is a delay in seconds or a Unix timestamp. The magnitude
/// of a timestamp determines its unit. A value too large for any unit is malformed.
pub(super) fn delay_until_reset(reset: f64, headers: &HeaderMap) -> Option<Duration> {
    if reset < MIN_UNIX_TIMESTAMP_SECONDS {
        return Duration::try_from_secs_f64(reset).ok();
    }
    let (units_per_second, _) = UNIX_TIMESTAMP_UNITS
        .iter()
        .find(|(_, bound)| reset < *bound)?;
    let unix_seconds = reset / units_per_second;
    let reset_at = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(unix_seconds).ok()?)?;
    Some(delay_until(reset_at, headers))
}

fn delay_until(reset_at: SystemTime, headers: &HeaderMap) -> Duration {
    // The `Date` of the response is preferred to the local clock, which may be wrong.
    let now = header_date(headers, DATE).unwrap_or_else(SystemTime::now);
    reset_at.duration_since(now).unwrap_or_default()
}

/// Parses a count of units. Azure sends `-1` for a count that does not exist.
pub(super) fn parse_count(value: &HeaderValue) -> Option<u64> {
    Some(parse_non_negative_number(header_text(value)?)? as u64)
}

/// Parses a non-negative number. Some servers send an integer with a fraction, such as `5.0`.
pub(super) fn parse_non_negative_number(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

/// Returns the value as text. Go durations contain `µ` in UTF-8.
pub(super) fn header_text(value: &HeaderValue) -> Option<&str> {
    Some(std::str::from_utf8(value.as_bytes()).ok()?.trim())
}
