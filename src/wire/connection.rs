//! One HTTP/1 connection, driven by the task that uses it.
//!
//! No task stands behind it: whoever waits for an answer polls hyper's connection, and then
//! looks whether the answer is there. So what hyper hands over (the response, the frames of a
//! body) is polled with a waker that wakes nobody: it can only become ready in that same poll,
//! and a real waker would have the task wake itself once a request for nothing.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Request, StatusCode, Version};
use http_body::Body as _;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::runtime::Id;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::attempt_clock::{AttemptClock, Reusable};
use super::metered::{IoCounts, Metered};
use super::pool::{Pool, SocketPermit};
use super::stream::MaybeTlsStream;
use super::{SendError, UnsentRequest, tls};
use crate::body::Body;
use crate::error::{Error, ErrorKind};

/// The most bytes a response head may take. hyper's own bound is that of its read buffer, which a large body wants larger.
pub(super) const MAX_HEAD_BYTES: usize = 256 * 1024;
/// The most informational answers (1xx) before the final one.
const MAX_INFORMATIONAL: u32 = 16;
/// The most bytes of a body that are no data (chunk sizes, their extensions, trailers) between two pieces of data.
/// hyper bounds extensions and trailers, but neither blanks after a chunk size nor zeros before it.
const MAX_FRAMING_BYTES: u64 = 64 * 1024;
/// By how much a connection is given up before the server would close it.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(2);

type HyperConnection = http1::Connection<TokioIo<Metered<MaybeTlsStream>>, Body>;

pub(super) struct Connection {
    /// None once it has finished: one that is kept would leave its request hanging.
    driver: Option<HyperConnection>,
    sender: http1::SendRequest<Body>,
    io_counts: Arc<IoCounts>,
    /// `io_counts`, as the waker for when the connection is at rest.
    idle_waker: Waker,
    pool_handle: PoolHandle,
    idle_timeout: Duration,
    /// After `driver`: the socket is closed before its permit is given back.
    permit: SocketPermit,
}

/// Where a connection goes when it is at rest.
pub(super) struct PoolHandle {
    pub(super) pool: Weak<Pool>,
    pub(super) runtime: Id,
    pub(super) origin: Arc<str>,
    pub(super) idle_timeout: Duration,
}

impl Connection {
    pub(super) async fn open(
        stream: MaybeTlsStream,
        permit: SocketPermit,
        builder: &http1::Builder,
        pool_handle: PoolHandle,
    ) -> Result<Box<Self>, Error> {
        let io_counts = Arc::new(IoCounts::default());
        let tls_records = stream.is_tls();
        let metered = Metered::new(stream, Arc::clone(&io_counts))
            .tls_records(tls_records)
            .read_once_per_poll();
        let (sender, driver) = builder
            .handshake(TokioIo::new(metered))
            .await
            .map_err(|error| Error::new(ErrorKind::Closed, error))?;
        Ok(Box::new(Self {
            driver: Some(driver),
            sender,
            idle_waker: Waker::from(Arc::clone(&io_counts)),
            io_counts,
            idle_timeout: pool_handle.idle_timeout,
            pool_handle,
            permit,
        }))
    }

    pub(super) fn runtime(&self) -> Id {
        self.pool_handle.runtime
    }

    pub(super) fn origin(&self) -> &Arc<str> {
        &self.pool_handle.origin
    }

    /// How long the connection may rest.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Whether anything happened to the connection while it was at rest.
    pub(super) fn was_woken(&self) -> bool {
        self.io_counts.was_woken()
    }

