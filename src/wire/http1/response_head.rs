//! Checks response heads beyond the checks of hyper.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::response::Parts;
use http::{StatusCode, Version};

use crate::wire::response_limits::FIELD_OVERHEAD_BYTES;

/// An idle connection is closed this long before the server would close it.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(2);
const KEEP_ALIVE_HEADER: HeaderName = HeaderName::from_static("keep-alive");
const NOT_CHUNKED_MESSAGE: &str = "a Transfer-Encoding other than chunked";

/// The size of a head in bytes, calculated as in HTTP/2 (RFC 9113 §6.5.2).
pub(super) fn head_size(head: &Parts) -> usize {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_OVERHEAD_BYTES
    };
    head.headers.iter().map(field).sum()
}

/// Rejects a response head if the length of its body is ambiguous (RFC 9112 §6.3) or if the server
/// switches protocols. hyper accepts such heads. Returns the value of the `Keep-Alive` header.
pub(super) fn validate_head(head: &Parts) -> Result<Option<&HeaderValue>, &'static str> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("the server switched protocols without a request to do so");
    }
    let (mut length, mut encoding, mut keep_alive) = (None, None, None);
    // One loop over all headers costs less than a lookup for each name, because most heads have few
    // headers.
    for (name, value) in &head.headers {
        if *name == CONTENT_LENGTH {
            // hyper makes this check only for responses that can have a body, which excludes HEAD,
            // 204 and 304.
            length = Some(single_content_length(length, value)?);
        } else if *name == TRANSFER_ENCODING {
            if encoding.replace(value).is_some() {
                return Err(NOT_CHUNKED_MESSAGE);
            }
        } else if *name == KEEP_ALIVE_HEADER {
            keep_alive = keep_alive.or(Some(value));
        }
    }
    if let Some(encoding) = encoding {
        if head.version == Version::HTTP_10 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if length.is_some() {
            return Err("both Transfer-Encoding and Content-Length");
        }
        if !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(NOT_CHUNKED_MESSAGE);
        }
    }
    Ok(keep_alive)
}

/// Returns the content length in `value`, which may be a comma-separated list of equal lengths. The
/// length must also equal `previous`, the length of earlier `Content-Length` fields.
fn single_content_length<'a>(
    previous: Option<&'a [u8]>,
    value: &'a HeaderValue,
) -> Result<&'a [u8], &'static str> {
    let mut lengths = value
        .as_bytes()
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii);
    let first = previous.or_else(|| lengths.next()).unwrap_or_default();
    let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    if is_number && lengths.all(|length| length == first) {
        Ok(first)
    } else {
        Err("an invalid or ambiguous Content-Length")
    }
}

/// Returns how long a connection may stay idle: `max`, or less if the `Keep-Alive` header announces
/// that the server closes the connection sooner.
pub(super) fn negotiated_idle_timeout(keep_alive: Option<&HeaderValue>, max: Duration) -> Duration {
    let Some(value) = keep_alive else {
        return max;
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let mut parameters = text.split(',').filter_map(|part| part.split_once('='));
    let timeout = parameters
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .and_then(|(_, seconds)| seconds.trim().parse().ok());
    match timeout.map(Duration::from_secs) {
        // At least half of the server's timeout is used, because the margin can be longer than the
        // timeout.
        Some(timeout) => max.min(timeout.saturating_sub(KEEP_ALIVE_MARGIN).max(timeout / 2)),
        None => max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_timeout_ends_before_the_server_closes() {
        let max = Duration::from_secs(15);
        for (keep_alive, expected) in [
            ("timeout=5", 3_000),
            ("max=9, Timeout=1", 500),
            ("timeout = 4", 2_000),
            ("timeout=0", 0),
            ("timeout=60", 15_000),
            ("timeout=x", 15_000),
            ("max=5", 15_000),
        ] {
            let value = HeaderValue::from_static(keep_alive);
            let idle_timeout = negotiated_idle_timeout(Some(&value), max);
            assert_eq!(idle_timeout.as_millis(), expected, "{keep_alive}");
        }
        assert_eq!(negotiated_idle_timeout(None, max), max);
    }
}
