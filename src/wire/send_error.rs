//! The error of a request that got no response.

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
    /// The request is unprocessed because the connection accepts no more requests (GOAWAY).
    pub(crate) goaway: bool,
}

impl SendError {
    /// The error of a request that was not sent.
    pub(super) fn not_sent(error: Error) -> Self {
        Self {
            error,
            on_reused_connection: false,
            no_response: true,
            unprocessed: false,
            goaway: false,
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
            goaway: false,
        }
    }
}
