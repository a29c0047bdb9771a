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

use super::connection::Shared;
use super::head;
use super::known::Speaks;
use crate::body::Body;
use crate::error::{Error, ErrorKind};
use crate::wire::progress::Progress;
use crate::wire::{Failure, Outgoing};

/// The most informational answers (1xx) before the final one.
const MAX_INTERIM: usize = 16;
/// When nothing at all came from a server for so long, it gets no new streams on this connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// The right to one stream of a connection.
pub(in crate::wire) struct Lease {
    shared: Arc<Shared>,
    /// Until the request is sent.
    sender: Option<SendRequest<Bytes>>,
    reused: bool,
    /// When the request was sent, and what had come in by then; none once it is answered.
    asked: Option<(Instant, u64)>,
}

impl Lease {
    pub(super) fn new(shared: Arc<Shared>, sender: SendRequest<Bytes>, reused: bool) -> Self {
        Self {
            shared,
            sender: Some(sender),
            reused,
            asked: None,
        }
    }

    /// How long the connection had no stream before this one.
    pub(super) fn rested(&self, now: Instant) -> Duration {
        match self.shared.in_use() {
            1 => now.saturating_duration_since(self.shared.idle_since()),
            _ => Duration::ZERO,
        }
    }

    /// Whether the connection takes no more streams: it is closed, or the peer is going away.
    pub(super) fn is_stale(&mut self) -> bool {
        let mut unwoken = Context::from_waker(Waker::noop());
        let ready = self
            .sender
            .as_mut()
            .map(|sender| sender.poll_ready(&mut unwoken));
        !matches!(ready, Some(Poll::Ready(Ok(()))))
    }

    /// No more streams on this connection.
    pub(super) fn retire(&self) {
        if let Some(pool) = self.shared.pool.upgrade() {
            pool.retire(&self.shared);
        }
    }

