//! One exchange on one stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use super::connection::ConnectionState;
use super::protocol_cache::ProtocolSupport;
use super::request;
use crate::body::Body;
use crate::error::{Error, ErrorKind};
use crate::wire::attempt_clock::AttemptClock;
use crate::wire::{SendError, UnsentRequest};

/// The most informational answers (1xx) before the final one.
const MAX_INFORMATIONAL: usize = 16;
/// When nothing at all came from a server for so long, it gets no new streams on this connection.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(1);

/// The right to one stream of a connection.
pub(in crate::wire) struct StreamLease {
    connection: Arc<ConnectionState>,
    /// Until the request is sent.
    sender: Option<SendRequest<Bytes>>,
    reused: bool,
    /// When the request was sent, and what had come in by then; none once it is answered.
    request_sent: Option<(Instant, u64)>,
}

impl StreamLease {
    pub(super) fn new(
        connection: Arc<ConnectionState>,
        sender: SendRequest<Bytes>,
        reused: bool,
    ) -> Self {
        Self {
            connection,
            sender: Some(sender),
            reused,
            request_sent: None,
        }
    }

    /// How long the connection had no stream before this one.
    pub(super) fn idle_duration(&self, now: Instant) -> Duration {
        match self.connection.open_streams() {
            1 => now.saturating_duration_since(self.connection.idle_since()),
            _ => Duration::ZERO,
        }
    }

    /// Whether the connection takes no more streams: it is closed, or the peer is going away.
    pub(super) fn is_stale(&mut self) -> bool {
        let mut noop_context = Context::from_waker(Waker::noop());
        let ready = self
            .sender
            .as_mut()
            .map(|sender| sender.poll_ready(&mut noop_context));
        !matches!(ready, Some(Poll::Ready(Ok(()))))
    }

    /// No more streams on this connection.
    pub(super) fn retire(&self) {
        if let Some(pool) = self.connection.pool.upgrade() {
            pool.retire(&self.connection);
        }
    }

    /// Sends a request and waits for the complete head of its response.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream.
    pub(in crate::wire) async fn exchange(
        mut self,
        unsent: &mut UnsentRequest,
        https: bool,
        clock: &AttemptClock,
    ) -> Result<(Parts, Http2Body), SendError> {
        let (Some(request), Some(mut sender)) = (unsent.take(), self.sender.take()) else {
            return Err(SendError::not_sent(Error::from_kind(ErrorKind::Closed)));
        };
        let (head, body) = request::into_http2(request, https).map_err(SendError::not_sent)?;
        let is_empty = body.is_end_stream();
        let (mut response, stream) = match sender.send_request(head, is_empty) {
            Ok(sent) => sent,
            Err(error) => return Err(unsent_error(error)),
        };
        // Kept, it would keep the connection open.
        drop(sender);
        self.request_sent = Some((Instant::now(), self.connection.bytes_read()));
        clock.record_sent();
        let mut upload = (!is_empty).then(|| Upload::new(body, stream));
        let mut informational = 0;
        let answered = poll_fn(|cx| {
            if let Err(error) = poll_upload(&mut upload, cx, clock) {
                return Poll::Ready(Err(SendError::interrupted(error)));
            }
            if !skip_informational(&mut response, &mut informational, cx) {
                self.retire();
                return Poll::Ready(Err(SendError::protocol(
                    "there are more than 16 informational answers",
                )));
            }
            let response = ready!(Pin::new(&mut response).poll(cx));
            Poll::Ready(response.map_err(|error| self.to_send_error(error, clock)))
        });
        let (head, body) = answered.await?.into_parts();
        self.request_sent = None;
        self.connection.record_progress();
        clock.record_head(Instant::now());
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(SendError::protocol("the server switched protocols"));
        }
        let length = content_length(&head.headers);
        let mut incoming = Http2Body {
            length,
            open: Some(Box::new(OpenStream {
                body,
                upload,
                lease: self,
            })),
        };
        incoming.close_if_ended();
        Ok((head, incoming))
    }

    /// What it means that a request got no answer.
    fn to_send_error(&mut self, error: h2::Error, clock: &AttemptClock) -> SendError {
        // A reset says that the server is there: there is nothing to suspect.
        let nothing_came = self
            .request_sent
            .take()
            .is_some_and(|(_, read)| self.connection.bytes_read() == read);
        // What a GOAWAY fails are the streams above the last that the peer looks at, and what it
        // refuses it has not looked at either (RFC 9113, 8.7).
        let only_http1 = error.is_remote() && error.reason() == Some(Reason::HTTP_1_1_REQUIRED);
        let goaway = error.is_remote() && error.is_go_away();
        let is_refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        let unprocessed = goaway || only_http1 || is_refused;
        if only_http1 && let Some(pool) = self.connection.pool.upgrade() {
            pool.record_support(&self.connection.origin, ProtocolSupport::Http1Required);
            pool.retire(&self.connection);
        }
        if unprocessed {
            clock.record_unprocessed();
        }
        let error = match self.connection.close_reason() {
            Some((kind, reason)) => Error::new(kind, reason),
            None if self.connection.is_tls_failure() => Error::new(ErrorKind::Tls, error),
            None if error.is_library() => Error::new(ErrorKind::Protocol, error),
            None => closed_error(error),
        };
        SendError {
            error,
            on_reused_connection: self.reused,
            no_response: unprocessed || nothing_came,
            unprocessed,
            goaway,
        }
    }

    /// What it means that a body broke off.
    fn body_error(&self, error: h2::Error) -> Error {
        use io::ErrorKind::{BrokenPipe, UnexpectedEof};
        match self.connection.close_reason() {
            Some((ErrorKind::Closed, reason)) => return Error::new(ErrorKind::Reset, reason),
            Some((kind, reason)) => return Error::new(kind, reason),
            None => {}
        }
        let kind = match error.get_io().map(io::Error::kind) {
            _ if error.is_library() => ErrorKind::Protocol,
            // In h2's words, the end of what the peer sends.
            Some(BrokenPipe | UnexpectedEof) => ErrorKind::Truncated,
            _ => ErrorKind::Reset,
        };
        Error::new(kind, error)
    }
}

