//! Resumes a download with a range request (RFC 9110 §14) after an attempt that failed midway.

use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED,
    RANGE, TRANSFER_ENCODING,
};
use http::response::Parts;
use http::{Method, StatusCode};

use crate::error::{Error, ErrorKind};
use crate::header_date::header_date;
use crate::request::Request;

/// Returns the validator to send in `If-Range`: a strong `ETag`, or else a `Last-Modified` that
/// counts as strong. Returns `None` if a download with this response cannot be resumed.
pub(super) fn resume_validator(
    request: &Request,
    status: StatusCode,
    headers: &HeaderMap,
) -> Option<HeaderValue> {
    // A range of an encoded body counts encoded bytes, so a file with decoded bytes cannot be
    // resumed.
    let is_encoded = headers.contains_key(CONTENT_ENCODING);
    let keeps_coding = request.decodes_content() == Some(false)
        && headers.get_all(CONTENT_ENCODING).iter().count() <= 1;
    let is_resumable = status == StatusCode::OK
        && *request.method() == Method::GET
        && !request.headers().contains_key(RANGE)
        && (keeps_coding || !is_encoded);
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
            // `Last-Modified` can be the same for different codings of a resource, so it cannot
            // identify an encoded body.
            .filter(|_| !is_encoded && is_last_modified_strong(headers))
            .cloned(),
    }
}

/// Whether `Last-Modified` counts as a strong validator, which means that it is at least one second
/// before `Date`. If it is not, the resource could have changed again within the same second (RFC
/// 9110 §8.8.2.2).
fn is_last_modified_strong(headers: &HeaderMap) -> bool {
    match (
        header_date(headers, LAST_MODIFIED),
        header_date(headers, DATE),
    ) {
        (Some(modified), Some(sent_at)) => sent_at
            .duration_since(modified)
            .is_ok_and(|age| age >= Duration::from_secs(1)),
        _ => false,
    }
}

/// Builds the request for the bytes from `offset` to the end of the body.
pub(super) fn build_range_request(
    request: &Request,
    offset: u64,
    validator: &HeaderValue,
) -> Request {
    let range_request = request
        .clone()
        .into_builder()
        .header(RANGE, format!("bytes={offset}-"))
        .header(IF_RANGE, validator);
    if request.decodes_content() == Some(false) {
        // The `Accept-Encoding` of the first request stays the same.
        return range_request.build();
    }
    range_request
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .build()
}

/// The downloaded part of a representation, which a range request continues.
#[derive(Copy, Clone)]
pub(super) struct DownloadedPart<'a> {
    pub(super) downloaded_length: u64,
    /// The length of the whole representation; `None` if it is unknown.
    pub(super) total_length: Option<u64>,
    pub(super) validator: &'a HeaderValue,
    /// The `Content-Encoding` of the representation, if it has one.
    pub(super) content_coding: Option<&'a HeaderValue>,
}

/// The meaning of a 206 or 416 response to a range request.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum RangeResponse {
    /// The body is the rest of the representation.
    RestOfBody { total_length: u64 },
    /// The downloaded part is the whole representation.
    NothingLeft,
    /// The response does not continue the downloaded part.
    Mismatch,
}

impl DownloadedPart<'_> {
    /// Interprets a 206 or 416 response to the request for the rest of this part. `body_length` is
    /// the length of the response body; `None` if it is unknown.
    pub(super) fn interpret_range_response(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body_length: Option<u64>,
    ) -> RangeResponse {
        let is_unsatisfied = status == StatusCode::RANGE_NOT_SATISFIABLE;
        if self.is_other_representation(headers, is_unsatisfied) {
            return RangeResponse::Mismatch;
        }
        match parse_single_content_range(headers) {
            Some(ContentRange::Unsatisfied { size })
                if is_unsatisfied
                    && size == self.downloaded_length
                    && self.total_length.is_none_or(|total| total == size) =>
            {
                RangeResponse::NothingLeft
            }
            Some(ContentRange::Satisfied { first, last, size })
                if status == StatusCode::PARTIAL_CONTENT =>
            {
                let total_length = size.or(self.total_length);
                let is_remainder = first == self.downloaded_length
                    && total_length == last.checked_add(1)
                    && self
                        .total_length
                        .is_none_or(|total| total_length == Some(total))
                    && body_length.is_none_or(|length| length == last - first + 1);
                match total_length {
                    Some(total_length) if is_remainder => {
                        RangeResponse::RestOfBody { total_length }
                    }
                    _ => RangeResponse::Mismatch,
                }
            }
            _ => RangeResponse::Mismatch,
        }
    }

    /// Whether the headers identify another representation than the one that was downloaded. The
    /// content coding of a 416 response is ignored, because it describes the body of that response.
    fn is_other_representation(&self, headers: &HeaderMap, is_unsatisfied: bool) -> bool {
        let is_etag = self.validator.as_bytes().starts_with(b"\"");
        let name = if is_etag { ETAG } else { LAST_MODIFIED };
        let mut validators = headers.get_all(name).iter();
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        validators.any(|value| value != self.validator)
            || (!is_unsatisfied && codings.any(|coding| Some(coding) != self.content_coding))
    }
}

