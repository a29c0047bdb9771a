//! One HTTP/2 connection and the task that drives it.
//!
//! It is shared by many exchanges, so that none of them can drive it: here there is a task.

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

use super::dial::Place;
use super::exchange::Lease;
use super::pool::Pool;
use crate::error::{Error, ErrorKind};
use crate::wire::connection::MAX_HEAD;
use crate::wire::meter::{Counts, Meter};
use crate::wire::pool::Token;
use crate::wire::stream::Stream;

/// What a server may send of one body before it is read.
const STREAM_WINDOW: u32 = 1 << 20;
/// So large that a body nobody reads holds up no other stream: each has its own window.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// What small unread frames may cost in memory.
const SMALL_FRAMES: usize = 4 << 20;
/// Streams reset by us of which the peer may not have heard yet.
const RESET_STREAMS: usize = 4096;
const RESET_MEMORY: Duration = Duration::from_secs(30);
/// What a server may send, beside the bodies, that brings no exchange any further.
const FLOOD: u64 = 4 << 20;
/// How often an idle or silent connection is looked for.
const LOOK: Duration = Duration::from_secs(2);
/// Stands for the number of streams the peer allows until it has told. It is no `u32`, nor what
/// h2 takes for no limit.
const UNTOLD: usize = usize::MAX - 1;

/// What the pool, the driver and the exchanges of a connection know of it.
pub(super) struct Shared {
    pub(super) origin: Arc<str>,
    pub(super) runtime: Id,
    pub(super) pool: Weak<Pool>,
    counts: Arc<Counts>,
    epoch: Instant,
    in_use: AtomicUsize,
    allowed: AtomicUsize,
    /// Steps that exchanges have come further.
    steps: AtomicUsize,
    /// Nanoseconds from `epoch` to when the last stream ended.
    idle_since: AtomicU64,
    /// The same to when the peer was heard of last.
    heard: AtomicU64,
    retired: AtomicBool,
    end: OnceLock<(ErrorKind, &'static str)>,
}

impl Shared {
    /// Takes a stream if there is a free one. The caller holds the pool's lock.
    pub(super) fn enter(&self, now: Instant, idle: Duration) -> bool {
        let in_use = self.in_use();
        let expired = in_use == 0 && now.saturating_duration_since(self.idle_since()) >= idle;
        let enters = in_use < self.allowed.load(Relaxed) && !expired;
        if enters {
            self.in_use.fetch_add(1, Relaxed);
        }
        enters
    }

    pub(super) fn leave(&self) {
        self.step();
        self.note(&self.idle_since);
        self.in_use.fetch_sub(1, Relaxed);
    }

    /// An exchange has come further.
    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Relaxed);
    }

    pub(super) fn in_use(&self) -> usize {
        self.in_use.load(Relaxed)
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.instant(&self.idle_since)
    }

    /// When anything came from the peer for the last time.
    pub(super) fn heard(&self) -> Instant {
        self.instant(&self.heard)
    }

    fn note(&self, nanos: &AtomicU64) {
        let now = Instant::now().saturating_duration_since(self.epoch);
        nanos.store(now.as_nanos() as u64, Relaxed);
    }

    fn instant(&self, nanos: &AtomicU64) -> Instant {
        self.epoch + Duration::from_nanos(nanos.load(Relaxed))
    }

    pub(super) fn allow(&self, streams: usize) {
        self.allowed.store(streams, Relaxed);
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    /// Bytes that have come in so far.
    pub(super) fn read(&self) -> u64 {
        self.counts.read()
    }

    /// Whether TLS is the reason that nothing comes in any more.
    pub(super) fn is_tls_failure(&self) -> bool {
        self.counts.is_tls_failure()
    }

    /// Why this side has ended the connection.
    pub(super) fn end(&self) -> Option<(ErrorKind, &'static str)> {
        self.end.get().copied()
    }
}

