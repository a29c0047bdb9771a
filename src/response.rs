//! A complete response.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{StatusCode, Version};
use url::Url;

use crate::charset;
use crate::credentials::RedactedHeaders;
use crate::error::{Error, ErrorKind, Result};
use crate::header_date::header_date;
use crate::link_header;
use crate::packed_headers::PackedHeaders;
use crate::redacted_url::RedactedUrl;
use crate::timings::{Attempt, AttemptList, Timings};

/// A complete response: status, headers, final URL and the whole body.
///
/// The body has been read, so no method is async. A response with any status is a `Response`;
/// [`error_for_status`](Response::error_for_status) turns 4xx and 5xx into an error.
///
/// A `Response` is one pointer wide. On the heap it takes a little more memory than its headers and
/// body.
///
/// ```
/// # fn main() -> fanout::Result<()> {
/// use fanout::Response;
///
/// let response = Response::from(http::Response::new("hello".into()));
/// let text = response.error_for_status()?.text().into_owned();
/// assert_eq!(text, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Response(Box<ResponseData>);

#[derive(Clone)]
struct ResponseData {
    status: StatusCode,
    version: Version,
    headers: PackedHeaders,
    url: Arc<Url>,
    body: Bytes,
    attempts: AttemptList,
    redirects: Box<[Redirect]>,
    saved_file: Option<Box<SavedFile>>,
}

/// The path and size of the file that a body was saved to.
#[derive(Clone)]
pub(crate) struct SavedFile {
    pub(crate) path: Arc<Path>,
    pub(crate) size_bytes: u64,
}

/// A redirect that was followed, from [`Response::redirects`].
///
/// ```
/// # fn show(response: &fanout::Response) {
/// for redirect in response.redirects() {
///     println!("{} {}", redirect.status(), redirect.url());
/// }
/// println!("{} {}", response.status(), response.url());
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Redirect {
    status: StatusCode,
    url: Arc<Url>,
}

impl Redirect {
    pub(crate) fn new(status: StatusCode, url: Arc<Url>) -> Self {
        Self { status, url }
    }

    /// The status of the redirect: 301, 302, 303, 307 or 308.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The URL that responded with the redirect, without userinfo.
    pub fn url(&self) -> &Url {
        &self.url
    }
}

/// Shows the URL without the values of its query parameters.
impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redirect")
            .field("status", &self.status)
            .field("url", &RedactedUrl(self.url.as_str()))
            .finish()
    }
}

impl Response {
    /// Creates a response. The headers are copied; `body` is not. If `body` is a slice of a larger
    /// buffer, the response keeps the whole buffer alive.
    pub(crate) fn new(
        status: StatusCode,
        version: Version,
        headers: &HeaderMap,
        url: Arc<Url>,
        body: Bytes,
    ) -> Self {
        Self(Box::new(ResponseData {
            status,
            version,
            headers: PackedHeaders::new(headers),
            url,
            body,
            attempts: AttemptList::NoAttempt,
            redirects: Box::default(),
            saved_file: None,
        }))
    }

    pub(crate) fn set_attempts(&mut self, attempts: AttemptList) {
        self.0.attempts = attempts;
    }

    pub(crate) fn set_redirects(&mut self, redirects: Box<[Redirect]>) {
        self.0.redirects = redirects;
    }

    pub(crate) fn set_saved_file(&mut self, saved_file: Box<SavedFile>) {
        self.0.saved_file = Some(saved_file);
    }

    pub(crate) fn attempt_list(&self) -> &AttemptList {
        &self.0.attempts
    }

    pub(crate) fn shared_url(&self) -> &Arc<Url> {
        &self.0.url
    }