/// Returns the length that a response announces for its body, if any. The response must not be one
/// to a resumed download. `body_length` is the length that the framing of the body announces.
///
/// # Errors
///
/// Returns [`ErrorKind::Truncated`] if a 206 response to a request without `Range` is not the whole
/// representation. Such a response violates RFC 9110 §15.3.7.
pub(super) fn announced_body_length(
    request: &Request,
    status: StatusCode,
    headers: &HeaderMap,
    body_length: Option<u64>,
) -> Result<Option<u64>, Error> {
    if status != StatusCode::PARTIAL_CONTENT {
        return Ok(body_length);
    }
    let content_range = parse_single_content_range(headers);
    if request.headers().contains_key(RANGE) {
        // A response with several ranges has no `Content-Range` (RFC 9110 §15.3.7.2). Its announced
        // length is that of the framing.
        return Ok(match content_range {
            Some(ContentRange::Satisfied { first, last, .. }) => Some(last - first + 1),
            _ => body_length,
        });
    }
    match content_range {
        Some(ContentRange::Satisfied {
            first: 0,
            last,
            size,
        }) if size == last.checked_add(1) => Ok(size),
        _ => {
            let detail = "the server sent a part of the body to a request without Range";
            Err(Error::from_kind(ErrorKind::Truncated).with_detail(detail))
        }
    }
}

/// Turns the head of the last response of a resumed download into the head of the whole
/// representation: status 200, with the complete length (RFC 9110 §15.3.7.3).
pub(super) fn rewrite_as_complete_head(
    head: &mut Parts,
    total_length: u64,
    content_coding: Option<HeaderValue>,
) {
    if head.status == StatusCode::RANGE_NOT_SATISFIABLE {
        // In a 416 response, these headers describe the error message in its body, not the saved
        // body.
        for name in [CONTENT_TYPE, CONTENT_LANGUAGE, CONTENT_ENCODING] {
            head.headers.remove(name);
        }
    }
    head.status = StatusCode::OK;
    head.headers.remove(CONTENT_RANGE);
    head.headers.remove(TRANSFER_ENCODING);
    let total_length = HeaderValue::from(total_length);
    head.headers.insert(CONTENT_LENGTH, total_length);
    if let Some(content_coding) = content_coding {
        head.headers.insert(CONTENT_ENCODING, content_coding);
    }
}

/// The value of a `Content-Range` header with the unit `bytes` (RFC 9110 §14.4).
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum ContentRange {
    /// `bytes first-last/size`. The size is `None` if it is `*`.
    Satisfied {
        first: u64,
        last: u64,
        size: Option<u64>,
    },
    /// `bytes */size`, which a 416 response has.
    Unsatisfied { size: u64 },
}

/// The `Content-Range` of a response. `None` if the header is missing, repeated or invalid.
fn parse_single_content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let mut values = headers.get_all(CONTENT_RANGE).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    parse_content_range_value(value)
}

