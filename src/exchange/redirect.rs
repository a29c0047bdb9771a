//! Derives the request of the next hop from a redirect.
//!
//! The rules are in RFC 9110 §15.4. Where the RFC leaves a choice, the rules of the Fetch standard
//! ("HTTP-redirect fetch") apply, which browsers follow. A redirect to another origin removes the
//! credentials from the request. A later redirect does not restore them, not even a redirect back
//! to the first origin.

use http::header::{HeaderMap, LOCATION};
use http::{Method, StatusCode};
use url::Url;

use crate::credentials::mask_possible_user_info;
use crate::error::{BoxError, Error, ErrorKind};
use crate::header_url::{percent_encode_non_utf8, resolve_url_without_user_info};
use crate::redacted_url::RedactedUrl;
use crate::request::{Request, origin};

/// Whether a response with this status is a redirect to its `Location`. 300 leaves the choice to
/// the user, and 304 refers to a cache.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Whether the response names a target. An empty `Location` is not a target, although it is a valid
/// reference (RFC 3986 §4.4): a redirect to the same URL would never end.
pub(crate) fn has_location(headers: &HeaderMap) -> bool {
    let location = headers.get(LOCATION);
    location.is_some_and(|location| !location.as_bytes().trim_ascii().is_empty())
}

/// Builds the request of the next hop. `url` is the URL that responded with the redirect.
///
/// # Errors
///
/// Returns [`ErrorKind::Redirect`] if `Location` is missing or is not a URL.
pub(crate) fn redirected_request(
    request: &Request,
    url: &Url,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Request, Error> {
    let mut target = redirect_target(url, headers).map_err(|source| {
        Error::new(ErrorKind::Redirect, source).with_detail("the target is not a URL")
    })?;
    // A `Location` without a fragment inherits the fragment of the request URL (RFC 9110 §10.2.2).
    if target.fragment().is_none() {
        target.set_fragment(url.fragment());
    }
    let is_cross_origin = origin(url) != origin(&target);
    let changes_method_to_get = redirect_changes_method_to_get(status, request.method());
    Ok(request.redirected(target, changes_method_to_get, is_cross_origin))
}

/// Returns the detail of an error that quotes the `Location` of a response. The detail shows no
/// userinfo and no value of a query parameter.
pub(crate) fn quoted_location_detail(headers: &HeaderMap) -> Option<String> {
    let location = percent_encode_non_utf8(headers.get(LOCATION)?.as_bytes());
    let location = mask_possible_user_info(&location);
    Some(format!("its Location is {:?}", RedactedUrl(&location)))
}

/// Returns the target of a redirect, without userinfo. `url` is the URL that responded with the
/// redirect.
///
/// # Errors
///
/// Returns an error if `Location` is missing or is not a URL.
pub(crate) fn redirect_target(url: &Url, headers: &HeaderMap) -> Result<Url, BoxError> {
    let location = headers.get(LOCATION).ok_or("there is no Location")?;
    let location = percent_encode_non_utf8(location.as_bytes());
    Ok(resolve_url_without_user_info(&location, url)?)
}

/// Whether a redirect changes the method to GET. 303 changes every method except HEAD. 301 and 302
/// change POST only, as in browsers (RFC 9110 §15.4.2 and §15.4.3).
fn redirect_changes_method_to_get(status: StatusCode, method: &Method) -> bool {
    match status {
        StatusCode::SEE_OTHER => !matches!(*method, Method::GET | Method::HEAD),
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *method == Method::POST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderValue, PROXY_AUTHORIZATION};

    use super::*;
    use crate::request::RequestBuilder;

    fn follow(request: &Request, status: u16, location: &str) -> Result<Request, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(
            LOCATION,
            HeaderValue::from_bytes(location.as_bytes()).unwrap(),
        );
        let status = StatusCode::from_u16(status).unwrap();
        redirected_request(request, request.url().unwrap(), status, &headers)
    }

    #[test]
    fn only_five_statuses_redirect_and_only_with_a_location() {
        let request = Request::get("http://a.example/").build();
        for code in 300..400 {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(
                is_redirect(status),
                [301, 302, 303, 307, 308].contains(&code),
                "{code}"
            );
            assert!(follow(&request, code, "/x").is_ok());
            let headers = HeaderMap::new();
            assert!(!has_location(&headers));
            let error = redirected_request(&request, request.url().unwrap(), status, &headers);
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Redirect);
        }
    }

    #[test]
    fn empty_location_is_not_a_target() {
        for (location, is_target) in [
            ("", false),
            (" ", false),
            ("\t \t", false),
            ("#", true),
            ("?", true),
            (".", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(location));
            assert_eq!(has_location(&headers), is_target, "{location:?}");
        }
    }

    #[test]
    fn methods_change_as_in_the_fetch_standard() {
        for (status, method, becomes) in [
            (301, Method::POST, Method::GET),
            (302, Method::POST, Method::GET),
            (303, Method::POST, Method::GET),
            (303, Method::PUT, Method::GET),
            (303, Method::HEAD, Method::HEAD),
            (301, Method::PUT, Method::PUT),
            (302, Method::DELETE, Method::DELETE),
            (307, Method::POST, Method::POST),
            (308, Method::PATCH, Method::PATCH),
        ] {
            let request = Request::new(method.clone(), "http://a.example/")
                .body("text")
                .header("content-type", "text/plain")
                .build();
            let next = follow(&request, status, "/x").unwrap();
            assert_eq!(*next.method(), becomes, "{status} {method}");
            let keeps_body = becomes == method && status != 303;
            assert_eq!(
                next.body().known_length() != Some(0),
                keeps_body || method == Method::HEAD,
                "{status} {method}"
            );
            assert_eq!(
                next.headers().contains_key(CONTENT_TYPE),
                keeps_body || method == Method::HEAD
            );
        }
    }

    #[test]
    fn location_is_resolved_and_inherits_the_fragment() {
        for (base, location, target) in [
            ("http://a.example/b/c?d#e", "f", "http://a.example/b/f#e"),
            ("http://a.example/b/c?d#e", "f#g", "http://a.example/b/f#g"),
            ("http://a.example/b/c?d", "?h", "http://a.example/b/c?h"),
            ("http://a.example/b", "//b.example/x", "http://b.example/x"),
            (
                "https://a.example/b",
                "HTTP://B.example:80/x",
                "http://b.example/x",
            ),
            (
                "http://a.example/b",
                "http://user:pass@b.example/",
                "http://b.example/",
            ),
            ("http://a.example/b", "", "http://a.example/b"),
            ("http://a.example/b", "/é", "http://a.example/%C3%A9"),
        ] {
            let next = follow(&Request::get(base).build(), 302, location).unwrap();
            assert_eq!(next.url_str(), target);
            assert!(!next.headers().contains_key(AUTHORIZATION));
        }
    }

    #[test]
    fn location_that_is_not_a_url_is_an_error_and_an_unsupported_scheme_an_invalid_request() {
        let request = Request::get("http://a.example/").build();
        assert_eq!(
            follow(&request, 302, "http://[::1").unwrap_err().kind(),
            ErrorKind::Redirect
        );
        for location in [
            "ftp://a.example/",
            "file:///etc/passwd",
            "javascript:alert(1)",
        ] {
            let next = follow(&request, 302, location).unwrap();
            assert_eq!(
                next.url_if_sendable().unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{location}"
            );
        }
    }

    /// Covers 5 statuses, 7 redirect paths and 6 kinds of credentials.
    #[test]
    fn credentials_never_leave_their_origin() {
        let secrets = |request: RequestBuilder| {
            request
                .header("authorization", "s3cr3t")
                .header("cookie", "s3cr3t")
                .header("proxy-authorization", "s3cr3t")
                .header("x-marked", sensitive("s3cr3t"))
        };
        let targets: [(&[&str], bool); 7] = [
            (&["http://a.example/"], true),
            (&["http://a.example/other"], true),
            (&["http://a.example:8080/"], false),
            (&["https://a.example/"], false),
            (&["http://sub.a.example/"], false),
            (&["http://b.example/"], false),
            (&["http://b.example/", "http://a.example/"], false),
        ];
        let mut cells = 0;
        for status in [301, 302, 303, 307, 308] {
            for (path, stays) in targets {
                let by_url = Request::get("http://user:s3cr3t@a.example/");
                let by_bearer = Request::get("http://a.example/").bearer_auth("s3cr3t");
                for start in [
                    secrets(Request::get("http://a.example/")),
                    by_url,
                    by_bearer,
                ]
                .map(RequestBuilder::build)
                {
                    let mut request = start.clone();
                    for location in path {
                        request = follow(&request, status, location).unwrap();
                    }
                    for name in [
                        AUTHORIZATION,
                        COOKIE,
                        PROXY_AUTHORIZATION,
                        "x-marked".try_into().unwrap(),
                    ] {
                        let had = start.headers().contains_key(&name);
                        assert_eq!(
                            request.headers().contains_key(&name),
                            had && stays,
                            "{status} {path:?} {name}"
                        );
                        cells += usize::from(had);
                    }
                }
            }
        }
        assert_eq!(cells, 5 * 7 * 6);
    }

    fn sensitive(text: &'static str) -> HeaderValue {
        let mut value = HeaderValue::from_static(text);
        value.set_sensitive(true);
        value
    }
}
