//! Resumes a download with a range request (RFC 9110 §14) after an attempt that failed midway.

use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, DATE, ETAG, HeaderMap,
    HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Method, StatusCode};

use crate::request::Request;

/// The validator to send in `If-Range`: a strong `ETag`, or else a `Last-Modified` that counts as
/// strong. `None` if a download with this response cannot be resumed.
pub(super) fn resume_validator(
    request: &Request,
    status: StatusCode,
    headers: &HeaderMap,
) -> Option<HeaderValue> {
    // A server counts the range of an encoded body in encoded bytes, but the file holds decoded
    // bytes.
    let is_resumable = status == StatusCode::OK
        && *request.method() == Method::GET
        && !request.headers().contains_key(RANGE)
        && !headers.contains_key(CONTENT_ENCODING);
    let refuses_ranges = headers
        .get(ACCEPT_RANGES)
        .is_some_and(|unit| unit.as_bytes().eq_ignore_ascii_case(b"none"));
    if !is_resumable || refuses_ranges {
        return None;
    }
    match headers.get(ETAG) {
        Some(tag) if tag.as_bytes().starts_with(b"\"") => Some(tag.clone()),
        _ => headers
            .get(LAST_MODIFIED)
            .filter(|_| is_strong_date(headers))
            .cloned(),
    }
}

/// Whether `Last-Modified` counts as a strong validator: it is at least one second before `Date`.
/// Otherwise the resource could have changed again within the same second (RFC 9110 §8.8.2.2).
fn is_strong_date(headers: &HeaderMap) -> bool {
    let date = |name| httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok();
    match (date(LAST_MODIFIED), date(DATE)) {
        (Some(modified), Some(sent_at)) => sent_at
            .duration_since(modified)
            .is_ok_and(|age| age >= Duration::from_secs(1)),
        _ => false,
    }
}

/// Builds the request for the bytes from `offset` to the end of the body.
pub(super) fn range_request(request: &Request, offset: u64, validator: &HeaderValue) -> Request {
    request
        .clone()
        .into_builder()
        .header(RANGE, format!("bytes={offset}-"))
        .header(IF_RANGE, validator)
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .build()
}

/// Whether a 206 response contains everything from `offset` to the end of the representation that
/// `validator` identifies. `total` is the length of the whole representation; `None` if it is
/// unknown.
pub(super) fn is_remainder(
    headers: &HeaderMap,
    offset: u64,
    total: Option<u64>,
    validator: &HeaderValue,
) -> bool {
    let has_other_etag = headers.get(ETAG).is_some_and(|tag| {
        validator.as_bytes().starts_with(b"\"") && tag.as_bytes() != validator.as_bytes()
    });
    if has_other_etag || headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let content_range = headers.get(CONTENT_RANGE).and_then(parse_content_range);
    let Some((first, last, size)) = content_range else {
        return false;
    };
    let Some(size) = size.or(total) else {
        return false;
    };
    first == offset && last.checked_add(1) == Some(size) && total.is_none_or(|total| total == size)
}

/// Parses a `Content-Range` of the form `bytes first-last/size`, where `size` may be `*` (RFC 9110
/// §14.4).
fn parse_content_range(value: &HeaderValue) -> Option<(u64, u64, Option<u64>)> {
    let (unit, range) = value.to_str().ok()?.split_once(' ')?;
    let (range, size) = range.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let size = match size {
        "*" => None,
        size => Some(parse_digits(size)?),
    };
    unit.eq_ignore_ascii_case("bytes")
        .then_some((parse_digits(first)?, parse_digits(last)?, size))
}

/// Parses an unsigned number. `u64::from_str` alone would also accept a sign.
fn parse_digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    fn validator_of(list: &[(&'static str, &'static str)]) -> Option<HeaderValue> {
        let request = Request::get("http://a.example/").build();
        resume_validator(&request, StatusCode::OK, &headers(list))
    }

    #[test]
    fn resuming_requires_a_strong_validator() {
        let modified = ("last-modified", "Fri, 31 Dec 1999 23:59:58 GMT");
        let same_second = ("date", "Fri, 31 Dec 1999 23:59:58 GMT");
        let next_second = ("date", "Fri, 31 Dec 1999 23:59:59 GMT");
        assert_eq!(validator_of(&[("etag", "\"a\"")]).unwrap(), "\"a\"");
        assert_eq!(validator_of(&[("etag", "W/\"a\"")]), None);
        assert_eq!(validator_of(&[modified]), None);
        assert_eq!(validator_of(&[modified, same_second]), None);
        assert_eq!(validator_of(&[modified, next_second]).unwrap(), modified.1);
        let weak_etag = [("etag", "W/\"a\""), modified, next_second];
        assert_eq!(validator_of(&weak_etag).unwrap(), modified.1);
    }

    #[test]
    fn encoded_partial_and_refused_bodies_are_not_resumed() {
        let etag = ("etag", "\"a\"");
        assert_eq!(validator_of(&[etag, ("content-encoding", "gzip")]), None);
        assert_eq!(validator_of(&[etag, ("accept-ranges", "none")]), None);
        let with_etag = headers(&[etag]);
        let get = Request::get("http://a.example/").build();
        let range = get
            .clone()
            .into_builder()
            .header(RANGE, "bytes=0-5")
            .build();
        assert_eq!(resume_validator(&range, StatusCode::OK, &with_etag), None);
        assert_eq!(
            resume_validator(&get, StatusCode::PARTIAL_CONTENT, &with_etag),
            None
        );
        let post = Request::post("http://a.example/").build();
        assert_eq!(resume_validator(&post, StatusCode::OK, &with_etag), None);
    }

    #[test]
    fn only_the_complete_rest_of_the_same_representation_is_accepted() {
        let etag = HeaderValue::from_static("\"a\"");
        let is_accepted = |range: &'static str, total| {
            is_remainder(&headers(&[("content-range", range)]), 5, total, &etag)
        };
        assert!(is_accepted("bytes 5-9/10", Some(10)));
        assert!(is_accepted("bytes 5-9/10", None));
        assert!(is_accepted("bytes 5-9/*", Some(10)));
        for wrong in [
            "bytes 4-9/10",
            "bytes 6-9/10",
            "bytes 5-8/10",
            "bytes 5-10/11",
            "bytes 5-9/+10",
            "bytes 5-18446744073709551615/10",
            "bytes */10",
            "items 5-9/10",
            "5-9/10",
            "",
        ] {
            assert!(!is_accepted(wrong, Some(10)), "{wrong}");
        }
        assert!(!is_accepted("bytes 5-9/*", None));
        assert!(!is_remainder(&HeaderMap::new(), 5, Some(10), &etag));
        let range = ("content-range", "bytes 5-9/10");
        for (header, expected) in [
            (("etag", "\"a\""), true),
            (("etag", "\"b\""), false),
            (("content-encoding", "gzip"), false),
        ] {
            let headers = headers(&[range, header]);
            assert_eq!(
                is_remainder(&headers, 5, Some(10), &etag),
                expected,
                "{header:?}"
            );
        }
    }
}
