//! Reads a response head again after hyper has rejected it.
//!
//! hyper rejects heads that most clients accept: more than 100 fields, folded lines, malformed
//! lines. hyper's options to accept them either cost every response time, or accept ambiguous
//! forms of `Content-Length` too. So hyper parses each head with its default options. Only after
//! hyper has rejected a head, a [`LenientHeadParser`](crate::wire::lenient_head::LenientHeadParser)
//! reads it again.

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

/// The properties of a sent request that are needed to read its response again.
pub(super) struct SentRequest {
    is_head_method: bool,
    has_body: bool,
}

impl SentRequest {
    pub(super) fn new(request: &Request<Body>) -> Self {
        Self {
            is_head_method: *request.method() == Method::HEAD,
            has_body: !request.body().is_end_stream(),
        }
    }
}

impl Connection {
    /// Reads a response head again if `error` means that hyper has rejected it.
    ///
    /// Returns the request that must be passed to `sender`. It is not sent, because the server has
    /// received the request already: it makes hyper expect the response.
    #[cold]
    pub(super) fn prepare_head_reread(
        &mut self,
        error: &SendError,
        unsent: &UnsentRequest,
        sent_request: &SentRequest,
    ) -> Option<Request<Body>> {
        let rejected = self.take_stream_with_rejected_head(error, unsent)?;
        if sent_request.has_body || self.io_counts.has_write_stalled() {
            // The server may wait for the rest of the request.
            self.idle_timeout_ceiling = Duration::ZERO;
        }
        let request = placeholder_request(sent_request);
        self.restart_hyper_leniently(rejected).then_some(request)
    }

    /// Takes the stream of the connection if `error` means that hyper has rejected a response head
    /// of which the stream still holds all bytes.
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
        // hyper consumes the final head before it checks the length of the body. The unparsed bytes
        // are then a part of the body and must not be parsed as a head.
        let unparsed_length = detached.unparsed_bytes.len() as u64;
        let is_head_unparsed =
            self.io_counts.bytes_read() <= self.io_counts.final_head_offset() + unparsed_length;
        is_head_unparsed.then_some(*detached)
    }
}

/// Creates the request whose response hyper expects when a head is read again. The method decides
/// whether the response has a body.
fn placeholder_request(sent_request: &SentRequest) -> Request<Body> {
    let mut request = Request::new(Body::default());
    if sent_request.is_head_method {
        *request.method_mut() = Method::HEAD;
    }
    request
}

/// Returns the error of the lenient parser, if that is the cause of `error`.
pub(super) fn lenient_head_error(error: &hyper::Error) -> Option<HeadError> {
    let io_error: &io::Error = error.source()?.downcast_ref()?;
    io_error.get_ref()?.downcast_ref().cloned()
}