    /// The status code of the response.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The HTTP version of the response.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// The response headers.
    ///
    /// Headers are stored in a compact form. The first call converts them to a `HeaderMap`; later
    /// calls return the same map.
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers.as_header_map()
    }

    /// The URL that responded, after all redirects, without userinfo.
    pub fn url(&self) -> &Url {
        &self.0.url
    }

    /// The response body; empty if the body was [saved to a file](Self::saved_to).
    ///
    /// The content coding of the body is decoded, unless
    /// [`FetcherBuilder::decode_content`](crate::FetcherBuilder::decode_content) or
    /// [`RequestBuilder::decode_content`](crate::RequestBuilder::decode_content) is off.
    pub fn bytes(&self) -> &Bytes {
        &self.0.body
    }

    /// The path of the file that the body was saved to, if the request had
    /// [`save_to`](crate::RequestBuilder::save_to) and the status is 2xx.
    pub fn saved_to(&self) -> Option<&Path> {
        self.0.saved_file.as_ref().map(|file| &*file.path)
    }

    /// The size in bytes of the file that the body was [saved to](Self::saved_to). `None` if the
    /// body was not saved.
    pub fn saved_bytes(&self) -> Option<u64> {
        self.0.saved_file.as_ref().map(|file| file.size_bytes)
    }

    /// Converts the response into its body.
    pub fn into_bytes(self) -> Bytes {
        self.0.body
    }

    /// The body as text, without a byte order mark. Malformed bytes become U+FFFD.
    ///
    /// The body is decoded as UTF-8. With the feature `charset`, a byte order mark or, without one,
    /// the `charset` of the `Content-Type` selects another encoding. A `charset` that is not in the
    /// [Encoding Standard](https://encoding.spec.whatwg.org) is ignored, and so is the `meta`
    /// element of an HTML page.
    ///
    /// The text borrows from the response if the body is valid UTF-8.
    pub fn text(&self) -> Cow<'_, str> {
        let body = self.body_without_bom();
        if body.len() < self.0.body.len() {
            return String::from_utf8_lossy(body);
        }
        charset::decode_text(body, || self.first_value_of_header("content-type"))
    }

    /// Returns the first value of the header `name`, without the conversion of all headers to a
    /// `HeaderMap`.
    pub(crate) fn first_value_of_header(&self, name: &str) -> Option<&[u8]> {
        self.0.headers.first_value_of_header(name)
    }

    /// The body without a UTF-8 byte order mark.
    pub(crate) fn body_without_bom(&self) -> &[u8] {
        let body = &self.0.body[..];
        body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
    }

    /// Returns the response unless its status is 4xx or 5xx.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Status`] if the status is 4xx or 5xx. The error keeps the response: see
    /// [`Error::response`] and [`Error::into_response`].
    ///
    /// ```
    /// use fanout::{ErrorKind, Response};
    ///
    /// let gone = http::Response::builder().status(410).body("moved out".into()).unwrap();
    /// let error = Response::from(gone).error_for_status().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Status);
    /// assert_eq!(error.into_response().unwrap().text(), "moved out");
    /// ```
    pub fn error_for_status(self) -> Result<Self> {
        let status = self.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(self);
        }
        let mut error = Error::from_kind(ErrorKind::Status).with_detail(status.to_string());
        error.set_url(Arc::clone(self.shared_url()));
        error.set_rejected_response(self);
        Err(error)
    }

    /// The delay that the `retry-after-ms` or `Retry-After` header requests (RFC 9110 §10.2.3),
    /// counted from this response. `None` if both headers are missing or invalid.
    ///
    /// `retry-after-ms` is a number of milliseconds, which Azure OpenAI and OpenAI send. If it is
    /// valid, it precedes `Retry-After`.
    ///
    /// `Retry-After` is a number of seconds or a date in one of the three forms of RFC 9110 §5.6.7.
    /// A fraction of a second, which some servers send, is rounded up. A date is compared with the
    /// `Date` of the response or, without one, with the local clock. A date in the past gives zero.
    pub fn retry_after(&self) -> Option<Duration> {
        parse_retry_after(self.headers(), SystemTime::now())
    }

    /// The target of the first link in the `Link` headers (RFC 8288) whose relation is `relation`,
    /// for example `next`. `None` if there is no such link, if its target is not a URL, or if the
    /// header is malformed.
    ///
    /// The target is resolved against [`url`](Self::url) and has no userinfo. Bytes of the target
    /// that are not UTF-8 are percent-encoded. Relations are compared without regard to case, and
    /// one link may have several relations. A link with an `anchor` that is another document is
    /// ignored.
    ///
    /// [`AsCompleted::follow_next_link`](crate::AsCompleted::follow_next_link) follows `next`
    /// automatically.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let response = http::Response::builder()
    ///     .header("link", r#"<https://api.example/items?page=3>; rel="next""#)
    ///     .body(Default::default())?;
    /// let response = fanout::Response::from(response);
    /// assert_eq!(response.link("next").unwrap().query(), Some("page=3"));
    /// assert!(response.link("prev").is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn link(&self, relation: &str) -> Option<Url> {
        link_header::find_link_target(self.headers(), relation, self.url()).ok()?
    }

    /// The time spent queued and in each phase on the wire, summed over all attempts of the
    /// request.
    pub fn timings(&self) -> Timings {
        self.0.attempts.total_timings()
    }

    /// The attempts of the request, oldest first. The last attempt received this response.
    pub fn attempts(&self) -> &[Attempt] {
        self.0.attempts.as_slice()
    }

    /// The redirects that were followed to reach this response, in order; empty if there were none.
    pub fn redirects(&self) -> &[Redirect] {
        &self.0.redirects
    }

    /// Converts the response into the type of the `http` crate. The URL, the attempts and the
    /// redirects are dropped.
    pub fn into_http(self) -> http::Response<Bytes> {
        let inner = *self.0;
        let mut response = http::Response::new(inner.body);
        *response.status_mut() = inner.status;
        *response.version_mut() = inner.version;
        *response.headers_mut() = inner.headers.into_header_map();
        response
    }
}