    /// Sends a request and waits for the complete head of its response.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream.
    pub(in crate::wire) async fn exchange(
        mut self,
        outgoing: &mut Outgoing,
        https: bool,
        progress: &Progress,
    ) -> Result<(Parts, Incoming), Failure> {
        let (Some(request), Some(mut sender)) = (outgoing.take(), self.sender.take()) else {
            return Err(Failure::unsent(Error::of(ErrorKind::Closed)));
        };
        let (head, body) = head::outgoing(request, https).map_err(Failure::unsent)?;
        let ended = body.is_end_stream();
        let (mut response, stream) = match sender.send_request(head, ended) {
            Ok(sent) => sent,
            Err(error) => return Err(refused_by_h2(error)),
        };
        // Kept, it would keep the connection open.
        drop(sender);
        self.asked = Some((Instant::now(), self.shared.read()));
        progress.sent();
        let mut upload = (!ended).then(|| Upload::new(body, stream));
        let mut interim = 0;
        let answered = poll_fn(|cx| {
            if let Err(error) = poll_upload(&mut upload, cx, progress) {
                return Poll::Ready(Err(Failure::broken_off(error)));
            }
            if !ready_for_final(&mut response, &mut interim, cx) {
                self.retire();
                return Poll::Ready(Err(Failure::answered(
                    "there are more than 16 informational answers",
                )));
            }
            let response = ready!(Pin::new(&mut response).poll(cx));
            Poll::Ready(response.map_err(|error| self.failure(error, progress)))
        });
        let (head, body) = answered.await?.into_parts();
        self.asked = None;
        self.shared.step();
        progress.head(Instant::now());
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::answered("the server switched protocols"));
        }
        let length = length(&head.headers);
        let mut incoming = Incoming {
            length,
            open: Some(Box::new(Open {
                body,
                upload,
                lease: self,
            })),
        };
        incoming.end_if_over();
        Ok((head, incoming))
    }

    /// What it means that a request got no answer.
    fn failure(&mut self, error: h2::Error, progress: &Progress) -> Failure {
        // A reset says that the server is there: there is nothing to suspect.
        let nothing_came = self
            .asked
            .take()
            .is_some_and(|(_, read)| self.shared.read() == read);
        // What a GOAWAY fails are the streams above the last that the peer looks at, and what it
        // refuses it has not looked at either (RFC 9113, 8.7).
        let only_http1 = error.is_remote() && error.reason() == Some(Reason::HTTP_1_1_REQUIRED);
        let goes_away = error.is_remote() && error.is_go_away();
        let is_refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        let unprocessed = goes_away || only_http1 || is_refused;
        if only_http1 && let Some(pool) = self.shared.pool.upgrade() {
            pool.learn(&self.shared.origin, Speaks::OnlyHttp1);
            pool.retire(&self.shared);
        }
        if unprocessed {
            progress.unsent();
        }
        let error = match self.shared.end() {
            Some((kind, reason)) => Error::new(kind, reason),
            None if self.shared.is_tls_failure() => Error::new(ErrorKind::Tls, error),
            None if error.is_library() => Error::new(ErrorKind::Protocol, error),
            None => closed(error),
        };
        Failure {
            error,
            reused: self.reused,
            unanswered: unprocessed || nothing_came,
            unprocessed,
            goes_away,
        }
    }

    /// What it means that a body broke off.
    fn broken_body(&self, error: h2::Error) -> Error {
        use io::ErrorKind::{BrokenPipe, UnexpectedEof};
        match self.shared.end() {
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
impl Drop for Lease {
    fn drop(&mut self) {
        let is_suspect = self
            .asked
            .is_some_and(|(at, _)| at.max(self.shared.heard()).elapsed() >= PATIENCE);
        if is_suspect {
            self.retire();
        }
        self.shared.leave();
    }
}

/// A response's body, which keeps its stream until it ends.
pub(crate) struct Incoming {
    length: Option<u64>,
    /// Boxed: it is far larger than what stands in its place for HTTP/1.
    open: Option<Box<Open>>,
}

/// The handles on a stream. They are dropped in this order.
struct Open {
    body: RecvStream,
    upload: Option<Upload>,
    lease: Lease,
}

impl Incoming {
    pub(in crate::wire) fn length(&self) -> Option<u64> {
        match self.open {
            Some(_) => self.length,
            None => Some(0),
        }
    }

    pub(in crate::wire) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(open) = &mut self.open else {
            return Poll::Ready(None);
        };
        if let Err(error) = poll_upload(&mut open.upload, cx, progress) {
            self.open = None;
            return Poll::Ready(Some(Err(error)));
        }
        let chunk = match ready!(open.body.poll_data(cx)) {
            Some(Ok(chunk)) => Ok(chunk),
            Some(Err(error)) => Err(open.lease.broken_body(error)),
            None => {
                self.open = None;
                return Poll::Ready(None);
            }
        };
        match &chunk {
            Ok(chunk) => {
                open.lease.shared.step();
                progress.touched(Instant::now());
                // Fails only on a stream that is closed, which needs no window.
                let _ = open.body.flow_control().release_capacity(chunk.len());
                self.length = self
                    .length
                    .map(|left| left.saturating_sub(chunk.len() as u64));
                self.end_if_over();
            }
            Err(_) => self.open = None,
        }
        Poll::Ready(Some(chunk))
    }

    fn end_if_over(&mut self) {
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

    /// Sends what the peer has room for; ready when all is sent, or the peer wants no more.
    fn poll(&mut self, cx: &mut Context<'_>, progress: &Progress) -> Poll<Result<(), Error>> {
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
            let Some(Ok(room)) = ready!(self.stream.poll_capacity(cx)) else {
                return Poll::Ready(Ok(()));
            };
            // The peer takes more of it, and is not late with its answer yet.
            progress.touched(Instant::now());
            let part = self.chunk.split_to(room.min(self.chunk.len()));
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
    progress: &Progress,
) -> Result<(), Error> {
    match upload.as_mut().map(|upload| upload.poll(cx, progress)) {
        None | Some(Poll::Pending) => Ok(()),
        Some(Poll::Ready(done)) => {
            *upload = None;
            done
        }
    }
}

/// Passes over interim responses; false if there are too many.
fn ready_for_final(
    response: &mut ResponseFuture,
    interim: &mut usize,
    cx: &mut Context<'_>,
) -> bool {
    while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
        *interim += 1;
        if *interim > MAX_INTERIM {
            return false;
        }
    }
    true
}

/// h2 has compared them and will count: more than one are the same.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What a peer adds to its GOAWAY is not repeated: it may hold what it was sent.
fn closed(error: h2::Error) -> Error {
    match error.reason() {
        Some(reason) if error.is_go_away() => {
            Error::new(ErrorKind::Closed, format!("the server goes away: {reason}"))
        }
        _ => Error::new(ErrorKind::Closed, error),
    }
}

/// h2 would not take the request: it was never written.
fn refused_by_h2(error: h2::Error) -> Failure {
    let is_ours = !(error.is_io() || error.is_go_away() || error.is_reset());
    let error = match is_ours {
        true => Error::new(ErrorKind::InvalidRequest, error),
        false => closed(error),
    };
    Failure {
        unprocessed: !is_ours,
        goes_away: !is_ours,
        ..Failure::unsent(error)
    }
}
