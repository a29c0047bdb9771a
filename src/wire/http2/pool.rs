//! The pool of the HTTP/2 connections that accept new streams, and of those being opened.
//!
//! A request uses the first connection with a free stream. If no stream is free, the request waits
//! for a connection being opened that will have a free stream. If there is no such connection, the
//! request opens one.
//!
//! Requests thus wait for the network only, and never for other requests to end. There are never
//! more connections than the same requests would use over HTTP/1.1.
//!
//! The lock is held for a few instructions. A value whose drop may wake a task is dropped after the
//! lock is released.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::runtime::Id;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection_map::{ConnectionMap, ConnectionWaiters, PooledConnection};
use super::protocol_cache::{ProtocolCache, ProtocolSupport};
use super::state::ConnectionState;
use crate::descriptors::IdleConnectionPool;

/// A connection that has received nothing for this long is retired (gets no more streams) when one
/// of its requests times out or is cancelled.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(1);

/// The HTTP/2 connections of one fetcher, and the protocols that its origins support.
pub(super) struct Http2Pool {
    pool_state: Mutex<PoolState>,
    pub(super) idle_timeout: Duration,
    pub(super) silence_limit: Duration,
    next_dial_id: AtomicU64,
}

#[derive(Default)]
struct PoolState {
    connections: ConnectionMap,
    protocol_cache: ProtocolCache,
}

/// How a request gets a connection. Returned by [`Http2Pool::find_stream_or_dial`].
pub(super) enum StreamSource {
    /// The request uses this stream of an open connection.
    Stream(StreamLease),
    /// The request waits for a connection that another request opens. The channel closes when the
    /// connection is ready or abandoned. If opening the connection failed, the channel first
    /// receives `true`.
    PendingConnection(watch::Receiver<bool>),
    /// The request opens a connection.
    Dial(DialRegistration),
    /// The request opens an HTTP/1.1 connection, because the origin requires HTTP/1.1.
    DialHttp1,
}