/// Makes a response without a server, for example in a test. The URL of the response is
/// `about:blank`.
impl From<http::Response<Bytes>> for Response {
    fn from(response: http::Response<Bytes>) -> Self {
        static ABOUT_BLANK_URL: LazyLock<Arc<Url>> =
            LazyLock::new(|| Arc::new(Url::parse("about:blank").expect("a valid URL")));
        let (head, body) = response.into_parts();
        Self::new(
            head.status,
            head.version,
            &head.headers,
            Arc::clone(&ABOUT_BLANK_URL),
            body,
        )
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Response");
        debug
            .field("status", &self.status())
            .field("version", &self.version())
            .field("url", &RedactedUrl(self.url().as_str()))
            .field("headers", &RedactedHeaders(self.headers()))
            .field("body", &format_args!("{} bytes", self.bytes().len()))
            .field("attempts", &self.attempts());
        if let Some(path) = self.saved_to() {
            debug.field("saved_to", &path);
        }
        debug.finish()
    }
}

/// Precedes `Retry-After`, because it is more precise.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Parses `retry-after-ms`, a number of milliseconds, or otherwise `Retry-After`, a number of
/// seconds or a date (RFC 9110 §10.2.3). `now` replaces a missing `Date` header.
pub(crate) fn parse_retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text_of = |name| Some(headers.get(name)?.to_str().ok()?.trim());
    if let Some(delay) = text_of(RETRY_AFTER_MS).and_then(parse_milliseconds) {
        return Some(delay);
    }
    let text = text_of(header::RETRY_AFTER)?;
    if let Some(seconds) = parse_seconds_rounded_up(text) {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // The `Date` header is preferred to `now`, because the server's clock may differ from the local
    // clock.
    let responded_at = header_date(headers, header::DATE).unwrap_or(now);
    Some(date.duration_since(responded_at).unwrap_or_default())
}

/// The longest delay that a header can request: 136 years, which can be added to any instant.
const MAX_REQUESTED_DELAY: Duration = Duration::from_secs(u32::MAX as u64);

