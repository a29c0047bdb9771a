//! Opens an HTTP/2 connection and drives it.
//!
//! Many exchanges share a connection, so a separate task (the driver) drives it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong, client};
use tokio::time::{Instant, Sleep, sleep};

use super::pool::{DialRegistration, Http2Pool, StreamLease};
use super::state::ConnectionState;
use crate::error::{Error, ErrorKind};
use crate::wire::connect::MaybeTlsStream;
use crate::wire::metered::{IoCounts, MeteredStream};
use crate::wire::response_limits::MAX_HEAD_BYTES;
use crate::wire::sockets::SocketCountGuard;

/// The flow-control window of a stream: the number of body bytes that the server may send before
/// they are read.
const STREAM_WINDOW_SIZE: u32 = 1 << 20;
/// The flow-control window of a connection. It is so large that an unread body does not block other
/// streams.
const CONNECTION_WINDOW_SIZE: u32 = 1 << 30;
/// The maximum memory, in bytes, that unread DATA frames may use in addition to their payload.
const MAX_UNREAD_FRAME_OVERHEAD_BYTES: usize = 4 << 20;
/// The maximum number of reset streams that h2 keeps a record of. The server may still send frames
/// for these streams.
const MAX_REMEMBERED_RESET_STREAMS: usize = 4096;
/// How long h2 keeps a record of a reset stream.
const RESET_STREAM_RETENTION: Duration = Duration::from_secs(30);
/// The maximum number of bytes that the server may send while no exchange makes progress. Body
/// bytes within the flow-control windows of the streams are allowed in addition.
const MAX_UNPRODUCTIVE_BYTES: u64 = 4 << 20;
/// How often the driver checks whether the connection is idle or unresponsive.
const LIVENESS_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A placeholder for the peer's limit on streams until the peer's settings arrive. No server can
/// send this value, since it exceeds a `u32`. h2 uses another value for "no limit".
const UNKNOWN_MAX_STREAMS: usize = usize::MAX - 1;

/// Opens a connection, adds it to the pool and spawns its driver. Returns its first stream.
pub(super) async fn open(
    mut registration: DialRegistration,
    stream: MaybeTlsStream,
    socket_count_guard: SocketCountGuard,
) -> Result<StreamLease, Error> {
    let io_counts = Arc::new(IoCounts::for_http2());
    let metered = MeteredStream::new(stream, Arc::clone(&io_counts));
    let (sender, mut connection) = h2_builder()
        .handshake(metered)
        .await
        .map_err(|error| Error::new(ErrorKind::Closed, error))?;
    let ping_pong = connection.ping_pong();
    let pool = Arc::clone(&registration.pool);
    let origin = Arc::clone(&registration.origin);
    let connection_state = Arc::new(ConnectionState::new(
        origin,
        registration.runtime_id,
        io_counts,
    ));
    let driver = ConnectionDriver {
        connection,
        ping_pong,
        liveness_check_timer: Box::pin(sleep(
            LIVENESS_CHECK_INTERVAL
                .min(pool.idle_timeout)
                .min(pool.silence_limit),
        )),
        idle_timeout: pool.idle_timeout,
        silence_limit: pool.silence_limit,
        connection_state: Arc::clone(&connection_state),
        pool: Arc::downgrade(&pool),
        last_applied_max_streams: UNKNOWN_MAX_STREAMS,
        last_progress_count: 0,
        bytes_read_at_last_progress: 0,
        last_bytes_read: 0,
        ping_sent_at: None,
        _socket_count_guard: socket_count_guard,
    };
    let lease = StreamLease::new(&pool, Arc::clone(&connection_state), sender.clone(), false);
    pool.add_connection(connection_state, sender, registration.unregister_dial());
    tokio::spawn(driver);
    Ok(lease)
}

fn h2_builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_SIZE)
        .initial_connection_window_size(CONNECTION_WINDOW_SIZE)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .initial_max_send_streams(UNKNOWN_MAX_STREAMS)
        .max_concurrent_reset_streams(MAX_REMEMBERED_RESET_STREAMS)
        .reset_stream_duration(RESET_STREAM_RETENTION)
        .data_frame_budget(MAX_UNREAD_FRAME_OVERHEAD_BYTES);
    builder
}

/// The task that drives a connection.
///
/// The task ends when the connection is closed, when the connection has been idle for
/// `idle_timeout`, or when the pool has been dropped and no stream is open.
struct ConnectionDriver {
    connection: client::Connection<MeteredStream<MaybeTlsStream>, Bytes>,
    ping_pong: Option<PingPong>,
    liveness_check_timer: Pin<Box<Sleep>>,
    idle_timeout: Duration,
    /// If nothing is received for this long while a stream is open, a ping is sent. If nothing is
    /// received for this long after the ping, the connection is closed.
    silence_limit: Duration,
    connection_state: Arc<ConnectionState>,
    pool: Weak<Http2Pool>,
    /// The peer's limit on streams that was last passed to the pool.
    last_applied_max_streams: usize,
    /// The progress count of `connection_state` at the last poll.
    last_progress_count: usize,
    /// The number of received bytes when the progress count last changed.
    bytes_read_at_last_progress: u64,
    /// The number of received bytes at the last poll.
    last_bytes_read: u64,
    ping_sent_at: Option<Instant>,
    /// Declared after `connection`, so that the socket is closed before the guard stops counting
    /// it.
    _socket_count_guard: SocketCountGuard,
}