/// After h2's own handles, which have to reset the stream first.
impl Drop for StreamLease {
    fn drop(&mut self) {
        let is_suspect = self.request_sent.is_some_and(|(at, _)| {
            at.max(self.connection.last_read()).elapsed() >= UNRESPONSIVE_AFTER
        });
        if is_suspect {
            self.retire();
        }
        self.connection.close_stream();
    }
}

/// A response's body, which keeps its stream until it ends.
pub(crate) struct Http2Body {
    length: Option<u64>,
    /// Boxed: it is far larger than what stands in its registration for HTTP/1.
    open: Option<Box<OpenStream>>,
}

/// The handles on a stream. They are dropped in this order.
struct OpenStream {
    body: RecvStream,
    upload: Option<Upload>,
    lease: StreamLease,
}

impl Http2Body {
    pub(in crate::wire) fn remaining_length(&self) -> Option<u64> {
        match self.open {
            Some(_) => self.length,
            None => Some(0),
        }
    }

    pub(in crate::wire) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        clock: &AttemptClock,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(open) = &mut self.open else {
            return Poll::Ready(None);
        };
        if let Err(error) = poll_upload(&mut open.upload, cx, clock) {
            self.open = None;
            return Poll::Ready(Some(Err(error)));
        }
        let chunk = match ready!(open.body.poll_data(cx)) {
            Some(Ok(chunk)) => Ok(chunk),
            Some(Err(error)) => Err(open.lease.body_error(error)),
            None => {
                self.open = None;
                return Poll::Ready(None);
            }
        };
        match &chunk {
            Ok(chunk) => {
                open.lease.connection.record_progress();
                clock.record_activity(Instant::now());
                // Fails only on a stream that is closed, which needs no window.
                let _ = open.body.flow_control().release_capacity(chunk.len());
                self.length = self
                    .length
                    .map(|left| left.saturating_sub(chunk.len() as u64));
                self.close_if_ended();
            }
            Err(_) => self.open = None,
        }
        Poll::Ready(Some(chunk))
    }

    fn close_if_ended(&mut self) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.body.is_end_stream())
        {
            self.open = None;
        }
    }
}

/// A request body on its way.
struct Upload {
    body: Body,
    chunk: Bytes,
    stream: SendStream<Bytes>,
}

impl Upload {
    fn new(body: Body, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            chunk: Bytes::new(),
            stream,
        }
    }

    /// Sends what the peer has capacity for; ready when all is sent, or the peer wants no more.
    fn poll(&mut self, cx: &mut Context<'_>, clock: &AttemptClock) -> Poll<Result<(), Error>> {
        loop {
            if self.chunk.is_empty() {
                match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => {
                        // What may be wrong with the stream, its response will say, as below.
                        let _ = self.stream.send_data(Bytes::new(), true);
                        return Poll::Ready(Ok(()));
                    }
                }
                continue;
            }
            self.stream.reserve_capacity(self.chunk.len());
            let Some(Ok(capacity)) = ready!(self.stream.poll_capacity(cx)) else {
                return Poll::Ready(Ok(()));
            };
            // The peer takes more of it, and is not late with its answer yet.
            clock.record_activity(Instant::now());
            let part = self.chunk.split_to(capacity.min(self.chunk.len()));
            let is_last = self.chunk.is_empty() && self.body.is_end_stream();
            if self.stream.send_data(part, is_last).is_err() || is_last {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

fn poll_upload(
    upload: &mut Option<Upload>,
    cx: &mut Context<'_>,
    clock: &AttemptClock,
) -> Result<(), Error> {
    match upload.as_mut().map(|upload| upload.poll(cx, clock)) {
        None | Some(Poll::Pending) => Ok(()),
        Some(Poll::Ready(done)) => {
            *upload = None;
            done
        }
    }
}

/// Passes over informational responses; false if there are too many.
fn skip_informational(
    response: &mut ResponseFuture,
    informational: &mut usize,
    cx: &mut Context<'_>,
) -> bool {
    while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
        *informational += 1;
        if *informational > MAX_INFORMATIONAL {
            return false;
        }
    }
    true
}

/// h2 has compared them and will count: more than one are the same.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What a peer adds to its GOAWAY is not repeated: it may hold what it was sent.
fn closed_error(error: h2::Error) -> Error {
    match error.reason() {
        Some(reason) if error.is_go_away() => {
            Error::new(ErrorKind::Closed, format!("the server goes away: {reason}"))
        }
        _ => Error::new(ErrorKind::Closed, error),
    }
}

/// h2 would not take the request: it was never written.
fn unsent_error(error: h2::Error) -> SendError {
    let is_invalid_request = !(error.is_io() || error.is_go_away() || error.is_reset());
    let error = match is_invalid_request {
        true => Error::new(ErrorKind::InvalidRequest, error),
        false => closed_error(error),
    };
    SendError {
        unprocessed: !is_invalid_request,
        goaway: !is_invalid_request,
        ..SendError::not_sent(error)
    }
}