fn parse_content_range_value(value: &HeaderValue) -> Option<ContentRange> {
    let (unit, range) = value.to_str().ok()?.split_once(' ')?;
    let (range, size) = range.split_once('/')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    if range == "*" {
        let size = parse_digits(size)?;
        return Some(ContentRange::Unsatisfied { size });
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (parse_digits(first)?, parse_digits(last)?);
    let size = match size {
        "*" => None,
        size => Some(parse_digits(size)?),
    };
    // A range that ends before it begins, or beyond the end, is invalid (RFC 9110 §14.4).
    let is_valid = first <= last && last < size.unwrap_or(u64::MAX);
    is_valid.then_some(ContentRange::Satisfied { first, last, size })
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

    /// Interprets a response to the request for the rest of a part of 5 bytes with the `ETag`
    /// `"a"`.
    fn interpret_range_response(
        status: u16,
        list: &[(&'static str, &'static str)],
        total_length: Option<u64>,
        body_length: Option<u64>,
    ) -> RangeResponse {
        let part = DownloadedPart {
            downloaded_length: 5,
            total_length,
            validator: &HeaderValue::from_static("\"a\""),
            content_coding: None,
        };
        let status = StatusCode::from_u16(status).unwrap();
        part.interpret_range_response(status, &headers(list), body_length)
    }

    const MISMATCH: RangeResponse = RangeResponse::Mismatch;
    const REMAINDER: RangeResponse = RangeResponse::RestOfBody { total_length: 10 };

    #[test]
    fn only_the_complete_rest_of_the_same_representation_is_accepted() {
        let of_range =
            |range, total| interpret_range_response(206, &[("content-range", range)], total, None);
        for (range, total, expected) in [
            ("bytes 5-9/10", Some(10), REMAINDER),
            ("bytes 5-9/10", None, REMAINDER),
            ("BYTES 5-9/10", None, REMAINDER),
            ("bytes 5-9/*", Some(10), REMAINDER),
            ("bytes 5-9/*", None, MISMATCH),
            ("bytes 5-9/10", Some(11), MISMATCH),
            ("bytes 5-9/10", Some(9), MISMATCH),
            ("bytes 4-9/10", Some(10), MISMATCH),
            ("bytes 6-9/10", Some(10), MISMATCH),
            ("bytes 0-9/10", Some(10), MISMATCH),
            ("bytes 5-8/10", Some(10), MISMATCH),
            ("bytes 5-10/10", Some(10), MISMATCH),
            ("bytes 5-10/11", Some(10), MISMATCH),
            ("bytes 5-4/5", None, MISMATCH),
            ("bytes 5-9/+10", Some(10), MISMATCH),
            ("bytes 5-18446744073709551615/10", Some(10), MISMATCH),
            ("bytes 5-18446744073709551615/*", None, MISMATCH),
            ("bytes */10", Some(10), MISMATCH),
            ("bytes */5", Some(5), MISMATCH),
            ("items 5-9/10", Some(10), MISMATCH),
            ("bytes=5-9/10", Some(10), MISMATCH),
            ("5-9/10", Some(10), MISMATCH),
            ("", Some(10), MISMATCH),
        ] {
            assert_eq!(of_range(range, total), expected, "{range} {total:?}");
        }
        assert_eq!(interpret_range_response(206, &[], Some(10), None), MISMATCH);
        let range = ("content-range", "bytes 5-9/10");
        for (header, expected) in [
            (("etag", "\"a\""), REMAINDER),
            (("etag", "\"b\""), MISMATCH),
            (("etag", "W/\"a\""), MISMATCH),
            (("content-encoding", "gzip"), MISMATCH),
            (("content-type", "multipart/byteranges"), REMAINDER),
        ] {
            let response = interpret_range_response(206, &[range, header], Some(10), None);
            assert_eq!(response, expected, "{header:?}");
        }
        let mut repeated = headers(&[range]);
        repeated.append(CONTENT_RANGE, HeaderValue::from_static("bytes 5-9/10"));
        assert_eq!(parse_single_content_range(&repeated), None);
    }

    #[test]
    fn body_length_must_equal_the_length_of_the_content_range() {
        let range = [("content-range", "bytes 5-9/10")];
        for (body_length, expected) in [
            (None, REMAINDER),
            (Some(5), REMAINDER),
            (Some(4), MISMATCH),
            (Some(6), MISMATCH),
            (Some(10), MISMATCH),
            (Some(0), MISMATCH),
        ] {
            let response = interpret_range_response(206, &range, Some(10), body_length);
            assert_eq!(response, expected, "{body_length:?}");
        }
    }

    #[test]
    fn unsatisfied_range_completes_a_part_of_the_whole_size() {
        for (range, total, expected) in [
            ("bytes */5", None, RangeResponse::NothingLeft),
            ("bytes */5", Some(5), RangeResponse::NothingLeft),
            ("bytes */5", Some(10), MISMATCH),
            ("bytes */4", None, MISMATCH),
            ("bytes */6", None, MISMATCH),
            ("bytes */*", None, MISMATCH),
            ("bytes 5-9/10", Some(10), MISMATCH),
        ] {
            let response =
                interpret_range_response(416, &[("content-range", range)], total, Some(100));
            assert_eq!(response, expected, "{range} {total:?}");
        }
        let changed = [("content-range", "bytes */5"), ("etag", "\"b\"")];
        assert_eq!(
            interpret_range_response(416, &changed, None, None),
            MISMATCH
        );
        assert_eq!(interpret_range_response(416, &[], None, None), MISMATCH);
    }

    #[test]
    fn body_that_keeps_its_coding_is_resumed_with_the_same_coding() {
        let request = Request::get("http://a.example/").save_to("file").build();
        let validator = |list: &[(&'static str, &'static str)]| {
            resume_validator(&request, StatusCode::OK, &headers(list))
        };
        let (etag, gzip) = (("etag", "\"a\""), ("content-encoding", "gzip"));
        let modified = ("last-modified", "Fri, 31 Dec 1999 23:59:58 GMT");
        let date = ("date", "Fri, 31 Dec 1999 23:59:59 GMT");
        assert_eq!(validator(&[etag, gzip]).unwrap(), "\"a\"");
        assert_eq!(validator(&[modified, date]).unwrap(), modified.1);
        assert_eq!(validator(&[modified, date, gzip]), None);
        let (strong, coding) = (HeaderValue::from_static("\"a\""), gzip.1.parse().unwrap());
        let part = DownloadedPart {
            downloaded_length: 5,
            total_length: None,
            validator: &strong,
            content_coding: Some(&coding),
        };
        let range = ("content-range", "bytes 5-9/10");
        for (header, expected) in [
            (gzip, REMAINDER),
            (etag, REMAINDER),
            (("content-encoding", "br"), MISMATCH),
        ] {
            let headers = headers(&[range, header]);
            let response =
                part.interpret_range_response(StatusCode::PARTIAL_CONTENT, &headers, None);
            assert_eq!(response, expected, "{header:?}");
        }
    }

    #[test]
    fn changed_modification_date_is_a_mismatch() {
        let date = HeaderValue::from_static("Fri, 31 Dec 1999 23:59:58 GMT");
        let part = DownloadedPart {
            downloaded_length: 5,
            total_length: None,
            validator: &date,
            content_coding: None,
        };
        let range = ("content-range", "bytes 5-9/10");
        for (header, expected) in [
            (
                ("last-modified", "Fri, 31 Dec 1999 23:59:58 GMT"),
                REMAINDER,
            ),
            (("last-modified", "Fri, 31 Dec 1999 23:59:59 GMT"), MISMATCH),
            (("etag", "\"a\""), REMAINDER),
        ] {
            let headers = headers(&[range, header]);
            let response =
                part.interpret_range_response(StatusCode::PARTIAL_CONTENT, &headers, None);
            assert_eq!(response, expected, "{header:?}");
        }
    }

    #[test]
    fn length_of_a_first_response_comes_from_its_framing_or_its_content_range() {
        let get = Request::get("http://a.example/");
        let with_range = get.clone().header(RANGE, "bytes=2-5").build();
        let get = get.build();
        let announced = |request, status, range: &'static str, body_length| {
            let list = [("content-range", range)];
            let status = StatusCode::from_u16(status).unwrap();
            let length = announced_body_length(request, status, &headers(&list), body_length);
            length.map_err(|error| error.kind())
        };
        let truncated = Err(ErrorKind::Truncated);
        for (request, status, range, body_length, expected) in [
            (&get, 200, "bytes 2-5/10", Some(7), Ok(Some(7))),
            (&get, 200, "", None, Ok(None)),
            (&get, 206, "bytes 0-9/10", None, Ok(Some(10))),
            (&get, 206, "bytes 0-9/11", None, truncated),
            (&get, 206, "bytes 0-9/*", None, truncated),
            (&get, 206, "bytes 2-9/10", None, truncated),
            (&get, 206, "", Some(10), truncated),
            (&with_range, 206, "bytes 2-5/10", None, Ok(Some(4))),
            (&with_range, 206, "bytes 2-5/*", Some(9), Ok(Some(4))),
            (&with_range, 206, "", Some(9), Ok(Some(9))),
            (&with_range, 200, "", Some(9), Ok(Some(9))),
        ] {
            let length = announced(request, status, range, body_length);
            assert_eq!(length, expected, "{status} {range} {body_length:?}");
        }
    }
}
