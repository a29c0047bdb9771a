//! The head that is sent.

use std::collections::HashMap;
use std::sync::Arc;

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
}

/// How the request's target is written.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// `/path?query`, as an origin server wants it (RFC 9112 §3.2.1).
    Origin,
    /// The whole URL, as a proxy wants it (RFC 9112 §3.2.2) and a service in this process can use it.
    Absolute,
}

impl Heads {
    /// The request as it goes out. A header of the request itself wins over one for its origin, and that over a default.
    pub(super) fn outgoing(
        &self,
        request: &Request,
        url: &Url,
        form: Form,
        body: Body,
    ) -> Result<http::Request<Body>, Error> {
        let length = body.len();
        let mut outgoing = http::Request::new(body);
        *outgoing.method_mut() = request.method().clone();
        *outgoing.uri_mut() = target(url, form)?;
        let headers = outgoing.headers_mut();
        headers.reserve(5 + request.header_map().len());
        headers.insert(HOST, host(url)?);
        for (name, value) in request.header_map() {
            if *name == HOST {
                // Of Host there must be one, and it has been set (RFC 9112 §3.2).
                headers.insert(HOST, value.clone());
            } else if form == Form::Absolute || name != PROXY_AUTHORIZATION {
                // That one is for a proxy, and is of no concern to the server (RFC 9110 §11.7.2).
                headers.append(name, value.clone());
            }
        }
        let asked = self.asked(url)?;
        let known = match self.by_origin.is_empty() {
            true => None,
            false => self.by_origin.get(origin(url)),
        };
        if let Some(of_origin) = known.or(asked.as_deref().map(|host| &host.headers)) {
            if let Some(host) = of_origin.get(HOST)
                && !request.header_map().contains_key(HOST)
            {
                headers.insert(HOST, host.clone());
            }
            add_missing(headers, of_origin);
            if form == Form::Origin {
                headers.remove(PROXY_AUTHORIZATION);
            }
        }
        self.jar.add(headers, url);
        add_missing(headers, &self.defaults);
        if let Some(user_agent) = &self.user_agent {
            headers
                .entry(USER_AGENT)
                .or_insert_with(|| user_agent.clone());
        }
        headers
            .entry(ACCEPT)
            .or_insert(HeaderValue::from_static("*/*"));
        // A range would be one of the coded bytes, which cannot be decoded on their own.
        if let Some(codings) = &self.accept_encoding
            && !headers.contains_key(RANGE)
        {
            headers
                .entry(ACCEPT_ENCODING)
                .or_insert_with(|| codings.clone());
        }
        // hyper says nothing of an empty body; these methods should (RFC 9110 §8.6).
        let gives_content = matches!(
            *request.method(),
            Method::POST | Method::PUT | Method::PATCH
        );
        if gives_content && length == Some(0) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(outgoing)
    }
}

impl Heads {
    /// What a function says of an origin that is not known otherwise.
    fn asked(&self, url: &Url) -> Result<Option<Arc<Host>>, Error> {
        match &self.host_by {
            Some(host_by) if !self.by_origin.contains_key(origin(url)) => host_by.get(origin(url)),
            _ => Ok(None),
        }
    }
}

/// `more` has one value of a name.
fn add_missing(headers: &mut HeaderMap, more: &HeaderMap) {
    for (name, value) in more {
        headers.entry(name).or_insert_with(|| value.clone());
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

/// The host, and the port where it is not the scheme's own (RFC 9110 §7.2).
fn host(url: &Url) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort])
        .map_err(|error| Error::new(ErrorKind::InvalidRequest, error))
}
