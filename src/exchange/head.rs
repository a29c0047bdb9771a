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

use super::Jar;
use crate::body::Body;
use crate::limits::{Host, HostBy};
use crate::request::origin;
use crate::{Error, ErrorKind, Request};

/// The headers that requests get beside their own.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    pub(crate) user_agent: Option<HeaderValue>,
    /// The codings that are built in; none if they are not to be undone.
    pub(crate) accept_encoding: Option<HeaderValue>,
    /// For every request.
    pub(crate) defaults: HeaderMap,
    /// For requests to one origin: these may be credentials.
    pub(crate) by_origin: HashMap<Box<str>, HeaderMap>,
    /// For the origins that are not among these.
    pub(crate) host_by: Option<Arc<HostBy>>,
    pub(crate) jar: Jar,
    /// What a request gets that brings nothing of its own, put together once.
    pub(crate) plain: OnceLock<HeaderMap>,
}

/// So many headers a usual answer has at least.
const USUAL: usize = 6;

/// How the request's target is written.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// `/path?query`, as an origin server wants it (RFC 9112 §3.2.1).
    Origin,
    /// The whole URL, as a proxy wants it (RFC 9112 §3.2.2) and a service in this process can use it.
    Absolute,
}

impl Heads {
    /// Gives what goes out its head. A header of the request itself wins over one for its origin, and that over a default.
    pub(super) fn put_on(
        &self,
        request: &Request,
        url: &Url,
        form: Form,
        outgoing: &mut http::Request<Body>,
    ) -> Result<(), Error> {
        let length = outgoing.body().len();
        *outgoing.method_mut() = request.method().clone();
        *outgoing.uri_mut() = target(url, form)?;
        let headers = outgoing.headers_mut();
        // Not a clone, which would have no room to spare: hyper reads the answer's headers into the same memory.
        let plain = self.plain.get_or_init(|| self.plain());
        headers.reserve(plain.len().max(USUAL));
        for (name, value) in plain {
            headers.append(name, value.clone());
        }
        // The first is Host.
        if let Some(first) = headers.values_mut().next() {
            *first = host(url)?;
        }
        let asked = self.asked(url)?;
        let known = match self.by_origin.is_empty() {
            true => None,
            false => self.by_origin.get(origin(url)),
        };
        let of_origin = known.or(asked.as_deref().map(|host| &host.headers));
        for own in of_origin.into_iter().chain([request.header_map()]) {
            replace(headers, own, form);
        }
        let is_plain = of_origin.is_none() && request.header_map().is_empty();
        // A range would be one of the coded bytes, which cannot be decoded on their own.
        if !(is_plain && self.defaults.is_empty()) && headers.contains_key(RANGE) {
            let mut own = of_origin
                .into_iter()
                .chain([request.header_map(), &self.defaults]);
            if !own.any(|own| own.contains_key(ACCEPT_ENCODING)) {
                headers.remove(ACCEPT_ENCODING);
            }
        }
        self.jar.add(headers, url);
        // hyper says nothing of an empty body; these methods should (RFC 9110 §8.6).
        let gives_content = matches!(
            *request.method(),
            Method::POST | Method::PUT | Method::PATCH
        );
        if gives_content && length == Some(0) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(())
    }

    fn plain(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, HeaderValue::from_static(""));
        for (name, value) in &self.defaults {
            headers.insert(name, value.clone());
        }
        let ours = [
            (USER_AGENT, self.user_agent.clone()),
            (ACCEPT, Some(HeaderValue::from_static("*/*"))),
            (ACCEPT_ENCODING, self.accept_encoding.clone()),
        ];
        for (name, value) in ours {
            if let Some(value) = value {
                headers.entry(name).or_insert(value);
            }
        }
        headers
    }

    /// What a function says of an origin that is not known otherwise.
    fn asked(&self, url: &Url) -> Result<Option<Arc<Host>>, Error> {
        match &self.host_by {
            Some(host_by) if !self.by_origin.contains_key(origin(url)) => host_by.get(origin(url)),
            _ => Ok(None),
        }
    }
}

/// Puts `own` in place of what there is of the same names.
fn replace(headers: &mut HeaderMap, own: &HeaderMap, form: Form) {
    for name in own.keys() {
        // That one is for a proxy, and is of no concern to the server (RFC 9110 §11.7.2).
        if form == Form::Origin && name == PROXY_AUTHORIZATION {
            continue;
        }
        let mut values = own.get_all(name).iter().cloned();
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

fn target(url: &Url, form: Form) -> Result<Uri, Error> {
    let invalid = |error: http::uri::InvalidUri| Error::new(ErrorKind::InvalidRequest, error);
    match form {
        Form::Origin => {
            let path_and_query =
                Bytes::copy_from_slice(url[Position::BeforePath..Position::AfterQuery].as_bytes());
            let path_and_query =
                PathAndQuery::from_maybe_shared(path_and_query).map_err(invalid)?;
            Ok(Uri::from(path_and_query))
        }
        Form::Absolute => url[..Position::AfterQuery].parse().map_err(invalid),
    }
}

thread_local! {
    /// What was said last on this thread: mostly the next is the same, and shares its memory.
    static LAST_HOST: RefCell<HeaderValue> = const { RefCell::new(HeaderValue::from_static("")) };
}

/// The host, and the port where it is not the scheme's own (RFC 9110 §7.2).
fn host(url: &Url) -> Result<HeaderValue, Error> {
    let host = &url[Position::BeforeHost..Position::AfterPort];
    LAST_HOST.with_borrow_mut(|last| {
        if last.as_bytes() != host.as_bytes() {
            *last = HeaderValue::from_str(host)
                .map_err(|error| Error::new(ErrorKind::InvalidRequest, error))?;
        }
        Ok(last.clone())
    })
}
