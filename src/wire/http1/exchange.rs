//! One request and its response on an HTTP/1.1 connection.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use http_body::Body as _;
use hyper::client::conn::TrySendError;
use tokio::task::coop::poll_proceed;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::connection::{Connection, noop_context};
use super::rejected_head::{SentRequestProperties, lenient_head_error};
use super::response_head::{head_size, negotiated_idle_timeout, validate_head};
use super::sticky::StickyConnection;
use super::trailers::TrailerError;
use crate::body::Body;
use crate::error::{Error, ErrorKind};
use crate::hop_clock::{HopClock, Phase};
use crate::wire::connect::tls;
use crate::wire::response_limits::{
    HEAD_TOO_LARGE_MESSAGE, MAX_HEAD_BYTES, MAX_INFORMATIONAL_RESPONSES,
    TOO_MANY_INFORMATIONAL_MESSAGE,
};
use crate::wire::send_error::{SendError, UnsentRequest};

/// The maximum number of framing bytes (chunk sizes, chunk extensions, trailers) between two pieces
/// of data. hyper does not limit whitespace after a chunk size, or leading zeros.
const MAX_FRAMING_BYTES_BETWEEN_DATA: u64 = 64 * 1024;

impl Connection {
    /// Sends a request and waits for the complete head of its response.
    ///
    /// If the peer has closed the idle connection, hyper detects the close before it writes.
    /// `unsent` then holds the request again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(in crate::wire) async fn exchange(
        mut self: Box<Self>,
        unsent: &mut UnsentRequest,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> Result<(Parts, Http1Body), SendError> {
        self.io_counts.reset_for_exchange();
        let Some(request) = unsent.take() else {
            return Err(SendError::not_sent(Error::from_kind(ErrorKind::Closed)));
        };
        let sent_request = SentRequestProperties::new(&request);
        // This future is polled with a no-op waker, because the connection wakes the task. It is
        // exempt from tokio's cooperative budget: with the budget spent, hyper's channel would wake
        // only the no-op waker, and the task would never run again.
        let response = unconstrained(self.sender.try_send_request(request));
        let mut response = pin!(response);
        let response = poll_fn(|cx| {
            let before = self.io_counts.bytes_written();
            self.drive(cx);
            let written = self.io_counts.bytes_written();
            if written > 0 {
                clock.record_maybe_sent();
            }
            // The peer is still reading a long request body, so its response is not overdue.
            if before > 0 && written > before {
                clock.record_activity(Instant::now());
            }
            match response.as_mut().poll(&mut noop_context()) {
                Poll::Ready(Err(mut error)) => {
                    *unsent = error.take_message();
                    let error = self.to_send_error(error, unsent.is_some());
                    if let Some(request) = self.prepare_head_reread(&error, unsent, &sent_request) {
                        response.set(unconstrained(self.sender.try_send_request(request)));
                        // The first poll discards the placeholder request. The second poll reads
                        // the response head.
                        self.drive(cx);
                        self.drive(cx);
                        let polled = response.as_mut().poll(&mut noop_context());
                        return polled.map_err(|error| self.to_send_error(error, false));
                    }
                    Poll::Ready(Err(error))
                }
                _ if self.has_too_many_informational_responses() => Poll::Ready(Err(
                    SendError::protocol_violation(TOO_MANY_INFORMATIONAL_MESSAGE),
                )),
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Pending if self.has_read_more_than_max_head() => {
                    Poll::Ready(Err(SendError::protocol_violation(HEAD_TOO_LARGE_MESSAGE)))
                }
                Poll::Pending => Poll::Pending,
            }
        });
        let (mut head, body) = response.await?.into_parts();
        clock.record_response_head(Instant::now());
        if self.reads_heads_leniently
            && let Some(headers) = self.io_counts.take_lenient_headers()
        {
            head.headers = headers;
        }
        // The bytes read may include much of the body, so the size of the head itself is checked.
        if self.has_read_more_than_max_head() && head_size(&head) > MAX_HEAD_BYTES {
            return Err(SendError::protocol_violation(HEAD_TOO_LARGE_MESSAGE));
        }
        let keep_alive = validate_head(&head).map_err(SendError::protocol_violation)?;
        self.idle_timeout = negotiated_idle_timeout(keep_alive, self.idle_timeout_ceiling);
        let mut body = Http1Body {
            body,
            bytes_read_at_last_data: self.io_counts.bytes_read(),
            has_returned_data: false,
            connection: Some(self),
        };
        body.release_connection_if_ended(clock, sticky_connection);
        Ok((head, body))
    }

    fn has_read_more_than_max_head(&self) -> bool {
        self.io_counts.bytes_read() > MAX_HEAD_BYTES as u64
    }

    pub(super) fn has_too_many_informational_responses(&self) -> bool {
        self.io_counts.informational_response_count() > MAX_INFORMATIONAL_RESPONSES
    }

