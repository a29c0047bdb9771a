//! One HTTP/1.1 connection, driven by the task that uses it.
//!
//! No background task drives the connection. The task that waits for a response polls hyper's
//! connection first, and then hyper's response future or body. It polls these two with a [no-op
//! waker](noop_context), because they become ready only while hyper's connection is polled. A real
//! waker would wake the task once per request without need.

use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::idle_list::Poolable;
use super::pool::IdlePool;
use super::trailers::TrailerSkipper;
use crate::body::Body;
use crate::error::{Error, ErrorKind};
use crate::wire::connect::MaybeTlsStream;
use crate::wire::metered::{IoCounts, MeteredStream};
use crate::wire::sockets::SocketCountGuard;

type HyperStream = TokioIo<MeteredStream<MaybeTlsStream>>;
type HyperConnection = http1::Connection<HyperStream, Body>;

/// An HTTP/1.1 connection, in use or idle.
pub(in crate::wire) struct Connection {
    /// `None` after hyper's connection has finished. A finished connection must be dropped, because
    /// otherwise the response future never completes.
    hyper_connection: Option<HyperConnection>,
    /// The byte stream, after hyper's connection has finished.
    pub(super) detached_stream: Option<Box<DetachedStream>>,
    /// Reads the rest of the trailers after hyper has rejected the trailers of a body.
    pub(super) trailer_skipper: Option<Box<TrailerSkipper>>,
    /// Whether a [`LenientReader`](crate::wire::lenient_reader::LenientReader) reads the response
    /// heads. True after hyper has rejected a head.
    pub(super) reads_heads_leniently: bool,
    pub(super) sender: http1::SendRequest<Body>,
    pub(super) io_counts: Arc<IoCounts>,
    /// Sets the flag `woken_while_idle` of `io_counts` when the socket of the idle connection
    /// becomes ready.
    idle_waker: Waker,
    pool: Weak<IdlePool<Connection>>,
    runtime_id: Id,
    pool_key: Arc<str>,
    /// The upper bound of `idle_timeout`: the idle timeout of the pool, or zero if the connection
    /// must not be used again.
    pub(super) idle_timeout_ceiling: Duration,
    /// How long the connection may stay idle: the idle timeout of the pool, or a shorter time from
    /// the server's `Keep-Alive` header.
    pub(super) idle_timeout: Duration,
    /// Declared after the stream, so that the socket is closed before the guard stops counting it.
    socket_count_guard: SocketCountGuard,
}

/// The byte stream of a connection after its separation from hyper, and the received bytes that
/// hyper has not parsed.
///
/// Dropping the value shuts the stream down. On a TLS stream, the peer is sent a close_notify
/// alert.
pub(super) struct DetachedStream {
    stream: Option<HyperStream>,
    pub(super) unparsed_bytes: Bytes,
}

impl DetachedStream {
    fn new(hyper_connection: HyperConnection) -> Self {
        let parts = hyper_connection.into_parts();
        Self {
            stream: Some(parts.io),
            unparsed_bytes: parts.read_buf,
        }
    }

    /// Takes the stream, so that dropping `self` does not shut it down.
    pub(super) fn take_without_shutdown(&mut self) -> Option<HyperStream> {
        self.stream.take()
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut MeteredStream<MaybeTlsStream>> {
        self.stream.as_mut().map(TokioIo::inner_mut)
    }
}

impl Drop for DetachedStream {
    fn drop(&mut self) {
        if let Some(stream) = self.stream_mut() {
            // The result is irrelevant, because the stream is closed next.
            let _ = Pin::new(stream).poll_shutdown(&mut noop_context());
        }
    }
}

impl Connection {
    pub(super) async fn open(
        stream: MaybeTlsStream,
        socket_count_guard: SocketCountGuard,
        builder: &http1::Builder,
        pool: &Arc<IdlePool<Connection>>,
        pool_key: Arc<str>,
    ) -> Result<Box<Self>, Error> {
        let io_counts = Arc::new(IoCounts::default());
        let is_tls = stream.is_tls();
        let metered = MeteredStream::new(stream, Arc::clone(&io_counts))
            .with_tls_record_writes(is_tls)
            .with_reads_skipped_after_pending();
        let (sender, hyper_connection) = builder
            .handshake(TokioIo::new(metered))
            .await
            .map_err(|error| Error::new(ErrorKind::Closed, error))?;
        Ok(Box::new(Self {
            hyper_connection: Some(hyper_connection),
            detached_stream: None,
            trailer_skipper: None,
            reads_heads_leniently: false,
            sender,
            idle_waker: Waker::from(Arc::clone(&io_counts)),
            io_counts,
            pool: Arc::downgrade(pool),
            runtime_id: Handle::current().id(),
            pool_key,
            idle_timeout_ceiling: pool.idle_timeout(),
            idle_timeout: pool.idle_timeout(),
            socket_count_guard,
        }))
    }