/// Parses digits with an optional fraction. A number that does not fit becomes the number of
/// seconds in [`MAX_REQUESTED_DELAY`].
fn parse_seconds_rounded_up(text: &str) -> Option<u32> {
    let (whole, fraction) = split_decimal_number(text)?;
    let seconds = whole.parse().unwrap_or(u32::MAX);
    let has_fraction = fraction.bytes().any(|digit| digit != b'0');
    Some(seconds.saturating_add(has_fraction.into()))
}

/// Parses digits with an optional fraction as milliseconds, at most [`MAX_REQUESTED_DELAY`].
fn parse_milliseconds(text: &str) -> Option<Duration> {
    split_decimal_number(text)?;
    let milliseconds: f64 = text.parse().ok()?;
    let delay = Duration::try_from_secs_f64(milliseconds / 1e3);
    Some(delay.map_or(MAX_REQUESTED_DELAY, |delay| delay.min(MAX_REQUESTED_DELAY)))
}

/// Splits digits with an optional fraction into the digits before and after the point.
fn split_decimal_number(text: &str) -> Option<(&str, &str)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = !whole.is_empty()
        && whole
            .bytes()
            .chain(fraction.bytes())
            .all(|byte| byte.is_ascii_digit());
    is_number.then_some((whole, fraction))
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;
    use crate::timings::Outcome;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn response(status: StatusCode, list: &[(&'static str, &str)], body: &'static str) -> Response {
        let url = Arc::new(Url::parse("http://a.example/x").unwrap());
        let body = Bytes::from_static(body.as_bytes());
        Response::new(status, Version::HTTP_11, &headers(list), url, body)
    }

    #[test]
    fn retry_after_parses_seconds_and_dates() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:59 GMT").unwrap();
        for (value, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999999999999", Some(u64::from(u32::MAX))),
            ("Sat, 01 Jan 2000 00:00:29 GMT", Some(30)),
            ("Saturday, 01-Jan-00 00:00:29 GMT", Some(30)),
            ("Sat Jan  1 00:00:29 2000", Some(30)),
            ("Fri, 31 Dec 1999 23:00:00 GMT", Some(0)),
            ("-1", None),
            ("30.5", Some(31)),
            ("1.5", Some(2)),
            ("0.001", Some(1)),
            ("30.0", Some(30)),
            ("30.", Some(30)),
            ("99999999999.5", Some(u64::from(u32::MAX))),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(252_455_616_000)),
            ("Sat, 1 Jan 2000 00:00:29 GMT", None),
            (".5", None),
            ("1.2.3", None),
            ("1,5", None),
            ("+5", None),
            ("1e3", None),
            ("0x10", None),
            ("30 s", None),
            ("-30.5", None),
            ("", None),
            ("soon", None),
        ] {
            let map = headers(&[("retry-after", value)]);
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(parse_retry_after(&map, now), expected, "{value:?}");
        }
        assert_eq!(parse_retry_after(&HeaderMap::new(), now), None);
    }

    /// openai-python, tests/lib/test_azure.py and `_parse_retry_after_header`: milliseconds precede
    /// seconds, and an invalid number falls back to `Retry-After`.
    #[test]
    fn retry_after_ms_precedes_retry_after() {
        let max_millis = u64::from(u32::MAX) * 1000;
        for (value, millis) in [
            ("0", 0),
            ("250", 250),
            ("1500", 1500),
            (" 40 ", 40),
            ("12.5", 12),
            ("99999999999999999999", max_millis),
            (&*"9".repeat(400), max_millis),
            ("-1", 7000),
            ("", 7000),
            (".5", 7000),
            ("1e3", 7000),
            ("inf", 7000),
            ("NaN", 7000),
            ("40 ms", 7000),
            ("Fri, 31 Dec 1999 23:59:59 GMT", 7000),
        ] {
            let map = headers(&[("retry-after-ms", value), ("retry-after", "7")]);
            let delay = parse_retry_after(&map, SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(delay.as_millis(), u128::from(millis), "{value:?}");
        }
        let alone = headers(&[("retry-after-ms", "12.5")]);
        assert_eq!(
            parse_retry_after(&alone, SystemTime::UNIX_EPOCH),
            Some(Duration::from_micros(12_500))
        );
        let invalid = headers(&[("retry-after-ms", "soon")]);
        assert_eq!(parse_retry_after(&invalid, SystemTime::UNIX_EPOCH), None);
    }

    #[test]
    fn retry_after_date_is_relative_to_the_date_header() {
        let map = headers(&[
            ("date", "Sat, 01 Jan 2000 00:00:00 GMT"),
            ("retry-after", "Sat, 01 Jan 2000 00:00:10 GMT"),
        ]);
        let local_now = SystemTime::UNIX_EPOCH;
        assert_eq!(
            parse_retry_after(&map, local_now),
            Some(Duration::from_secs(10))
        );
    }

    #[test]
    fn response_is_at_most_160_bytes() {
        assert!(
            size_of::<ResponseData>() <= 160,
            "{}",
            size_of::<ResponseData>()
        );
    }

    #[test]
    fn error_for_status_keeps_the_response_its_url_and_its_attempts() {
        let mut not_found = response(StatusCode::NOT_FOUND, &[("x-a", "1")], "no such thing");
        let outcome = Outcome::Status(StatusCode::NOT_FOUND);
        let mut attempts = AttemptList::default();
        attempts.push_attempt(Attempt::new(outcome, Timings::default()));
        not_found.set_attempts(attempts);

        let error = not_found.error_for_status().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Status);
        assert_eq!(error.url(), Some("http://a.example/x"));
        assert_eq!(error.attempts().len(), 1);
        assert!(error.maybe_sent());
        assert_eq!(
            error.to_string(),
            "error status for http://a.example/x: 404 Not Found"
        );
        let response = error.into_response().unwrap();
        assert_eq!(response.text(), "no such thing");
        assert_eq!(response.headers()["x-a"], "1");
        assert_eq!(response.attempts().len(), 1);
    }

    #[test]
    fn error_for_status_rejects_only_4xx_and_5xx() {
        for (status, is_rejected) in [
            (200, false),
            (304, false),
            (399, false),
            (400, true),
            (599, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let result = response(status, &[], "").error_for_status();
            assert_eq!(result.is_err(), is_rejected, "{status}");
        }
    }

    #[test]
    fn text_borrows_valid_utf_8_and_replaces_malformed_bytes() {
        let plain = response(StatusCode::OK, &[], "\u{feff}äö");
        assert!(matches!(plain.text(), Cow::Borrowed("äö")));
        let broken = Response::from(http::Response::new(Bytes::from_static(b"a\xff")));
        assert_eq!(broken.text(), "a\u{fffd}");
    }

    #[test]
    fn debug_hides_sensitive_headers_and_the_body() {
        let list = [
            ("set-cookie", "s3cr3t"),
            ("authorization", "s3cr3t"),
            ("x-a", "plain"),
        ];
        let shown = format!("{:?}", response(StatusCode::OK, &list, "s3cr3t"));
        assert!(!shown.contains("s3cr3t"), "{shown}");
        assert!(shown.contains("plain") && shown.contains("6 bytes"));
    }

    #[test]
    fn http_response_survives_a_round_trip() {
        let original = http::Response::builder()
            .status(202)
            .version(Version::HTTP_2)
            .header("x-a", "1")
            .header("x-a", "2")
            .body(Bytes::from_static(b"body"))
            .unwrap();
        let response = Response::from(original);
        assert_eq!(response.url().as_str(), "about:blank");
        let back = response.into_http();
        assert_eq!(
            (back.status(), back.version()),
            (StatusCode::ACCEPTED, Version::HTTP_2)
        );
        assert_eq!(
            back.headers().get_all("x-a").iter().collect::<Vec<_>>(),
            ["1", "2"]
        );
        assert_eq!(back.body(), "body");
    }
}