    pub(super) fn to_send_error(
        &self,
        error: TrySendError<Request<Body>>,
        request_returned: bool,
    ) -> SendError {
        let error = error.into_error();
        let (written, read) = (self.io_counts.bytes_written(), self.io_counts.bytes_read());
        // Bytes that arrived before the request was sent cannot be its response.
        let unsolicited = request_returned && read > 0;
        let lenient_head_error = lenient_head_error(&error);
        let is_violation = lenient_head_error.is_some() || error.is_parse();
        let kind = if unsolicited || self.has_too_many_informational_responses() || is_violation {
            ErrorKind::Protocol
        } else if self.io_counts.has_tls_read_failure() {
            ErrorKind::Tls
        } else {
            ErrorKind::Closed
        };
        let error = match lenient_head_error {
            Some(lenient_head_error) => Error::new(kind, lenient_head_error),
            None if kind == ErrorKind::Closed => {
                Error::new(kind, error).with_detail(self.describe_received_part())
            }
            None => Error::new(kind, error),
        };
        SendError {
            error,
            on_reused_connection: false,
            no_response: request_returned || written == 0 || read == 0,
            unprocessed: false,
            refusal: None,
        }
    }

    /// Describes how much of the response head arrived.
    fn describe_received_part(&self) -> Cow<'static, str> {
        let (read, final_head_offset) = (
            self.io_counts.bytes_read(),
            self.io_counts.final_head_offset(),
        );
        if read > final_head_offset {
            let part = read - final_head_offset;
            format!("the response head was cut short after {part} bytes").into()
        } else if self.io_counts.informational_response_count() > 0 {
            "no byte arrived after an informational response".into()
        } else {
            "no byte of a response arrived".into()
        }
    }
}

/// A response body. It holds its connection until the body ends.
pub(crate) struct Http1Body {
    body: hyper::body::Incoming,
    /// The number of bytes that had been read from the connection when the last data arrived.
    bytes_read_at_last_data: u64,
    has_returned_data: bool,
    /// `None` once the body has ended or failed.
    connection: Option<Box<Connection>>,
}

impl Http1Body {
    pub(in crate::wire) fn remaining_length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    pub(in crate::wire) fn is_known_to_have_ended(&self) -> bool {
        self.connection.is_none()
    }

    /// Polls for the next chunk of data. Skips trailers.
    pub(in crate::wire) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        // One read from the socket can return thousands of small chunks, so each chunk after the
        // first consumes tokio's cooperative budget.
        let coop_budget = if self.has_returned_data && self.connection.is_some() {
            Some(ready!(poll_proceed(cx)))
        } else {
            None
        };
        let chunk = ready!(self.poll_data(cx, clock, sticky_connection));
        if let Some(coop_budget) = coop_budget {
            coop_budget.made_progress();
        }
        self.has_returned_data = true;
        Poll::Ready(chunk)
    }

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        let mut driven = false;
        loop {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            match Pin::new(&mut self.body).poll_frame(&mut noop_context()) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.bytes_read_at_last_data = connection.io_counts.bytes_read();
                        self.release_connection_if_ended(clock, sticky_connection);
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => match TrailerError::from_hyper_error(&error) {
                    Some(TrailerError::TooMany) => connection.start_trailer_skip(),
                    Some(TrailerError::Malformed) => self.connection = None,
                    None => {
                        self.connection = None;
                        return Poll::Ready(Some(Err(to_body_error(error))));
                    }
                },
                Poll::Ready(None) if connection.trailer_skipper.is_some() => {
                    let end = ready!(connection.poll_trailer_skip(cx, clock));
                    self.connection = None;
                    return Poll::Ready(end.err().map(Err));
                }
                Poll::Ready(None) => self.release_connection(clock, sticky_connection),
                Poll::Pending
                    if connection.io_counts.bytes_read() - self.bytes_read_at_last_data
                        > MAX_FRAMING_BYTES_BETWEEN_DATA =>
                {
                    self.connection = None;
                    let reason = "more than 64 KiB of chunk framing without data";
                    return Poll::Ready(Some(Err(Error::new(ErrorKind::Protocol, reason))));
                }
                Poll::Pending if driven => return Poll::Pending,
                Poll::Pending => {
                    let before = connection.io_counts.bytes_read();
                    connection.drive(cx);
                    if connection.io_counts.bytes_read() != before {
                        clock.record_activity(Instant::now());
                    }
                    driven = true;
                }
            }
        }
    }

    /// Releases the connection if the body has ended. Called before the last data is returned, so
    /// that another request can use the connection at once.
    fn release_connection_if_ended(
        &mut self,
        clock: &HopClock,
        sticky_connection: &mut StickyConnection,
    ) {
        if self.body.is_end_stream() {
            self.release_connection(clock, sticky_connection);
        }
    }

    /// Gives the connection to the worker for its next exchange, or to the pool.
    ///
    /// The connection of a streamed body goes to the pool, because the worker may be busy with a
    /// file or a handler for long after the last byte.
    fn release_connection(&mut self, clock: &HopClock, sticky_connection: &mut StickyConnection) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if connection.is_reusable() && clock.phase() != Phase::Streaming {
            sticky_connection.keep_for_next_exchange(connection, clock.last_activity_at());
        } else {
            connection.return_to_pool(clock.last_activity_at());
        }
    }
}

fn to_body_error(error: hyper::Error) -> Error {
    let io_error = error.source().and_then(|source| source.downcast_ref());
    let kind = match io_error.map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof) => ErrorKind::Truncated,
        _ if error.is_incomplete_message() => ErrorKind::Truncated,
        _ if io_error.is_some_and(tls::is_tls_error) => ErrorKind::Reset,
        // hyper reports an invalid chunk with one of these error kinds.
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => ErrorKind::Protocol,
        _ => ErrorKind::Reset,
    };
    Error::new(kind, error)
}
