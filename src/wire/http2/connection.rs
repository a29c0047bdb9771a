//! One HTTP/2 connection and the task that drives it.
//!
//! It is state by many exchanges, so that none of them can drive it: here there is a task.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong, client};
use tokio::runtime::Id;
use tokio::time::{Instant, Sleep, sleep};

use super::dial::DialRegistration;
use super::exchange::StreamLease;
use super::pool::Http2Pool;
use crate::error::{Error, ErrorKind};
use crate::wire::connection::MAX_HEAD_BYTES;
use crate::wire::metered::{IoCounts, Metered};
use crate::wire::pool::SocketPermit;
use crate::wire::stream::MaybeTlsStream;

/// What a server may send of one body before it is read.
const STREAM_WINDOW_SIZE: u32 = 1 << 20;
/// So large that a body nobody reads holds up no other stream: each has its own window.
const CONNECTION_WINDOW_SIZE: u32 = 1 << 30;
/// What small unread frames may cost in memory.
const DATA_FRAME_BUDGET: usize = 4 << 20;
/// Streams reset by us of which the peer may not have last_read yet.
const MAX_RESET_STREAMS: usize = 4096;
const RESET_STREAM_DURATION: Duration = Duration::from_secs(30);
/// What a server may send, beside the bodies, that brings no exchange any further.
const MAX_UNPRODUCTIVE_BYTES: u64 = 4 << 20;
/// How often an idle or silent connection is looked for.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Stands for the number of streams the peer allows until it has told. It is no `u32`, nor what
/// h2 takes for no limit.
const UNKNOWN_MAX_STREAMS: usize = usize::MAX - 1;

/// What the pool, the driver and the exchanges of a connection know of it.
pub(super) struct ConnectionState {
    pub(super) origin: Arc<str>,
    pub(super) runtime: Id,
    pub(super) pool: Weak<Http2Pool>,
    io_counts: Arc<IoCounts>,
    epoch: Instant,
    open_streams: AtomicUsize,
    max_streams: AtomicUsize,
    /// Steps that exchanges have come further.
    progress_count: AtomicUsize,
    /// Nanoseconds from `epoch` to when the last stream ended.
    idle_since: AtomicU64,
    /// The same to when the peer was last_read of last.
    last_read: AtomicU64,
    retired: AtomicBool,
    close_reason: OnceLock<(ErrorKind, &'static str)>,
}

impl ConnectionState {
    /// Takes a stream if there is a free one. The caller holds the pool's lock.
    pub(super) fn try_open_stream(&self, now: Instant, idle_timeout: Duration) -> bool {
        let open_streams = self.open_streams();
        let expired =
            open_streams == 0 && now.saturating_duration_since(self.idle_since()) >= idle_timeout;
        let opens = open_streams < self.max_streams.load(Relaxed) && !expired;
        if opens {
            self.open_streams.fetch_add(1, Relaxed);
        }
        opens
    }

    pub(super) fn close_stream(&self) {
        self.record_progress();
        self.store_now(&self.idle_since);
        self.open_streams.fetch_sub(1, Relaxed);
    }

    /// An exchange has come further.
    pub(super) fn record_progress(&self) {
        self.progress_count.fetch_add(1, Relaxed);
    }

    pub(super) fn open_streams(&self) -> usize {
        self.open_streams.load(Relaxed)
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.load_instant(&self.idle_since)
    }

    /// When anything came from the peer for the last time.
    pub(super) fn last_read(&self) -> Instant {
        self.load_instant(&self.last_read)
    }

    fn store_now(&self, nanos: &AtomicU64) {
        let now = Instant::now().saturating_duration_since(self.epoch);
        nanos.store(now.as_nanos() as u64, Relaxed);
    }

    fn load_instant(&self, nanos: &AtomicU64) -> Instant {
        self.epoch + Duration::from_nanos(nanos.load(Relaxed))
    }

    pub(super) fn set_max_streams(&self, streams: usize) {
        self.max_streams.store(streams, Relaxed);
    }

    pub(super) fn mark_retired(&self) {
        self.retired.store(true, Relaxed);
    }

    /// Bytes that have come in so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.io_counts.read()
    }

    /// Whether TLS is the reason that nothing comes in any more.
    pub(super) fn is_tls_failure(&self) -> bool {
        self.io_counts.is_tls_failure()
    }

    /// Why this side has ended the connection.
    pub(super) fn close_reason(&self) -> Option<(ErrorKind, &'static str)> {
        self.close_reason.get().copied()
    }
}

/// Opens a connection: it is in the pool, with one stream taken, and its driver is under way.
pub(super) async fn start(
    mut registration: DialRegistration,
    stream: MaybeTlsStream,
    permit: SocketPermit,
) -> Result<StreamLease, Error> {
    let io_counts = Arc::new(IoCounts::for_http2());
    let metered = Metered::new(stream, Arc::clone(&io_counts));
    let (sender, mut connection) = builder()
        .handshake(metered)
        .await
        .map_err(|error| Error::new(ErrorKind::Closed, error))?;
    let pings = connection.ping_pong();
    let pool = Arc::clone(&registration.pool);
    let state = Arc::new(ConnectionState {
        origin: Arc::clone(&registration.origin),
        runtime: registration.runtime,
        pool: Arc::downgrade(&pool),
        io_counts,
        epoch: Instant::now(),
        open_streams: AtomicUsize::new(1),
        max_streams: AtomicUsize::new(1),
        progress_count: AtomicUsize::new(0),
        idle_since: AtomicU64::new(0),
        last_read: AtomicU64::new(0),
        retired: AtomicBool::new(false),
        close_reason: OnceLock::new(),
    });
    let driver = Driver {
        connection,
        pings,
        timer: Box::pin(sleep(
            CHECK_INTERVAL.min(pool.idle_timeout).min(pool.ping_timeout),
        )),
        idle_timeout: pool.idle_timeout,
        ping_timeout: pool.ping_timeout,
        state: Arc::clone(&state),
        max_streams: UNKNOWN_MAX_STREAMS,
        seen_progress: 0,
        read_at_last_progress: 0,
        last_bytes_read: 0,
        ping_sent_at: None,
        _permit: permit,
    };
    let lease = StreamLease::new(Arc::clone(&state), sender.clone(), false);
    pool.add(state, sender, registration.take_pending());
    tokio::spawn(driver);
    Ok(lease)
}

fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_SIZE)
        .initial_connection_window_size(CONNECTION_WINDOW_SIZE)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .initial_max_send_streams(UNKNOWN_MAX_STREAMS)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .reset_stream_duration(RESET_STREAM_DURATION)
        .data_frame_budget(DATA_FRAME_BUDGET);
    builder
}

/// The task behind a connection. It ends with the connection, when that has been idle for long
/// enough, and when there is neither a pool nor a stream any more.
struct Driver {
    connection: client::Connection<Metered<MaybeTlsStream>, Bytes>,
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    idle_timeout: Duration,
    /// So long a connection with open streams may be silent before it is ping_sent_at, and after that.
    ping_timeout: Duration,
    state: Arc<ConnectionState>,
    max_streams: usize,
    /// The exchanges' steps when last looked at, and the bytes that had come in by then.
    seen_progress: usize,
    read_at_last_progress: u64,
    /// The bytes that had come in when last looked at.
    last_bytes_read: u64,
    ping_sent_at: Option<Instant>,
    /// After `connection`: the socket is closed before its permit is given back.
    _permit: SocketPermit,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
                // Neither the key, which may hold a proxy's credentials, nor what the peer says.
                let reason = ended.err().and_then(|error| error.reason());
                tracing::debug!(?reason, "HTTP/2 connection ended");
                return Poll::Ready(());
            }
            self.update_last_read();
            self.apply_peer_settings();
            if self.detect_flood() || self.is_abandoned() {
                return Poll::Ready(());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if !self.check_liveness(now) {
                return Poll::Ready(());
            }
            let next_check = now + self.check_interval();
            self.timer.as_mut().reset(next_check);
        }
    }
}

impl Driver {
    fn update_last_read(&mut self) {
        let read = self.state.bytes_read();
        if read != self.last_bytes_read {
            self.last_bytes_read = read;
            self.state.store_now(&self.state.last_read);
        }
    }

    fn apply_peer_settings(&mut self) {
        let max_streams = self.connection.max_concurrent_send_streams();
        if max_streams != self.max_streams {
            self.max_streams = max_streams;
            if let Some(pool) = self.state.pool.upgrade() {
                pool.set_max_streams(&self.state, max_streams);
            }
        }
    }

    /// Whether far more has come in than the exchanges can be waiting for.
    fn detect_flood(&mut self) -> bool {
        let clock = self.state.progress_count.load(Relaxed);
        if clock != self.seen_progress {
            self.seen_progress = clock;
            self.read_at_last_progress = self.last_bytes_read;
        }
        let bodies = self.state.open_streams() as u64 * u64::from(STREAM_WINDOW_SIZE);
        let flooded =
            self.last_bytes_read - self.read_at_last_progress > MAX_UNPRODUCTIVE_BYTES + bodies;
        if flooded {
            self.set_close_reason(ErrorKind::Protocol, "a flood of frames that bring nothing");
        }
        flooded
    }

    /// Whether nothing is left that could use the connection.
    fn is_abandoned(&self) -> bool {
        let state = &self.state;
        let no_more = state.retired.load(Relaxed) || state.pool.strong_count() == 0;
        no_more && state.open_streams() == 0
    }

    /// How long until it is looked after again.
    fn check_interval(&self) -> Duration {
        CHECK_INTERVAL
            .min(self.idle_timeout)
            .min(self.ping_timeout)
            .max(Duration::from_millis(10))
    }

    /// Looks after a connection that may be idle or dead. False if it is dead.
    fn check_liveness(&mut self, now: Instant) -> bool {
        let last_read = self.state.last_read();
        if self.state.open_streams() == 0 {
            self.ping_sent_at = None;
            if self.state.idle_since() + self.idle_timeout <= now
                && let Some(pool) = self.state.pool.upgrade()
            {
                pool.retire_idle(&self.state);
            }
            return true;
        }
        self.ping_sent_at = self.ping_sent_at.filter(|&at| last_read < at);
        match self.ping_sent_at {
            Some(at) if now >= at + self.ping_timeout => {
                let reason = "the connection is dead: no answer to a ping";
                self.set_close_reason(ErrorKind::Closed, reason);
                return false;
            }
            None if now >= last_read + self.ping_timeout => {
                self.send_ping();
                self.ping_sent_at = Some(now);
            }
            Some(_) | None => {}
        }
        true
    }

    fn send_ping(&mut self) {
        if let Some(pings) = &mut self.pings {
            // The last pong is taken, or there could be no other ping.
            let _ = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
            // Fails if the connection is closed, which its next poll will tell.
            let _ = pings.send_ping(Ping::opaque());
        }
    }

    fn set_close_reason(&self, kind: ErrorKind, reason: &'static str) {
        // There is one end to a connection.
        let _ = self.state.close_reason.set((kind, reason));
    }
}

/// Before the connection is closed, and so before its streams fail, it is out of the pool.
impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(pool) = self.state.pool.upgrade() {
            pool.retire(&self.state);
        }
    }
}