impl Future for ConnectionDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Poll::Ready(result) = Pin::new(&mut self.connection).poll(cx) {
                // Only the reason code is logged. The pool key can contain a proxy's credentials,
                // and the debug data of a GOAWAY can contain parts of a request.
                let reason = result.err().and_then(|error| error.reason());
                tracing::debug!(?reason, "HTTP/2 connection ended");
                return Poll::Ready(());
            }
            self.update_last_read();
            self.apply_peer_stream_limit();
            if self.detect_server_flood() || self.has_no_further_use() {
                return Poll::Ready(());
            }
            if self.liveness_check_timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if !self.check_liveness(now) {
                return Poll::Ready(());
            }
            let next_check = now + self.liveness_check_interval();
            self.liveness_check_timer.as_mut().reset(next_check);
        }
    }
}

impl ConnectionDriver {
    fn update_last_read(&mut self) {
        let bytes_read = self.connection_state.bytes_read();
        if bytes_read != self.last_bytes_read {
            self.last_bytes_read = bytes_read;
            self.connection_state.record_read_time();
        }
    }

    fn apply_peer_stream_limit(&mut self) {
        let max_streams = self.connection.max_concurrent_send_streams();
        if max_streams != self.last_applied_max_streams {
            self.last_applied_max_streams = max_streams;
            if let Some(pool) = self.pool.upgrade() {
                pool.apply_peer_max_streams(&self.connection_state, max_streams);
            }
        }
    }

    /// Returns whether the server has sent much more than the flow-control windows of the open
    /// streams allow. If so, sets the close reason of the connection.
    fn detect_server_flood(&mut self) -> bool {
        let progress = self.connection_state.progress_count();
        if progress != self.last_progress_count {
            self.last_progress_count = progress;
            self.bytes_read_at_last_progress = self.last_bytes_read;
        }
        let body_bytes =
            self.connection_state.open_stream_count() as u64 * u64::from(STREAM_WINDOW_SIZE);
        let unproductive_bytes = self.last_bytes_read - self.bytes_read_at_last_progress;
        let is_flood = unproductive_bytes > MAX_UNPRODUCTIVE_BYTES + body_bytes;
        if is_flood {
            let reason = "the server floods the connection with unproductive frames";
            self.connection_state
                .set_local_close_reason(ErrorKind::Protocol, reason);
        }
        is_flood
    }

    /// Returns whether the connection has no open stream and gets no more streams.
    fn has_no_further_use(&self) -> bool {
        let takes_no_streams = self.connection_state.is_retired() || self.pool.strong_count() == 0;
        takes_no_streams && self.connection_state.open_stream_count() == 0
    }

    fn liveness_check_interval(&self) -> Duration {
        LIVENESS_CHECK_INTERVAL
            .min(self.idle_timeout)
            .min(self.silence_limit)
            .max(Duration::from_millis(10))
    }

    /// Retires the connection (it gets no more streams) if it has been idle for too long. Sends a
    /// ping if streams are open and nothing was received for too long.
    ///
    /// Returns false if the peer did not respond to a ping in time.
    fn check_liveness(&mut self, now: Instant) -> bool {
        let last_read_at = self.connection_state.last_read_at();
        if self.connection_state.open_stream_count() == 0 {
            self.ping_sent_at = None;
            if self.connection_state.idle_since() + self.idle_timeout <= now
                && let Some(pool) = self.pool.upgrade()
            {
                pool.retire_if_idle(&self.connection_state);
            }
            return true;
        }
        self.ping_sent_at = self.ping_sent_at.filter(|&sent_at| last_read_at < sent_at);
        match self.ping_sent_at {
            Some(sent_at) if now >= sent_at + self.silence_limit => {
                let reason = "the connection is unresponsive: a ping was not answered";
                self.connection_state
                    .set_local_close_reason(ErrorKind::Closed, reason);
                return false;
            }
            None if now >= last_read_at + self.silence_limit => {
                self.send_ping();
                self.ping_sent_at = Some(now);
            }
            Some(_) | None => {}
        }
        true
    }

    fn send_ping(&mut self) {
        if let Some(ping_pong) = &mut self.ping_pong {
            // h2 sends the next ping only after the pong of the previous ping has been polled.
            let _ = ping_pong.poll_pong(&mut Context::from_waker(Waker::noop()));
            // Sending fails only on a closed connection. The next poll of the connection reports
            // the close.
            let _ = ping_pong.send_ping(Ping::opaque());
        }
    }
}

/// Removes the connection from the pool before it is closed and its streams fail.
impl Drop for ConnectionDriver {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.retire(&self.connection_state);
        }
    }
}
