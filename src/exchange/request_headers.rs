//! Builds the request target and the headers of an outgoing request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::Method;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION,
    RANGE, USER_AGENT,
};
use http::uri::{PathAndQuery, Uri};
use url::{Position, Url};

use super::CookieJar;
use crate::body::Body;
use crate::error::{Error, ErrorKind};
use crate::limits::{Host, HostFn};
use crate::request::{Request, origin};
use crate::response_body::accept_encoding;

/// The headers that a Fetcher adds to requests.
#[derive(Debug, Default)]
pub(crate) struct DefaultHeaders {
    pub(crate) user_agent: Option<HeaderValue>,
    /// The supported content codings; `None` if bodies are not decoded.
    pub(crate) accept_encoding: Option<HeaderValue>,
    /// The headers for all requests.
    pub(crate) headers_for_all_requests: HeaderMap,
    /// The headers for requests to one origin. The key is the origin. The values may contain
    /// credentials.
    pub(crate) headers_by_origin: HashMap<Box<str>, HeaderMap>,
    /// The user's callback that returns the headers for an origin without an entry in
    /// `headers_by_origin`.
    pub(crate) host_fn: Option<Arc<HostFn>>,
    pub(crate) cookie_jar: CookieJar,
    /// The headers of a request without headers of its own. The first request builds them. `Host`
    /// comes first, with an empty value.
    pub(crate) prebuilt_default_headers: OnceLock<HeaderMap>,
}

/// The minimum capacity of a request's header map. hyper stores the response headers in the same
/// map.
const MIN_HEADER_MAP_CAPACITY: usize = 6;

/// The form of the request target.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum RequestTargetForm {
    /// `/path?query`, for an origin server (RFC 9112 §3.2.1).
    OriginForm,
    /// The complete URL, for a forward proxy (RFC 9112 §3.2.2) or a service in this process.
    AbsoluteForm,
}

impl DefaultHeaders {
    /// Sets the method, target and headers of an outgoing request. A header of the request itself
    /// overrides a header for its origin, which overrides a header for all requests.
    pub(super) fn set_request_head(
        &self,
        request: &Request,
        url: &Url,
        target_form: RequestTargetForm,
        outgoing_request: &mut http::Request<Body>,
    ) -> Result<(), Error> {
        let body_length = outgoing_request.body().known_length();
        *outgoing_request.method_mut() = request.method().clone();
        *outgoing_request.uri_mut() = request_target(url, target_form)?;
        let headers = outgoing_request.headers_mut();
        // The headers are copied one by one: a clone of the map would have no spare capacity for
        // the response headers.
        let prebuilt_default_headers = self
            .prebuilt_default_headers
            .get_or_init(|| self.build_default_headers());
        headers.reserve(prebuilt_default_headers.len().max(MIN_HEADER_MAP_CAPACITY));
        for (name, value) in prebuilt_default_headers {
            headers.append(name, value.clone());
        }
        // The first default header is `Host`.
        if let Some(first) = headers.values_mut().next() {
            *first = host_header_value(url)?;
        }
        let host_settings_from_host_fn = self.host_settings_from_host_fn(url)?;
        let static_headers = if self.headers_by_origin.is_empty() {
            None
        } else {
            self.headers_by_origin.get(origin(url))
        };
        let origin_headers = static_headers.or(host_settings_from_host_fn
            .as_deref()
            .map(|host| &host.headers));
        for overrides in origin_headers.into_iter().chain([request.headers()]) {
            override_headers(headers, overrides, target_form);
        }
        let has_own_headers = origin_headers.is_some() || !request.headers().is_empty();
        let has_range = (has_own_headers || !self.headers_for_all_requests.is_empty())
            && headers.contains_key(RANGE);
        let decodes_content = request.decodes_content();
        if has_range || decodes_content.is_some() {
            let is_explicit = origin_headers
                .into_iter()
                .chain([request.headers(), &self.headers_for_all_requests])
                .any(|headers| headers.contains_key(ACCEPT_ENCODING));
            if !is_explicit {
                set_or_remove_accept_encoding(headers, decodes_content, has_range);
            }
        }
        self.cookie_jar.add_cookie_header(headers, url);
        // hyper omits the length of an empty body, but a request with one of these methods should
        // send the length (RFC 9110 §8.6).
        let expects_content = matches!(
            *request.method(),
            Method::POST | Method::PUT | Method::PATCH
        );
        if expects_content && body_length == Some(0) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(())
    }

    fn build_default_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, HeaderValue::from_static(""));
        for (name, value) in &self.headers_for_all_requests {
            headers.insert(name, value.clone());
        }
        let standard_headers = [
            (USER_AGENT, self.user_agent.clone()),
            (ACCEPT, Some(HeaderValue::from_static("*/*"))),
            (ACCEPT_ENCODING, self.accept_encoding.clone()),
        ];
        for (name, value) in standard_headers {
            if let Some(value) = value {
                headers.entry(name).or_insert(value);
            }
        }
        headers
    }

    /// Returns the settings that the callback of the user returns for the origin of `url`. Returns
    /// `None` if there is no callback, or if the origin has static settings.
    fn host_settings_from_host_fn(&self, url: &Url) -> Result<Option<Arc<Host>>, Error> {
        match &self.host_fn {
            Some(host_fn) if !self.headers_by_origin.contains_key(origin(url)) => {
                host_fn.host_settings_for(origin(url))
            }
            _ => Ok(None),
        }
    }
}

