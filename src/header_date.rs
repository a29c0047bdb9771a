//! Parses the dates in response headers, such as `Date` and `Last-Modified`.

use std::time::SystemTime;

use http::header::{HeaderMap, HeaderName};

/// The date in the first header `name` (RFC 9110 §5.6.7). `None` if there is no such header or its
/// value is not a date.
pub(crate) fn header_date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let text = headers.get(name)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::header::{DATE, HeaderValue, LAST_MODIFIED};

    use super::*;

    #[test]
    fn all_three_date_formats_are_parsed() {
        let date = Some(UNIX_EPOCH + Duration::from_secs(784_111_777));
        for (text, expected) in [
            (&b"Sun, 06 Nov 1994 08:49:37 GMT"[..], date),
            (b"Sunday, 06-Nov-94 08:49:37 GMT", date),
            (b"Sun Nov  6 08:49:37 1994", date),
            (b"784111777", None),
            (b"", None),
            (b"\xff", None),
        ] {
            let value = HeaderValue::from_bytes(text).unwrap();
            let headers = HeaderMap::from_iter([(DATE, value)]);
            assert_eq!(header_date(&headers, DATE), expected, "{text:?}");
            assert_eq!(header_date(&headers, LAST_MODIFIED), None);
        }
    }
}
