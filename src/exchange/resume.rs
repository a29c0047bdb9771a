//! The rest of a body, after an attempt that broke off: what is asked for, and whether what comes is that (RFC 9110 §14).

use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, DATE, ETAG, HeaderMap,
    HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Method, StatusCode};

use crate::Request;

/// By what a server can tell whether the rest still belongs to what is there: a strong `ETag` or a `FinalRound-Modified` that
/// is as good as one. None if the rest cannot be asked for.
pub(super) fn resume_validator(
    request: &Request,
    status: StatusCode,
    headers: &HeaderMap,
) -> Option<HeaderValue> {
    // A range is one of the coded bytes, which are not those that are kept.
    let is_complete = status == StatusCode::OK
        && *request.method() == Method::GET
        && !request.headers().contains_key(RANGE)
        && !headers.contains_key(CONTENT_ENCODING);
    let refuses_ranges = headers
        .get(ACCEPT_RANGES)
        .is_some_and(|unit| unit.as_bytes().eq_ignore_ascii_case(b"none"));
    if !is_complete || refuses_ranges {
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

/// A date that was over when the answer was made: nothing can have changed since within the same second
/// (RFC 9110 §8.8.2.2).
fn is_strong_date(headers: &HeaderMap) -> bool {
    let date = |name| httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok();
    match (date(LAST_MODIFIED), date(DATE)) {
        (Some(modified), Some(sent_at)) => sent_at
            .duration_since(modified)
            .is_ok_and(|age| age >= Duration::from_secs(1)),
        _ => false,
    }
}

/// The request for what comes after the first `offset` bytes.
pub(super) fn range_request(request: &Request, offset: u64, validator: &HeaderValue) -> Request {
    request
        .clone()
        .into_builder()
        .header(RANGE, format!("bytes={offset}-"))
        .header(IF_RANGE, validator)
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .build()
}

/// Whether this 206 is all that comes after the first `offset` bytes of a body that has `total`, if that is known.
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
    let Some((first, last, size)) = headers.get(CONTENT_RANGE).and_then(content_range) else {
        return false;
    };
    let Some(size) = size.or(total) else {
        return false;
    };
    first == offset && last.checked_add(1) == Some(size) && total.is_none_or(|total| total == size)
}

/// `bytes first-last/size`, where the size may be `*`.
fn content_range(value: &HeaderValue) -> Option<(u64, u64, Option<u64>)> {
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

/// Digits and nothing else: the standard library would accept a sign.
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
    fn only_a_strong_validator_lets_a_body_be_resumed() {
        let modified = ("last-modified", "Fri, 31 Dec 1999 23:59:58 GMT");
        let same = ("date", "Fri, 31 Dec 1999 23:59:58 GMT");
        let later = ("date", "Fri, 31 Dec 1999 23:59:59 GMT");
        assert_eq!(validator_of(&[("etag", "\"a\"")]).unwrap(), "\"a\"");
        assert_eq!(validator_of(&[("etag", "W/\"a\"")]), None);
        assert_eq!(validator_of(&[modified]), None);
        assert_eq!(validator_of(&[modified, same]), None);
        assert_eq!(validator_of(&[modified, later]).unwrap(), modified.1);
        let weak = [("etag", "W/\"a\""), modified, later];
        assert_eq!(validator_of(&weak).unwrap(), modified.1);
    }

    #[test]
    fn what_is_coded_or_a_part_or_refused_is_not_resumed() {
        let tag = ("etag", "\"a\"");
        assert_eq!(validator_of(&[tag, ("content-encoding", "gzip")]), None);
        assert_eq!(validator_of(&[tag, ("accept-ranges", "none")]), None);
        let tagged = headers(&[tag]);
        let get = Request::get("http://a.example/").build();
        let part = get
            .clone()
            .into_builder()
            .header(RANGE, "bytes=0-5")
            .build();
        assert_eq!(resume_validator(&part, StatusCode::OK, &tagged), None);
        assert_eq!(
            resume_validator(&get, StatusCode::PARTIAL_CONTENT, &tagged),
            None
        );
        let post = Request::post("http://a.example/").build();
        assert_eq!(resume_validator(&post, StatusCode::OK, &tagged), None);
    }

    #[test]
    fn only_the_whole_rest_of_the_same_thing_is_taken() {
        let tag = HeaderValue::from_static("\"a\"");
        let accepts = |range: &'static str, total| {
            is_remainder(&headers(&[("content-range", range)]), 5, total, &tag)
        };
        assert!(accepts("bytes 5-9/10", Some(10)));
        assert!(accepts("bytes 5-9/10", None));
        assert!(accepts("bytes 5-9/*", Some(10)));
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
            assert!(!accepts(wrong, Some(10)), "{wrong}");
        }
        assert!(!accepts("bytes 5-9/*", None));
        assert!(!is_remainder(&HeaderMap::new(), 5, Some(10), &tag));
        let range = ("content-range", "bytes 5-9/10");
        for (more, taken) in [
            (("etag", "\"a\""), true),
            (("etag", "\"b\""), false),
            (("content-encoding", "gzip"), false),
        ] {
            let headers = headers(&[range, more]);
            assert_eq!(is_remainder(&headers, 5, Some(10), &tag), taken, "{more:?}");
        }
    }
}
