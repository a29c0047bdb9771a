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

use super::meter::{Counts, Meter};
use super::pool::{Pool, Token};
use super::progress::{Keep, Progress};
use super::stream::Stream;
use super::{Failure, Outgoing, tls};
use crate::body::Body;
use crate::error::{Error, ErrorKind};

/// The most bytes a response head may take. hyper's own bound is that of its read buffer, which a large body wants larger.
pub(super) const MAX_HEAD: usize = 256 * 1024;
/// The most informational answers (1xx) before the final one.
const MAX_INTERIM: u32 = 16;
/// The most bytes of a body that are no data (chunk sizes, their extensions, trailers) between two pieces of data.
/// hyper bounds extensions and trailers, but neither blanks after a chunk size nor zeros before it.
const MAX_FRAMING: u64 = 64 * 1024;
/// By how much a connection is given up before the server would close it.
const MARGIN: Duration = Duration::from_secs(2);

type Driver = http1::Connection<TokioIo<Meter<Stream>>, Body>;

pub(super) struct Connection {
    /// None once it has finished: one that is kept would leave its request hanging.
    driver: Option<Driver>,
    sender: http1::SendRequest<Body>,
    counts: Arc<Counts>,
    /// `counts`, as the waker for when the connection is at rest.
    rest: Waker,
    home: Home,
    keep: Duration,
    /// After `driver`: the socket is closed before its token is given back.
    token: Token,
}

/// Where a connection goes when it is at rest.
pub(super) struct Home {
    pub(super) pool: Weak<Pool>,
    pub(super) runtime: Id,
    pub(super) origin: Arc<str>,
    pub(super) idle: Duration,
}

impl Connection {
    pub(super) async fn open(
        stream: Stream,
        token: Token,
        builder: &http1::Builder,
        home: Home,
    ) -> Result<Box<Self>, Error> {
        let counts = Arc::new(Counts::default());
        let in_records = stream.is_tls();
        let meter = Meter::new(stream, Arc::clone(&counts))
            .in_records(in_records)
            .polled_by_turns();
        let (sender, driver) = builder
            .handshake(TokioIo::new(meter))
            .await
            .map_err(|error| Error::new(ErrorKind::Closed, error))?;
        Ok(Box::new(Self {
            driver: Some(driver),
            sender,
            rest: Waker::from(Arc::clone(&counts)),
            counts,
            keep: home.idle,
            home,
            token,
        }))
    }

    pub(super) fn runtime(&self) -> Id {
        self.home.runtime
    }

    pub(super) fn origin(&self) -> &Arc<str> {
        &self.home.origin
    }

    /// How long the connection may rest.
    pub(super) fn keep(&self) -> Duration {
        self.keep
    }

    /// Whether anything happened to the connection while it was at rest.
    pub(super) fn is_stirred(&self) -> bool {
        self.counts.is_stirred()
    }

    /// Sends a request and waits for the complete head of its response.
    ///
    /// hyper reads before it writes, so the first poll finds out whether the peer has closed
    /// the connection while it was at rest, and then hands the request back.
    pub(super) async fn exchange(
        mut self: Box<Self>,
        outgoing: &mut Outgoing,
        progress: &Progress,
    ) -> Result<(Parts, Incoming), Failure> {
        self.counts.reset();
        let Some(request) = outgoing.take() else {
            return Err(Failure::unsent(Error::of(ErrorKind::Closed)));
        };
        // Exempt from tokio's budget: when that is spent the channel would wake a waker that
        // wakes nobody.
        let answer = unconstrained(self.sender.try_send_request(request));
        let mut answer = pin!(answer);
        let answered = poll_fn(|cx| {
            let before = self.counts.written();
            self.drive(cx);
            let written = self.counts.written();
            if written > 0 {
                progress.sent();
            }
            // More of a long body went out: the peer takes it, and is not late with its answer yet.
            if before > 0 && written > before {
                progress.touched(Instant::now());
            }
            match answer.as_mut().poll(&mut unwoken()) {
                Poll::Ready(Err(mut error)) => {
                    *outgoing = error.take_message();
                    Poll::Ready(Err(self.failure(error, outgoing.is_some())))
                }
                _ if self.counts.interim() > MAX_INTERIM => Poll::Ready(Err(Failure::answered(
                    "there are more than 16 informational answers",
                ))),
                Poll::Ready(Ok(answered)) => Poll::Ready(Ok(answered)),
                Poll::Pending if self.has_read_a_head() => {
                    Poll::Ready(Err(Failure::answered(TOO_LARGE)))
                }
                Poll::Pending => Poll::Pending,
            }
        });
        let (head, body) = answered.await?.into_parts();
        progress.head(Instant::now());
        // It may have come in one piece, together with much of the body.
        if self.has_read_a_head() && length(&head) > MAX_HEAD {
            return Err(Failure::answered(TOO_LARGE));
        }
        let keep_alive = check(&head).map_err(Failure::answered)?;
        self.keep = keep(keep_alive, self.home.idle);
        let mut incoming = Incoming {
            body,
            data_until: self.counts.read(),
            connection: Some(self),
        };
        incoming.settle_at_end(progress);
        Ok((head, incoming))
    }