impl Http2Pool {
    pub(super) fn new(idle_timeout: Duration, silence_limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            pool_state: Mutex::default(),
            idle_timeout,
            silence_limit,
            next_dial_id: AtomicU64::new(0),
        })
    }

    /// Decides how a request to `origin` gets a connection.
    ///
    /// With `assume_http2`, an origin whose protocol is unknown is assumed to support HTTP/2.
    ///
    /// With `dial_alone`, the request waits for no other request and opens its own connection, for
    /// which no other request waits.
    pub(super) fn find_stream_or_dial(
        self: &Arc<Self>,
        runtime_id: Id,
        origin: &str,
        assume_http2: bool,
        dial_alone: bool,
        now: Instant,
    ) -> StreamSource {
        let mut state = self.lock_state();
        let PoolState {
            connections,
            protocol_cache,
        } = &mut *state;
        let acquired =
            connections.reserve_stream_on_oldest(runtime_id, origin, now, self.idle_timeout);
        if let Some((connection, sender)) = acquired {
            return StreamSource::Stream(StreamLease::new(self, connection, sender, true));
        }
        let assumed = assume_http2.then_some(ProtocolSupport::HTTP2_UNKNOWN_STREAMS);
        let support = protocol_cache.get_support(origin).or(assumed);
        let mut registration = DialRegistration {
            pool: Arc::clone(self),
            runtime_id,
            origin: origin.into(),
            dial_id: None,
        };
        match support {
            Some(ProtocolSupport::Http1Required) => StreamSource::DialHttp1,
            Some(ProtocolSupport::Http2 { max_streams }) if !dial_alone => {
                if let Some(pending) =
                    connections.join_pending_connection(runtime_id, origin, max_streams)
                {
                    return StreamSource::PendingConnection(pending);
                }
                let dial_id = self.next_dial_id.fetch_add(1, Relaxed);
                connections.add_dial(runtime_id, &registration.origin, dial_id);
                registration.dial_id = Some(dial_id);
                StreamSource::Dial(registration)
            }
            _ => StreamSource::Dial(registration),
        }
    }

    pub(super) fn is_protocol_unknown(&self, origin: &str) -> bool {
        self.lock_state()
            .protocol_cache
            .get_support(origin)
            .is_none()
    }

    /// Records the protocol that an origin supports. If the origin requires HTTP/1.1, retires its
    /// HTTP/2 connections.
    pub(super) fn record_protocol_support(&self, origin: &Arc<str>, support: ProtocolSupport) {
        let mut state = self.lock_state();
        state.protocol_cache.set_support(origin, support);
        // HTTP/2 connections may have been opened before the origin required HTTP/1.1.
        let retired = match support {
            ProtocolSupport::Http1Required => state.connections.remove_origin_connections(origin),
            _ => Vec::new(),
        };
        drop(state);
        for pooled in &retired {
            pooled.connection_state.mark_retired();
        }
    }

    /// Adds an open connection. The requests that waited until it was open now wait until the
    /// peer's settings arrive.
    pub(super) fn add_connection(
        &self,
        connection: Arc<ConnectionState>,
        sender: SendRequest<Bytes>,
        waiters: Option<ConnectionWaiters>,
    ) {
        let mut state = self.lock_state();
        match state.protocol_cache.get_support(&connection.origin) {
            Some(ProtocolSupport::Http1Required) => {
                drop(state);
                connection.mark_retired();
                return;
            }
            Some(ProtocolSupport::Http2 { .. }) => {}
            Some(ProtocolSupport::Http1) | None => {
                let support = ProtocolSupport::HTTP2_UNKNOWN_STREAMS;
                state
                    .protocol_cache
                    .set_support(&connection.origin, support);
            }
        }
        state.connections.add_connection(PooledConnection {
            connection_state: connection,
            sender,
            waiters: Some(waiters.unwrap_or_else(ConnectionWaiters::new)),
        });
    }

    /// Applies the peer's limit on streams to a connection, and wakes the requests that wait for
    /// the peer's settings.
    pub(super) fn apply_peer_max_streams(&self, connection: &ConnectionState, max_streams: usize) {
        let mut state = self.lock_state();
        connection.set_max_streams(max_streams);
        if !state.protocol_cache.requires_http1(&connection.origin) {
            let support = ProtocolSupport::Http2 { max_streams };
            state
                .protocol_cache
                .set_support(&connection.origin, support);
        }
        let waiters = state.connections.mark_connection_ready(connection);
        drop(state);
        drop(waiters);
    }

    /// Removes a connection from the pool. The connection gets no more streams and closes after its
    /// last one.
    pub(super) fn retire(&self, connection: &ConnectionState) {
        connection.mark_retired();
        let mut state = self.lock_state();
        let retired = state.connections.remove_connection(connection);
        drop(state);
        drop(retired);
    }

    /// Retires a connection (it gets no more streams) if it has no open stream.
    pub(super) fn retire_if_idle(&self, connection: &ConnectionState) {
        let mut state = self.lock_state();
        if connection.open_stream_count() > 0 {
            return;
        }
        connection.mark_retired();
        let retired = state.connections.remove_connection(connection);
        drop(state);
        drop(retired);
    }

    /// Retires the connection that has been idle for the longest time. Returns false if no
    /// connection is idle.
    pub(super) fn evict_longest_idle(&self) -> bool {
        let oldest = self.lock_state().connections.longest_idle().map(Arc::clone);
        if let Some(oldest) = &oldest {
            self.retire_if_idle(oldest);
        }
        oldest.is_some()
    }

    pub(super) fn idle_count(&self) -> usize {
        self.lock_state().connections.idle_connections().count()
    }

    fn lock_state(&self) -> MutexGuard<'_, PoolState> {
        self.pool_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleConnectionPool for Http2Pool {
    fn close_some_idle_connections(&self) -> bool {
        self.evict_longest_idle()
    }
}

