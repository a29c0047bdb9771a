//! Reads response heads again after hyper has rejected them.
//!
//! hyper rejects some heads that most clients accept: heads with more than 100 fields, folded lines
//! or malformed lines. hyper's options to accept such heads either slow down every response or also
//! accept ambiguous forms of `Content-Length`. Therefore hyper parses each head with its default
//! options, and a [`LenientHeadParser`](crate::wire::lenient_head::LenientHeadParser) parses only
//! the rejected heads again.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::{Method, Request};
use http_body::Body as _;

use super::connection::{Connection, DetachedStream};
use crate::body::Body;
use crate::error::ErrorKind;
use crate::wire::lenient_head::HeadError;
use crate::wire::send_error::{SendError, UnsentRequest};

/// The properties of a sent request that are needed if its response head is read again.
pub(super) struct SentRequestProperties {
    is_head_method: bool,
    has_body: bool,
}

impl SentRequestProperties {
    pub(super) fn new(request: &Request<Body>) -> Self {
        Self {
            is_head_method: *request.method() == Method::HEAD,
            has_body: !request.body().is_end_stream(),
        }
    }
}

impl Connection {
    /// Prepares the connection for reading a rejected response head again. Returns `None` unless
    /// `error` means that hyper has rejected a head.
    ///
    /// The caller passes the returned placeholder request to `sender`, so that hyper expects a
    /// response. The placeholder is not sent to the server, which has already received the real
    /// request.
    #[cold]
    pub(super) fn prepare_head_reread(
        &mut self,
        error: &SendError,
        unsent: &UnsentRequest,
        sent_request: &SentRequestProperties,
    ) -> Option<Request<Body>> {
        let rejected = self.take_stream_with_rejected_head(error, unsent)?;
        if sent_request.has_body || self.io_counts.has_write_stalled() {
            // The connection must not be reused: the server may wait for the rest of the request.
            self.idle_timeout_ceiling = Duration::ZERO;
        }
        let request = placeholder_request(sent_request);
        self.restart_hyper_leniently(rejected).then_some(request)
    }

    /// Takes the byte stream if `error` means that hyper has rejected a response head, and if no
    /// byte of this head has been parsed.
    fn take_stream_with_rejected_head(
        &mut self,
        error: &SendError,
        unsent: &UnsentRequest,
    ) -> Option<DetachedStream> {
        let is_head_rejected = error.error.kind() == ErrorKind::Protocol
            && !self.has_too_many_informational_responses()
            && unsent.is_none();
        if !is_head_rejected || self.reads_heads_leniently {
            return None;
        }
        let detached = self.detached_stream.take()?;
        // hyper may reject the length of the body after it has consumed the head. The unparsed
        // bytes then belong to the body and must not be parsed as a head.
        let unparsed_length = detached.unparsed_bytes.len() as u64;
        let is_head_unparsed =
            self.io_counts.bytes_read() <= self.io_counts.final_head_offset() + unparsed_length;
        is_head_unparsed.then_some(*detached)
    }
}

/// Creates the placeholder request that hyper needs before it reads a head again. Its method
/// decides whether hyper expects a body in the response.
fn placeholder_request(sent_request: &SentRequestProperties) -> Request<Body> {
    let mut request = Request::new(Body::default());
    if sent_request.is_head_method {
        *request.method_mut() = Method::HEAD;
    }
    request
}

/// Returns the error of the lenient parser if it is the cause of `error`.
pub(super) fn lenient_head_error(error: &hyper::Error) -> Option<HeadError> {
    let io_error: &io::Error = error.source()?.downcast_ref()?;
    io_error.get_ref()?.downcast_ref().cloned()
}