    /// Whether as much has come as a head may have.
    fn has_read_a_head(&self) -> bool {
        self.counts.read() > MAX_HEAD as u64
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        self.counts.begin_poll();
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            // What there is to say of its end, the request or the body has been told.
            self.driver = None;
        }
    }

    /// Polls the connection once, so that what happens to it while at rest leaves its mark.
    /// Answers whether it can serve another request.
    pub(super) fn lie_down(&mut self) -> bool {
        self.counts.rest();
        let rest = self.rest.clone();
        self.drive(&mut Context::from_waker(&rest));
        self.driver.is_some() && self.sender.is_ready() && !self.counts.is_severed()
    }

    /// Stays with the one who used it, if that one means to go on and it is in order; else it is laid to rest.
    fn settle(self: Box<Self>, progress: &Progress) {
        let is_in_order = self.driver.is_some()
            && self.sender.is_ready()
            && self.counts.is_exhausted()
            && !self.counts.is_severed()
            && !self.keep.is_zero()
            && !self.token.is_in_excess();
        match is_in_order && progress.keeps() {
            true => progress.keep(self),
            false => self.rest(progress.touched_at()),
        }
    }

    fn failure(&self, error: TrySendError<Request<Body>>, is_back: bool) -> Failure {
        let error = error.into_error();
        let (written, read) = (self.counts.written(), self.counts.read());
        // Bytes in reply to a request that was not sent.
        let unasked = is_back && read > 0;
        let flooded = self.counts.interim() > MAX_INTERIM;
        let kind = if unasked || flooded || error.is_parse() {
            ErrorKind::Protocol
        } else if self.counts.is_tls_failure() {
            ErrorKind::Tls
        } else {
            ErrorKind::Closed
        };
        Failure {
            error: Error::new(kind, error),
            reused: false,
            unanswered: is_back || written == 0 || read == 0,
            unprocessed: false,
            goes_away: false,
        }
    }
}

impl Keep for Connection {
    /// Back to the pool if it is in order, else closed.
    fn rest(mut self: Box<Self>, since: Instant) {
        if self.lie_down()
            && let Some(pool) = self.home.pool.upgrade()
        {
            pool.put(self, since);
        }
    }
}

/// A response's body, which keeps its connection until it ends.
pub(crate) struct Incoming {
    body: hyper::body::Incoming,
    /// How much had been read when there was data last.
    data_until: u64,
    connection: Option<Box<Connection>>,
}

impl Incoming {
    pub(super) fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        let mut driven = false;
        loop {
            // None: the connection was settled or failed, so the body has ended.
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            match Pin::new(&mut self.body).poll_frame(&mut unwoken()) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.data_until = connection.counts.read();
                        self.settle_at_end(progress);
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(broken_body(error))));
                }
                Poll::Ready(None) => self.settle(progress),
                Poll::Pending if connection.counts.read() - self.data_until > MAX_FRAMING => {
                    self.connection = None;
                    let reason = "more than 64 KiB of a body without data";
                    return Poll::Ready(Some(Err(Error::new(ErrorKind::Protocol, reason))));
                }
                Poll::Pending if driven => return Poll::Pending,
                Poll::Pending => {
                    let before = connection.counts.read();
                    connection.drive(cx);
                    if connection.counts.read() != before {
                        progress.touched(Instant::now());
                    }
                    driven = true;
                }
            }
        }
    }

    fn settle_at_end(&mut self, progress: &Progress) {
        if self.body.is_end_stream() {
            self.settle(progress);
        }
    }

    fn settle(&mut self, progress: &Progress) {
        if let Some(connection) = self.connection.take() {
            connection.settle(progress);
        }
    }
}

fn unwoken() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

const TOO_LARGE: &str = "the response head is too large";

/// About as many bytes as the head took.
fn length(head: &Parts) -> usize {
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    head.headers.iter().map(line).sum()
}

/// Refuses a head that hyper accepts though it could be read in two ways where its body ends (RFC 9112, 6.3), or though
/// another protocol follows it. Answers what the server says of how long it keeps the connection.
fn check(head: &Parts) -> Result<Option<&HeaderValue>, &'static str> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("the server switched protocols unasked");
    }
    let (mut length, mut coding, mut keep_alive) = (None, None, None);
    // In one go, since to look a name up costs more than to compare it with those of a usual head.
    for (name, value) in &head.headers {
        if *name == CONTENT_LENGTH {
            // hyper compares them too, but not where there is no body (HEAD, 204, 304).
            length = Some(one_length(length, value)?);
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
fn one_length<'a>(
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
fn keep(keep_alive: Option<&HeaderValue>, idle: Duration) -> Duration {
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
        Some(timeout) => idle.min(timeout.saturating_sub(MARGIN).max(timeout / 2)),
        None => idle,
    }
}

fn broken_body(error: hyper::Error) -> Error {
    let kind = match cause::<io::Error>(&error).map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof) => ErrorKind::Truncated,
        _ if error.is_incomplete_message() => ErrorKind::Truncated,
        _ if cause::<io::Error>(&error).is_some_and(tls::is_tls) => ErrorKind::Reset,
        // hyper's words for a chunk it cannot make out.
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => ErrorKind::Protocol,
        _ => ErrorKind::Reset,
    };
    Error::new(kind, error)
}

fn cause<E: StdError + 'static>(error: &hyper::Error) -> Option<&E> {
    error.source()?.downcast_ref()
}
