//! The next hop, as a function of the last one.
//!
//! The rules are those of RFC 9110 §15.4 and, where it leaves a choice, of the Fetch standard ("HTTP-redirect fetch"),
//! which is what browsers do. What must not leave an origin is taken out of the request itself, so that no later hop can
//! bring it back, not even one to where it came from.

use http::header::{HeaderMap, LOCATION};
use http::{Method, StatusCode};
use url::Url;

use crate::request::origin;
use crate::{Error, ErrorKind, Request};

/// Whether this status sends a client elsewhere, if it says where. 300 leaves the choice to a person, and 304 to a cache.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Whether this response sends a client elsewhere.
pub(super) fn has_redirect_target(status: StatusCode, headers: &HeaderMap) -> bool {
    is_redirect(status) && headers.contains_key(LOCATION)
}

/// The request that a redirect asks for; none if the response is no redirect.
///
/// # Errors
///
/// [`ErrorKind::Redirect`] if it points to what is no URL.
pub(crate) fn redirected_request(
    request: &Request,
    url: &Url,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Request>, Error> {
    let Some(location) = headers.get(LOCATION).filter(|_| is_redirect(status)) else {
        return Ok(None);
    };
    let mut target = std::str::from_utf8(location.as_bytes())
        .map_err(|error| invalid_location(error.into()))
        .and_then(|location| {
            url.join(location)
                .map_err(|error| invalid_location(error.into()))
        })?;
    // The part of the page that was asked for is still wanted, unless the server names another (RFC 9110 §10.2.2).
    if target.fragment().is_none() {
        target.set_fragment(url.fragment());
    }
    let is_cross_origin = origin(url) != strip_user_info(&mut target);
    Ok(Some(request.redirected(
        target,
        switches_to_get(status, request.method()),
        is_cross_origin,
    )))
}

fn invalid_location(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::new(ErrorKind::Redirect, source).with_detail("it points to no URL")
}

/// User-info in a `Location` would let one server choose the credentials that are shown to another: it is left out.
fn strip_user_info(target: &mut Url) -> &str {
    // These fail only for a URL that cannot have any.
    let _ = target.set_password(None);
    let _ = target.set_username("");
    origin(target)
}

/// 303 is answered by looking; 301 and 302 turn a POST into a GET, as they always have (RFC 9110 §15.4.2 and §15.4.3).
fn switches_to_get(status: StatusCode, method: &Method) -> bool {
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

    fn hop(request: &Request, status: u16, location: &str) -> Result<Option<Request>, Error> {
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
        for status in 300..400 {
            let followed = hop(&request, status, "/x").unwrap().is_some();
            assert_eq!(
                followed,
                [301, 302, 303, 307, 308].contains(&status),
                "{status}"
            );
            let status = StatusCode::from_u16(status).unwrap();
            let bare =
                redirected_request(&request, request.url().unwrap(), status, &HeaderMap::new());
            assert!(bare.unwrap().is_none());
        }
    }

    #[test]
    fn methods_change_as_the_fetch_standard_has_it() {
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
            let next = hop(&request, status, "/x").unwrap().unwrap();
            assert_eq!(*next.method(), becomes, "{status} {method}");
            let keeps_body = becomes == method && status != 303;
            assert_eq!(
                next.body().len() != Some(0),
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
    fn a_location_is_resolved_and_keeps_the_fragment() {
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
            let next = hop(&Request::get(base).build(), 302, location)
                .unwrap()
                .unwrap();
            assert_eq!(next.url_str(), target);
            assert!(!next.headers().contains_key(AUTHORIZATION));
        }
    }

    #[test]
    fn a_location_that_is_no_url_is_an_error_and_one_that_cannot_be_fetched_an_invalid_hop() {
        let request = Request::get("http://a.example/").build();
        assert_eq!(
            hop(&request, 302, "http://[::1").unwrap_err().kind(),
            ErrorKind::Redirect
        );
        for location in [
            "ftp://a.example/",
            "file:///etc/passwd",
            "javascript:alert(1)",
        ] {
            let next = hop(&request, 302, location).unwrap().unwrap();
            assert_eq!(
                next.checked_url().unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{location}"
            );
        }
    }

    /// 5 statuses, 7 ways to go, 6 kinds of secret.
    #[test]
    fn no_secret_leaves_its_origin() {
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
                        request = hop(&request, status, location).unwrap().unwrap();
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