/// A connection being opened (a dial), which other requests may wait for.
///
/// Dropping the registration wakes the waiting requests. One of them then opens a connection.
pub(super) struct DialRegistration {
    pub(super) pool: Arc<Http2Pool>,
    pub(super) runtime_id: Id,
    pub(super) origin: Arc<str>,
    /// Identifies the dial for waiting requests. `None` if no other request may wait for the dial.
    dial_id: Option<u64>,
}

impl DialRegistration {
    /// Ends the registration. The requests that wait for the dial wake when the caller drops the
    /// returned value.
    pub(super) fn unregister_dial(&mut self) -> Option<ConnectionWaiters> {
        let dial_id = self.dial_id.take()?;
        let mut state = self.pool.lock_state();
        let connections = &mut state.connections;
        connections.remove_dial(self.runtime_id, &self.origin, dial_id)
    }
}

impl Drop for DialRegistration {
    fn drop(&mut self) {
        drop(self.unregister_dial());
    }
}

/// The right to one stream of a connection.
pub(in crate::wire) struct StreamLease {
    pub(super) connection_state: Arc<ConnectionState>,
    pool: Weak<Http2Pool>,
    /// h2's handle for opening the stream. `None` after the request was sent.
    pub(super) sender: Option<SendRequest<Bytes>>,
    /// Whether the connection was already open before this request.
    pub(super) is_connection_reused: bool,
    /// Set when the request is sent, and cleared when the response head arrives.
    pub(super) awaited_response_head: Option<AwaitedResponseHead>,
}

/// A sent request that waits for its response head.
#[derive(Clone, Copy)]
pub(super) struct AwaitedResponseHead {
    pub(super) sent_at: Instant,
    /// The number of bytes that the connection had received before the request was sent.
    pub(super) bytes_read_before_sending: u64,
}

impl StreamLease {
    /// Creates the lease of a stream that `connection_state` already counts as open.
    pub(super) fn new(
        pool: &Arc<Http2Pool>,
        connection_state: Arc<ConnectionState>,
        sender: SendRequest<Bytes>,
        is_connection_reused: bool,
    ) -> Self {
        Self {
            connection_state,
            pool: Arc::downgrade(pool),
            sender: Some(sender),
            is_connection_reused,
            awaited_response_head: None,
        }
    }

    /// How long the connection was idle before this lease. Zero if the connection has other
    /// streams.
    pub(super) fn idle_duration_before_lease(&self, now: Instant) -> Duration {
        match self.connection_state.open_stream_count() {
            1 => now.saturating_duration_since(self.connection_state.idle_since()),
            _ => Duration::ZERO,
        }
    }

    /// Whether the connection is closed or has received a GOAWAY, so that it accepts no more
    /// streams.
    pub(super) fn cannot_open_stream(&mut self) -> bool {
        let mut noop_context = Context::from_waker(Waker::noop());
        let ready = self
            .sender
            .as_mut()
            .map(|sender| sender.poll_ready(&mut noop_context));
        !matches!(ready, Some(Poll::Ready(Ok(()))))
    }

    /// Removes the connection from the pool, so that it gets no more streams.
    pub(super) fn retire_connection(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.retire(&self.connection_state);
        }
    }

    /// Records that the origin requires HTTP/1.1, and retires the origin's HTTP/2 connections.
    pub(super) fn record_http1_required(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.record_protocol_support(
                &self.connection_state.origin,
                ProtocolSupport::Http1Required,
            );
            pool.retire(&self.connection_state);
        }
    }
}

/// h2's handles of the stream must be dropped before the lease. Their drop resets an unfinished
/// stream.
impl Drop for StreamLease {
    fn drop(&mut self) {
        let is_unresponsive = self.awaited_response_head.is_some_and(|awaiting| {
            let last_activity = awaiting.sent_at.max(self.connection_state.last_read_at());
            last_activity.elapsed() >= UNRESPONSIVE_AFTER
        });
        if is_unresponsive {
            self.retire_connection();
        }
        self.connection_state.release_stream();
    }
}