/// Sets or removes `Accept-Encoding`, for a range request or for a request that sets whether its
/// response is decoded. `decodes_content` is this setting.
fn set_or_remove_accept_encoding(
    headers: &mut HeaderMap,
    decodes_content: Option<bool>,
    has_range: bool,
) {
    let accepted = match decodes_content {
        Some(false) => Some(HeaderValue::from_static("identity")),
        Some(true) if !has_range => accept_encoding(),
        // A range of an encoded body cannot be decoded on its own. A range request therefore
        // accepts no content coding, unless the user set `Accept-Encoding`.
        _ => None,
    };
    match accepted {
        Some(accepted) => headers.insert(ACCEPT_ENCODING, accepted),
        None => headers.remove(ACCEPT_ENCODING),
    };
}

/// Replaces all values of each header whose name is in `overrides`.
fn override_headers(
    headers: &mut HeaderMap,
    overrides: &HeaderMap,
    target_form: RequestTargetForm,
) {
    for name in overrides.keys() {
        // `Proxy-Authorization` is for proxies only (RFC 9110 §11.7.2).
        if target_form == RequestTargetForm::OriginForm && name == PROXY_AUTHORIZATION {
            continue;
        }
        let mut values = overrides.get_all(name).iter().cloned();
        // A request has exactly one `Host` (RFC 9112 §3.2): the last value is used.
        if name == HOST {
            values.next_back().map(|value| headers.insert(HOST, value));
            continue;
        }
        values.next().map(|value| headers.insert(name, value));
        for value in values {
            headers.append(name, value);
        }
    }
}

fn request_target(url: &Url, target_form: RequestTargetForm) -> Result<Uri, Error> {
    let invalid = |error: http::uri::InvalidUri| Error::new(ErrorKind::InvalidRequest, error);
    match target_form {
        RequestTargetForm::OriginForm => {
            let path_and_query =
                Bytes::copy_from_slice(url[Position::BeforePath..Position::AfterQuery].as_bytes());
            let path_and_query =
                PathAndQuery::from_maybe_shared(path_and_query).map_err(invalid)?;
            Ok(Uri::from(path_and_query))
        }
        RequestTargetForm::AbsoluteForm => url[..Position::AfterQuery].parse().map_err(invalid),
    }
}

thread_local! {
    /// The last `Host` value on this thread. The next request is often to the same host, so it can
    /// share the memory of this value.
    static LAST_HOST_HEADER_VALUE: RefCell<HeaderValue> = const { RefCell::new(HeaderValue::from_static("")) };
}

/// The value of the `Host` header: the host, and the port unless it is the scheme's default (RFC
/// 9110 §7.2).
fn host_header_value(url: &Url) -> Result<HeaderValue, Error> {
    let host = &url[Position::BeforeHost..Position::AfterPort];
    LAST_HOST_HEADER_VALUE.with_borrow_mut(|last| {
        if last.as_bytes() != host.as_bytes() {
            *last = HeaderValue::from_str(host)
                .map_err(|error| Error::new(ErrorKind::InvalidRequest, error))?;
        }
        Ok(last.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_encoding_depends_on_range_and_choice_unless_set_by_the_user() {
        let url = Url::parse("http://a.example/").unwrap();
        let fetcher_default = HeaderValue::from_static("x-fetcher");
        let all_codings = accept_encoding();
        let identity = Some(HeaderValue::from_static("identity"));
        for (choice, has_range, expected) in [
            (None, false, Some(&fetcher_default)),
            (None, true, None),
            (Some(false), false, identity.as_ref()),
            (Some(false), true, identity.as_ref()),
            (Some(true), false, all_codings.as_ref()),
            (Some(true), true, None),
        ] {
            let mut request = Request::get(&url);
            if let Some(decodes_content) = choice {
                request = request.decode_content(decodes_content);
            }
            if has_range {
                request = request.header(RANGE, "bytes=0-1");
            }
            let sent = |defaults: &DefaultHeaders, request: Request| {
                let mut outgoing_request = http::Request::new(Body::default());
                let target_form = RequestTargetForm::OriginForm;
                defaults
                    .set_request_head(&request, &url, target_form, &mut outgoing_request)
                    .unwrap();
                outgoing_request.headers().get(ACCEPT_ENCODING).cloned()
            };
            let defaults = DefaultHeaders {
                accept_encoding: Some(fetcher_default.clone()),
                ..DefaultHeaders::default()
            };
            let by_choice = sent(&defaults, request.clone().build());
            assert_eq!(by_choice.as_ref(), expected, "{choice:?} {has_range}");

            let own_header = request.clone().header(ACCEPT_ENCODING, "x-own");
            assert_eq!(sent(&defaults, own_header.build()).unwrap(), "x-own");
            let mut for_all = DefaultHeaders::default();
            let value = HeaderValue::from_static("x-for-all");
            for_all
                .headers_for_all_requests
                .insert(ACCEPT_ENCODING, value);
            assert_eq!(
                sent(&for_all, request.clone().build()).unwrap(),
                "x-for-all"
            );
            let mut for_origin = defaults;
            let value = HeaderValue::from_static("x-for-origin");
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, value)]);
            for_origin
                .headers_by_origin
                .insert(origin(&url).into(), headers);
            assert_eq!(sent(&for_origin, request.build()).unwrap(), "x-for-origin");
        }
    }
}