    /// Sends a request and waits for the complete head of its response.
    ///
    /// hyper reads before it writes, so the first poll finds out whether the peer has closed
    /// the connection while it was at rest, and then hands the request back.
    pub(super) async fn exchange(
        mut self: Box<Self>,
        unsent: &mut UnsentRequest,
        clock: &AttemptClock,
    ) -> Result<(Parts, Http1Body), SendError> {
        self.io_counts.reset();
        let Some(request) = unsent.take() else {
            return Err(SendError::not_sent(Error::from_kind(ErrorKind::Closed)));
        };
        // Exempt from tokio's budget: when that is spent the channel would wake a waker that
        // wakes nobody.
        let answer = unconstrained(self.sender.try_send_request(request));
        let mut answer = pin!(answer);
        let answered = poll_fn(|cx| {
            let before = self.io_counts.written();
            self.drive(cx);
            let written = self.io_counts.written();
            if written > 0 {
                clock.record_sent();
            }
            // More of a long body went out: the peer takes it, and is not late with its answer yet.
            if before > 0 && written > before {
                clock.record_activity(Instant::now());
            }
            match answer.as_mut().poll(&mut noop_context()) {
                Poll::Ready(Err(mut error)) => {
                    *unsent = error.take_message();
                    Poll::Ready(Err(self.send_error(error, unsent.is_some())))
                }
                _ if self.io_counts.informational() > MAX_INFORMATIONAL => Poll::Ready(Err(
                    SendError::protocol("there are more than 16 informational answers"),
                )),
                Poll::Ready(Ok(answered)) => Poll::Ready(Ok(answered)),
                Poll::Pending if self.has_read_max_head() => {
                    Poll::Ready(Err(SendError::protocol(HEAD_TOO_LARGE)))
                }
                Poll::Pending => Poll::Pending,
            }
        });
        let (head, body) = answered.await?.into_parts();
        clock.record_head(Instant::now());
        // It may have come in one piece, together with much of the body.
        if self.has_read_max_head() && head_size(&head) > MAX_HEAD_BYTES {
            return Err(SendError::protocol(HEAD_TOO_LARGE));
        }
        let keep_alive = check_head(&head).map_err(SendError::protocol)?;
        self.idle_timeout = idle_timeout_from(keep_alive, self.pool_handle.idle_timeout);
        let mut incoming = Http1Body {
            body,
            read_at_last_data: self.io_counts.read(),
            connection: Some(self),
        };
        incoming.release_at_end(clock);
        Ok((head, incoming))
    }

    /// Whether as much has come as a head may have.
    fn has_read_max_head(&self) -> bool {
        self.io_counts.read() > MAX_HEAD_BYTES as u64
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        self.io_counts.begin_poll();
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            // What there is to say of its end, the request or the body has been told.
            self.driver = None;
        }
    }

    /// Polls the connection once, so that what happens to it while at rest leaves its mark.
    /// Answers whether it can serve another request.
    pub(super) fn poll_idle(&mut self) -> bool {
        self.io_counts.clear_woken();
        let idle_waker = self.idle_waker.clone();
        self.drive(&mut Context::from_waker(&idle_waker));
        self.driver.is_some() && self.sender.is_ready() && !self.io_counts.is_write_closed()
    }

    /// Stays with the one who used it, if that one means to go on and it is in order; else it is laid to rest.
    fn release(self: Box<Self>, clock: &AttemptClock) {
        let is_reusable = self.driver.is_some()
            && self.sender.is_ready()
            && self.io_counts.is_read_drained()
            && !self.io_counts.is_write_closed()
            && !self.idle_timeout.is_zero()
            && !self.permit.is_over_limit();
        match is_reusable && clock.can_stick() {
            true => clock.stick(self),
            false => self.return_to_pool(clock.last_activity()),
        }
    }

    fn send_error(&self, error: TrySendError<Request<Body>>, request_returned: bool) -> SendError {
        let error = error.into_error();
        let (written, read) = (self.io_counts.written(), self.io_counts.read());
        // Bytes in reply to a request that was not sent.
        let unsolicited = request_returned && read > 0;
        let too_many_informational = self.io_counts.informational() > MAX_INFORMATIONAL;
        let kind = if unsolicited || too_many_informational || error.is_parse() {
            ErrorKind::Protocol
        } else if self.io_counts.is_tls_failure() {
            ErrorKind::Tls
        } else {
            ErrorKind::Closed
        };
        SendError {
            error: Error::new(kind, error),
            on_reused_connection: false,
            no_response: request_returned || written == 0 || read == 0,
            unprocessed: false,
            goaway: false,
        }
    }
}

impl Reusable for Connection {
    /// Back to the pool if it is in order, else closed.
    fn return_to_pool(mut self: Box<Self>, since: Instant) {
        if self.poll_idle()
            && let Some(pool) = self.pool_handle.pool.upgrade()
        {
            pool.put_idle(self, since);
        }
    }
}

/// A response's body, which keeps its connection until it ends.
pub(crate) struct Http1Body {
    body: hyper::body::Incoming,
    /// How much had been read when there was data last.
    read_at_last_data: u64,
    connection: Option<Box<Connection>>,
}

