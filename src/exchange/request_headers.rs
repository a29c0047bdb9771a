//! The head that is sent.

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
use crate::limits::{Host, HostFn};
use crate::request::origin;
use crate::{Error, ErrorKind, Request};

/// The headers that requests get beside their overriding.
#[derive(Debug, Default)]
pub(crate) struct DefaultHeaders {
    pub(crate) user_agent: Option<HeaderValue>,
    /// The codings that are built in; none if they are not to be undone.
    pub(crate) accept_encoding: Option<HeaderValue>,
    /// For every request.
    pub(crate) for_all: HeaderMap,
    /// For requests to one origin: these may be credentials.
    pub(crate) by_origin: HashMap<Box<str>, HeaderMap>,
    /// For the origins that are not among these.
    pub(crate) host_fn: Option<Arc<HostFn>>,
    pub(crate) cookie_jar: CookieJar,
    /// What a request gets that brings nothing of its overriding, put together once.
    pub(crate) base_headers: OnceLock<HeaderMap>,
}

/// So many headers a usual answer has at least.
const TYPICAL_RESPONSE_HEADERS: usize = 6;

/// How the request's target is written.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum TargetForm {
    /// `/path?query`, as an origin server wants it (RFC 9112 §3.2.1).
    Origin,
    /// The whole URL, as a proxy wants it (RFC 9112 §3.2.2) and a service in this process can use it.
    Absolute,
}

impl DefaultHeaders {
    /// Gives what goes out its head. A header of the request itself wins over one for its origin, and that over a default.
    pub(super) fn apply(
        &self,
        request: &Request,
        url: &Url,
        target_form: TargetForm,
        outgoing: &mut http::Request<Body>,
    ) -> Result<(), Error> {
        let length = outgoing.body().len();
        *outgoing.method_mut() = request.method().clone();
        *outgoing.uri_mut() = request_target(url, target_form)?;
        let headers = outgoing.headers_mut();
        // Not a clone, which would have no room to spare: hyper reads the answer's headers into the same memory.
        let base_headers = self.base_headers.get_or_init(|| self.build_base_headers());
        headers.reserve(base_headers.len().max(TYPICAL_RESPONSE_HEADERS));
        for (name, value) in base_headers {
            headers.append(name, value.clone());
        }
        // The first is Host.
        if let Some(first) = headers.values_mut().next() {
            *first = host_header(url)?;
        }
        let dynamic_host = self.dynamic_host(url)?;
        let configured = match self.by_origin.is_empty() {
            true => None,
            false => self.by_origin.get(origin(url)),
        };
        let origin_headers = configured.or(dynamic_host.as_deref().map(|host| &host.headers));
        for overriding in origin_headers.into_iter().chain([request.headers()]) {
            override_headers(headers, overriding, target_form);
        }
        let uses_base_headers = origin_headers.is_none() && request.headers().is_empty();
        // A range would be one of the coded bytes, which cannot be decoded on their own.
        if !(uses_base_headers && self.for_all.is_empty()) && headers.contains_key(RANGE) {
            let mut overriding = origin_headers
                .into_iter()
                .chain([request.headers(), &self.for_all]);
            if !overriding.any(|overriding| overriding.contains_key(ACCEPT_ENCODING)) {
                headers.remove(ACCEPT_ENCODING);
            }
        }
        self.cookie_jar.apply(headers, url);
        // hyper says nothing of an empty body; these methods should (RFC 9110 §8.6).
        let expects_content = matches!(
            *request.method(),
            Method::POST | Method::PUT | Method::PATCH
        );
        if expects_content && length == Some(0) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(())
    }

    fn build_base_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, HeaderValue::from_static(""));
        for (name, value) in &self.for_all {
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

    /// What a function says of an origin that is not known otherwise.
    fn dynamic_host(&self, url: &Url) -> Result<Option<Arc<Host>>, Error> {
        match &self.host_fn {
            Some(host_fn) if !self.by_origin.contains_key(origin(url)) => host_fn.get(origin(url)),
            _ => Ok(None),
        }
    }
}

/// Puts `overriding` in place of what there is of the same names.
fn override_headers(headers: &mut HeaderMap, overriding: &HeaderMap, target_form: TargetForm) {
    for name in overriding.keys() {
        // That one is for a proxy, and is of no concern to the server (RFC 9110 §11.7.2).
        if target_form == TargetForm::Origin && name == PROXY_AUTHORIZATION {
            continue;
        }
        let mut values = overriding.get_all(name).iter().cloned();
        // Of Host there must be one (RFC 9112 §3.2): the last.
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

fn request_target(url: &Url, target_form: TargetForm) -> Result<Uri, Error> {
    let invalid = |error: http::uri::InvalidUri| Error::new(ErrorKind::InvalidRequest, error);
    match target_form {
        TargetForm::Origin => {
            let path_and_query =
                Bytes::copy_from_slice(url[Position::BeforePath..Position::AfterQuery].as_bytes());
            let path_and_query =
                PathAndQuery::from_maybe_shared(path_and_query).map_err(invalid)?;
            Ok(Uri::from(path_and_query))
        }
        TargetForm::Absolute => url[..Position::AfterQuery].parse().map_err(invalid),
    }
}

thread_local! {
    /// What was said last on this thread: mostly the next is the same, and shares its memory.
    static LAST_HOST: RefCell<HeaderValue> = const { RefCell::new(HeaderValue::from_static("")) };
}

/// The host, and the port where it is not the scheme's overriding (RFC 9110 §7.2).
fn host_header(url: &Url) -> Result<HeaderValue, Error> {
    let host = &url[Position::BeforeHost..Position::AfterPort];
    LAST_HOST.with_borrow_mut(|last| {
        if last.as_bytes() != host.as_bytes() {
            *last = HeaderValue::from_str(host)
                .map_err(|error| Error::new(ErrorKind::InvalidRequest, error))?;
        }
        Ok(last.clone())
    })
}
