//! Checks that a request can be sent.

use std::sync::Arc;

use http::Method;
use http::header::{self, HeaderValue};
use url::Url;

use super::{Request, UrlOrInvalidText};
use crate::error::{Error, ErrorKind, Result};

/// The length in bytes of the longest URL that `http::Uri` accepts.
const MAX_URL_LEN: usize = u16::MAX as usize - 1;

impl Request {
    /// Checks that the request can be sent, and returns its URL.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidRequest`] if the request cannot be sent.
    pub(crate) fn url_if_sendable(&self) -> Result<&Arc<Url>> {
        let reason = match (&self.url_or_invalid_text, &self.extras().invalid_reason) {
            (UrlOrInvalidText::Url(url), None) => match self.unsendable_reason(url) {
                None => return Ok(url),
                Some(reason) => reason.into(),
            },
            (_, Some(reason)) => reason.clone(),
            (UrlOrInvalidText::InvalidText(_), None) => "it has no URL".into(),
        };
        let mut error = Error::from_kind(ErrorKind::InvalidRequest).with_detail(reason);
        error.set_url(self.url_or_invalid_text.clone());
        Err(error)
    }

    /// Returns the reason why the finished request cannot be sent, or `None` if it can be sent. The
    /// setters of the builder check single values; this function checks combinations of values.
    fn unsendable_reason(&self, url: &Url) -> Option<&'static str> {
        if self.method == Method::CONNECT {
            return Some("the method CONNECT is not supported");
        }
        if url.as_str().len() > MAX_URL_LEN {
            return Some("the URL is longer than 65,534 bytes");
        }
        // The remaining checks concern headers only, and most requests have none.
        let headers = self.headers();
        if headers.is_empty() {
            return None;
        }
        if headers.get_all(header::HOST).iter().nth(1).is_some() {
            return Some("it has more than one Host");
        }
        // If `Content-Length` is too small, the server reads the rest of the body as another
        // request.
        let mut stated_lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let Some(length) = self.body.known_length() else {
            return stated_lengths
                .next()
                .map(|_| "Content-Length is stated for a body whose length is not known");
        };
        let is_correct = |value: &HeaderValue| {
            value.to_str().ok().and_then(|text| text.parse().ok()) == Some(length)
        };
        (!stated_lengths.all(is_correct)).then_some("Content-Length is not the length of the body")
    }
}