/// Opens a connection: it is in the pool, with one stream taken, and its driver is under way.
pub(super) async fn open(mut place: Place, stream: Stream, token: Token) -> Result<Lease, Error> {
    let counts = Arc::new(Counts::of_frames());
    let meter = Meter::new(stream, Arc::clone(&counts));
    let (sender, mut connection) = builder()
        .handshake(meter)
        .await
        .map_err(|error| Error::new(ErrorKind::Closed, error))?;
    let pings = connection.ping_pong();
    let pool = Arc::clone(&place.pool);
    let shared = Arc::new(Shared {
        origin: Arc::clone(&place.origin),
        runtime: place.runtime,
        pool: Arc::downgrade(&pool),
        counts,
        epoch: Instant::now(),
        in_use: AtomicUsize::new(1),
        allowed: AtomicUsize::new(1),
        steps: AtomicUsize::new(0),
        idle_since: AtomicU64::new(0),
        heard: AtomicU64::new(0),
        retired: AtomicBool::new(false),
        end: OnceLock::new(),
    });
    let driver = Driver {
        connection,
        pings,
        timer: Box::pin(sleep(LOOK.min(pool.idle).min(pool.ping))),
        idle: pool.idle,
        ping: pool.ping,
        shared: Arc::clone(&shared),
        allowed: UNTOLD,
        steps: 0,
        at_last_step: 0,
        read: 0,
        pinged: None,
        _token: token,
    };
    let lease = Lease::new(Arc::clone(&shared), sender.clone(), false);
    pool.add(shared, sender, place.take_opening());
    tokio::spawn(driver);
    Ok(lease)
}

fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_max_send_streams(UNTOLD)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_MEMORY)
        .data_frame_budget(SMALL_FRAMES);
    builder
}

/// The task behind a connection. It ends with the connection, when that has been idle for long
/// enough, and when there is neither a pool nor a stream any more.
struct Driver {
    connection: client::Connection<Meter<Stream>, Bytes>,
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    idle: Duration,
    /// So long a connection with open streams may be silent before it is pinged, and after that.
    ping: Duration,
    shared: Arc<Shared>,
    allowed: usize,
    /// The exchanges' steps when last looked at, and the bytes that had come in by then.
    steps: usize,
    at_last_step: u64,
    /// The bytes that had come in when last looked at.
    read: u64,
    pinged: Option<Instant>,
    /// After `connection`: the socket is closed before its token is given back.
    _token: Token,
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
            self.listen();
            self.look_at_settings();
            if self.is_flooded() || self.is_abandoned() {
                return Poll::Ready(());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if !self.look_after(now) {
                return Poll::Ready(());
            }
            let next = now + self.period();
            self.timer.as_mut().reset(next);
        }
    }
}

impl Driver {
    fn listen(&mut self) {
        let read = self.shared.read();
        if read != self.read {
            self.read = read;
            self.shared.note(&self.shared.heard);
        }
    }

    fn look_at_settings(&mut self) {
        let allowed = self.connection.max_concurrent_send_streams();
        if allowed != self.allowed {
            self.allowed = allowed;
            if let Some(pool) = self.shared.pool.upgrade() {
                pool.settle(&self.shared, allowed);
            }
        }
    }

    /// Whether far more has come in than the exchanges can be waiting for.
    fn is_flooded(&mut self) -> bool {
        let steps = self.shared.steps.load(Relaxed);
        if steps != self.steps {
            self.steps = steps;
            self.at_last_step = self.read;
        }
        let bodies = self.shared.in_use() as u64 * u64::from(STREAM_WINDOW);
        let flooded = self.read - self.at_last_step > FLOOD + bodies;
        if flooded {
            self.end(ErrorKind::Protocol, "a flood of frames that bring nothing");
        }
        flooded
    }

    /// Whether nothing is left that could use the connection.
    fn is_abandoned(&self) -> bool {
        let shared = &self.shared;
        let no_more = shared.retired.load(Relaxed) || shared.pool.strong_count() == 0;
        no_more && shared.in_use() == 0
    }

    /// How long until it is looked after again.
    fn period(&self) -> Duration {
        LOOK.min(self.idle)
            .min(self.ping)
            .max(Duration::from_millis(10))
    }

    /// Looks after a connection that may be idle or dead. False if it is dead.
    fn look_after(&mut self, now: Instant) -> bool {
        let heard = self.shared.heard();
        if self.shared.in_use() == 0 {
            self.pinged = None;
            if self.shared.idle_since() + self.idle <= now
                && let Some(pool) = self.shared.pool.upgrade()
            {
                pool.retire_idle(&self.shared);
            }
            return true;
        }
        self.pinged = self.pinged.filter(|&at| heard < at);
        match self.pinged {
            Some(at) if now >= at + self.ping => {
                let reason = "the connection is dead: no answer to a ping";
                self.end(ErrorKind::Closed, reason);
                return false;
            }
            None if now >= heard + self.ping => {
                self.send_ping();
                self.pinged = Some(now);
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

    fn end(&self, kind: ErrorKind, reason: &'static str) {
        // There is one end to a connection.
        let _ = self.shared.end.set((kind, reason));
    }
}

/// Before the connection is closed, and so before its streams fail, it is out of the pool.
impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(pool) = self.shared.pool.upgrade() {
            pool.retire(&self.shared);
        }
    }
}