impl Http1Body {
    pub(super) fn remaining_length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        clock: &AttemptClock,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        let mut driven = false;
        loop {
            // None: the connection was settled or failed, so the body has ended.
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            match Pin::new(&mut self.body).poll_frame(&mut noop_context()) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.read_at_last_data = connection.io_counts.read();
                        self.release_at_end(clock);
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(body_error(error))));
                }
                Poll::Ready(None) => self.release(clock),
                Poll::Pending
                    if connection.io_counts.read() - self.read_at_last_data > MAX_FRAMING_BYTES =>
                {
                    self.connection = None;
                    let reason = "more than 64 KiB of a body without data";
                    return Poll::Ready(Some(Err(Error::new(ErrorKind::Protocol, reason))));
                }
                Poll::Pending if driven => return Poll::Pending,
                Poll::Pending => {
                    let before = connection.io_counts.read();
                    connection.drive(cx);
                    if connection.io_counts.read() != before {
                        clock.record_activity(Instant::now());
                    }
                    driven = true;
                }
            }
        }
    }

    fn release_at_end(&mut self, clock: &AttemptClock) {
        if self.body.is_end_stream() {
            self.release(clock);
        }
    }

    fn release(&mut self, clock: &AttemptClock) {
        if let Some(connection) = self.connection.take() {
            connection.release(clock);
        }
    }
}

fn noop_context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

const HEAD_TOO_LARGE: &str = "the response head is too large";

/// About as many bytes as the head took.
fn head_size(head: &Parts) -> usize {
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    head.headers.iter().map(line).sum()
}

/// Refuses a head that hyper accepts though it could be read in two ways where its body ends (RFC 9112, 6.3), or though
/// another protocol follows it. Answers what the server says of how long it keeps the connection.
fn check_head(head: &Parts) -> Result<Option<&HeaderValue>, &'static str> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("the server switched protocols unasked");
    }
    let (mut length, mut coding, mut keep_alive) = (None, None, None);
    // In one go, since to look a name up costs more than to compare it with those of a usual head.
    for (name, value) in &head.headers {
        if *name == CONTENT_LENGTH {
            // hyper compares them too, but not where there is no body (HEAD, 204, 304).
            length = Some(single_content_length(length, value)?);
        } else if *name == TRANSFER_ENCODING {
            if coding.replace(value).is_some() {
                return Err(NOT_CHUNKED);
            }
        } else if *name == KEEP_ALIVE {
            keep_alive = keep_alive.or(Some(value));
        }
    }
    if let Some(coding) = coding {
        if head.version == Version::HTTP_10 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if length.is_some() {
            return Err("both Transfer-Encoding and Content-Length");
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(NOT_CHUNKED);
        }
    }
    Ok(keep_alive)
}

const NOT_CHUNKED: &str = "a Transfer-Encoding other than chunked";
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The length that all say, in the header fields before and in this one.
fn single_content_length<'a>(
    before: Option<&'a [u8]>,
    value: &'a HeaderValue,
) -> Result<&'a [u8], &'static str> {
    let mut values = value
        .as_bytes()
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii);
    let first = before.or_else(|| values.next()).unwrap_or_default();
    let digits = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    match digits && values.all(|value| value == first) {
        true => Ok(first),
        false => Err("an invalid or ambiguous Content-Length"),
    }
}

/// How long a connection may rest: `idle`, or less if the server means to close it sooner.
fn idle_timeout_from(keep_alive: Option<&HeaderValue>, idle: Duration) -> Duration {
    let Some(value) = keep_alive else {
        return idle;
    };
    let timeout = value.to_str().ok().and_then(|value| {
        let mut parameters = value.split(',').filter_map(|part| part.split_once('='));
        let (_, seconds) =
            parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
        seconds.trim().parse().ok()
    });
    match timeout.map(Duration::from_secs) {
        // A margin of two seconds would leave nothing of a short time: half of it is kept.
        Some(timeout) => idle.min(timeout.saturating_sub(KEEP_ALIVE_MARGIN).max(timeout / 2)),
        None => idle,
    }
}

fn body_error(error: hyper::Error) -> Error {
    let kind = match source_as::<io::Error>(&error).map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof) => ErrorKind::Truncated,
        _ if error.is_incomplete_message() => ErrorKind::Truncated,
        _ if source_as::<io::Error>(&error).is_some_and(tls::is_tls_error) => ErrorKind::Reset,
        // hyper's words for a chunk it cannot make out.
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => ErrorKind::Protocol,
        _ => ErrorKind::Reset,
    };
    Error::new(kind, error)
}

fn source_as<E: StdError + 'static>(error: &hyper::Error) -> Option<&E> {
    error.source()?.downcast_ref()
}
