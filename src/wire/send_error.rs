//! The error of a request that got no response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::Request;

use crate::body::Body;
use crate::error::{Error, ErrorKind};

/// A request that has not been sent. `None` while a connection holds the request.
///
/// The request is passed by reference because it is large. A connection takes the request to send
/// it, and puts it back if none of its bytes were written.
pub(crate) type UnsentRequest = Option<Request<Body>>;

/// Why a request got no response, and whether the server may have processed the request.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) error: Error,
    /// Whether the connection had served another request before.
    pub(crate) on_reused_connection: bool,
    /// True if the request was not sent or not processed, or if the peer has sent nothing since. On
    /// a reused connection, a request that may be replayed is then sent again.
    pub(crate) no_response: bool,
    /// Whether it is certain that the peer does not process the request (RFC 9113 §8.7), or that
    /// the connection did not accept it. Even a request that is not idempotent may then be sent
    /// again on another connection.
    pub(crate) unprocessed: bool,
    /// How an HTTP/2 connection refused the request. `None` if the connection did not refuse it, or
    /// if the origin requires HTTP/1.1.
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
    /// The server closes the connection gracefully (GOAWAY with NO_ERROR).
    Shutdown,
    /// The server is overloaded (ENHANCE_YOUR_CALM).
    Overload,
    /// The server sent any other error code, or the connection closed before the request was sent.
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
    /// Creates the error of a request that was not sent.
    pub(super) fn not_sent(error: Error) -> Self {
        Self {
            error,
            on_reused_connection: false,
            no_response: true,
            unprocessed: false,
            refusal: None,
        }
    }

    /// Creates the error of a response that violates HTTP.
    pub(super) fn protocol_violation(reason: &'static str) -> Self {
        Self::interrupted(Error::new(ErrorKind::Protocol, reason))
    }

    /// Creates the error of an exchange that failed after a part of the request was sent. The
    /// server may have processed the request.
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