    /// Polls hyper's connection. Keeps only the byte stream after hyper's connection has finished.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        self.io_counts.clear_read_drained();
        if let Some(hyper_connection) = &mut self.hyper_connection
            && hyper_connection.poll_without_shutdown(cx).is_ready()
        {
            self.detach_stream();
        }
    }

    #[cold]
    fn detach_stream(&mut self) {
        // The error of hyper's connection is not needed here: the response future or the body
        // returns it.
        let detached = self.hyper_connection.take().map(DetachedStream::new);
        self.detached_stream = detached.map(Box::new);
    }

    /// Takes the byte stream of the connection, separating it from hyper first if necessary.
    pub(super) fn take_detached_stream(&mut self) -> Option<Box<DetachedStream>> {
        if self.hyper_connection.is_some() {
            self.detach_stream();
        }
        self.detached_stream.take()
    }

    /// Starts a new hyper connection on a detached stream. Response heads are read leniently from
    /// now on. hyper's next request is not sent to the server. Returns false if hyper does not
    /// accept the stream.
    pub(super) fn restart_hyper_leniently(&mut self, mut detached: DetachedStream) -> bool {
        let Some(mut stream) = detached.take_without_shutdown() else {
            return false;
        };
        stream
            .inner_mut()
            .start_lenient_reads(&detached.unparsed_bytes);
        // hyper's handshake does no I/O, so it completes at the first poll.
        let handshake = pin!(http1::handshake(stream));
        let Poll::Ready(Ok((sender, hyper_connection))) = handshake.poll(&mut noop_context())
        else {
            return false;
        };
        self.sender = sender;
        self.hyper_connection = Some(hyper_connection);
        self.reads_heads_leniently = true;
        true
    }

    /// Whether the connection can serve another request at once, without being polled first.
    ///
    /// A connection with unread bytes is not reusable, because these bytes cannot be the response
    /// to the next request.
    pub(super) fn is_reusable(&self) -> bool {
        self.is_open()
            && self.io_counts.is_read_drained()
            && !self.idle_timeout.is_zero()
            && !self.socket_count_guard.is_limit_exceeded()
    }

    /// Polls the idle connection and puts it into the pool, or closes it if it cannot serve
    /// another request.
    pub(super) fn return_to_pool(mut self: Box<Self>, idle_since: Instant) {
        if self.poll_still_open()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.put_idle_or_close(self, idle_since);
        }
    }

    fn is_open(&self) -> bool {
        self.hyper_connection.is_some()
            && self.sender.is_ready()
            && !self.io_counts.has_peer_closed_for_writes()
    }
}

impl Poolable for Connection {
    fn runtime_id(&self) -> Id {
        self.runtime_id
    }

    fn pool_key(&self) -> &Arc<str> {
        &self.pool_key
    }

    fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    fn was_woken_while_idle(&self) -> bool {
        self.io_counts.was_woken_while_idle()
    }

    fn poll_still_open(&mut self) -> bool {
        self.io_counts.clear_woken_while_idle();
        let idle_waker = self.idle_waker.clone();
        self.drive(&mut Context::from_waker(&idle_waker));
        self.is_open()
    }
}

/// Returns a context with a no-op waker for polling hyper's response future and body. The [module
/// documentation](self) explains why they need no waker.
pub(super) fn noop_context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
