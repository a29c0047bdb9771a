//! The error of a request that got no response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::Request;

use crate::body::Body;
use crate::error::{Error, ErrorKind};

/// A request that is not sent yet, or `None` while a connection holds the request.
///
/// A request is large, so it stays in one place and is passed by reference. A connection takes the
/// request to send it, and puts the request back if none of its bytes were written.
pub(crate) type UnsentRequest = Option<Request<Body>>;

/// The reason why a request got no response, and whether the server may have processed the request.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) error: Error,
    /// The connection had served another request before.
    pub(crate) on_reused_connection: bool,
    /// Either no byte of the request was written, or no byte of a response was read.
    pub(crate) no_response: bool,
    /// The peer did not and will not process the request (RFC 9113, 8.7), or the connection accepts
    /// no more requests. Even a request that is not idempotent may be sent again on another
    /// connection.
    pub(crate) unprocessed: bool,
    /// How an HTTP/2 connection refused the request, if it did so for this request or for all
    /// further ones. `None` if the origin requires HTTP/1.1.
    pub(crate) refusal: Option<Refusal>,
}

/// How an HTTP/2 connection refused an unprocessed request.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) refusal_reason: RefusalReason,
    /// Whether the connection has delivered a response to any request.
    has_connection_responded: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(not(feature = "http2"), expect(dead_code))]
pub(crate) enum RefusalReason {
    /// The server ends the connection in order (GOAWAY with NO_ERROR).
    Shutdown,
    /// The server requires fewer requests (ENHANCE_YOUR_CALM).
    Overload,
    /// Any other error code, or a connection that closed before the request was sent.
    Failure,
}

impl Refusal {
    #[cfg(feature = "http2")]
    pub(super) fn new(
        refusal_reason: RefusalReason,
        has_connection_responded: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            refusal_reason,
            has_connection_responded: Arc::clone(has_connection_responded),
        }
    }

    /// Whether the connection has delivered a response to any request so far.
    pub(crate) fn has_connection_responded(&self) -> bool {
        self.has_connection_responded.load(Relaxed)
    }
}

impl SendError {
    /// The error of a request that was not sent.
    pub(super) fn not_sent(error: Error) -> Self {
        Self {
            error,
            on_reused_connection: false,
            no_response: true,
            unprocessed: false,
            refusal: None,
        }
    }

    /// The error of a response that violates HTTP.
    pub(super) fn protocol_violation(reason: &'static str) -> Self {
        Self::interrupted(Error::new(ErrorKind::Protocol, reason))
    }

    /// The error of an exchange that failed after a part of the request was sent. The server may
    /// have processed the request.
    pub(super) fn interrupted(error: Error) -> Self {
        Self {
            error,
            on_reused_connection: false,
            no_response: false,
            unprocessed: false,
            refusal: None,
        }
    }
}
