//! Converts a request in HTTP/1.1 form to HTTP/2 (RFC 9113 §8.2 and §8.3).

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, Scheme, Uri};
use http::{Request, Version};
use http_body::Body as _;

use crate::body::Body;
use crate::error::{Error, ErrorKind};

/// Splits a request into an HTTP/2 head and a body.
///
/// The URI becomes absolute, because h2 derives the pseudo-headers from it.
pub(super) fn into_http2(
    request: Request<Body>,
    https: bool,
) -> Result<(Request<()>, Body), Error> {
    let (mut head, body) = request.into_parts();
    head.uri = take_absolute_uri(&mut head, https)?;
    head.version = Version::HTTP_2;
    remove_connection_specific_headers(&mut head.headers);
    if let Some(length) = body.size_hint().exact()
        && length > 0
    {
        head.headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
    Ok((Request::from_parts(head, ()), body))
}

/// Takes the URI and the `Host` header out of `head`, and returns the absolute URI.
fn take_absolute_uri(head: &mut Parts, https: bool) -> Result<Uri, Error> {
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    if let Some(host) = head.headers.remove(HOST) {
        let host = Bytes::copy_from_slice(host.as_bytes());
        let authority = Authority::from_maybe_shared(host).map_err(invalid_request_error)?;
        parts.authority = Some(authority);
    }
    parts.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    Uri::from_parts(parts).map_err(invalid_request_error)
}

/// Removes connection-specific headers, and the headers that `Connection` names (RFC 9113 §8.2.2).
fn remove_connection_specific_headers(headers: &mut HeaderMap) {
    const CONNECTION_SPECIFIC_HEADERS: [HeaderName; 6] = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    if headers.contains_key(CONNECTION) {
        for name in names_in_connection_header(headers) {
            headers.remove(name);
        }
    }
    for name in CONNECTION_SPECIFIC_HEADERS {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
}

fn names_in_connection_header(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

fn invalid_request_error(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidRequest, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http2_head(headers: &[(&str, &str)], body: &'static str) -> Request<()> {
        let mut request = Request::builder().uri("/path?query");
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body)).unwrap();
        into_http2(request, true).unwrap().0
    }

    #[test]
    fn the_host_header_becomes_the_authority() {
        let head = http2_head(&[("host", "[::1]:8443")], "");
        assert_eq!(head.uri(), "https://[::1]:8443/path?query");
        assert_eq!(head.version(), Version::HTTP_2);
        assert!(head.headers().is_empty());
    }

    #[test]
    fn connection_specific_headers_are_removed() {
        let head = http2_head(
            &[
                ("host", "a.example"),
                ("connection", "close, X-Hop"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("te", "gzip"),
                ("x-hop", "1"),
                ("x-end", "1"),
            ],
            "",
        );
        let names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-end"]);
        let head = http2_head(&[("host", "a.example"), ("te", "trailers")], "");
        assert_eq!(head.headers()[TE], "trailers");
    }

    #[test]
    fn content_length_is_added() {
        let head = http2_head(&[("host", "a.example")], "four");
        assert_eq!(head.headers()[CONTENT_LENGTH], "4");
    }

    #[test]
    fn an_invalid_host_is_an_invalid_request() {
        let request = Request::builder().header("host", "a b");
        let request = request.body(Body::default()).unwrap();
        let error = into_http2(request, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
}
