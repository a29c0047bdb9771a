//! HTTP/2 through the `h2` crate: many concurrent exchanges on one connection.
//!
//! Each exchange has its own stream. The task of the exchange polls h2's handles of this stream. A
//! driver task polls the connection, on the runtime with whose reactor the socket is registered.

mod body;
mod connection;
mod connection_map;
mod dial;
mod exchange;
mod pool;
mod protocol_cache;
mod request;
mod state;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::Instant;

pub(crate) use self::body::Http2Body;
use self::dial::Http2Offer;
pub(super) use self::dial::{DialTicket, NegotiatedConnection};
pub(super) use self::exchange::exchange;
pub(super) use self::pool::StreamLease;
use self::pool::{Http2Pool, StreamSource};
use super::config::{HttpVersionPolicy, VALIDATE_AFTER_IDLE};
use super::target::ConnectionTarget;
use crate::descriptors;
use crate::hop_clock::HopClock;

/// The HTTP/2 connections of one fetcher.
pub(super) struct Http2Connections {
    pool: Arc<Http2Pool>,
    http_version_policy: HttpVersionPolicy,
}

/// A stream of an open connection, or a ticket for opening a connection.
pub(super) enum StreamOrDialTicket {
    /// The request uses this stream of an open HTTP/2 connection.
    Stream(StreamLease),
    /// The request opens (dials) a connection with this ticket.
    Dial(DialTicket),
}

impl Http2Connections {
    pub(super) fn new(
        http_version_policy: HttpVersionPolicy,
        idle_timeout: Duration,
        silence_limit: Duration,
    ) -> Self {
        let pool = Http2Pool::new(idle_timeout, silence_limit);
        descriptors::register_idle_connection_pool(&pool);
        Self {
            pool,
            http_version_policy,
        }
    }

    /// Returns whether the protocol of the origin is still unknown. The first connection to the
    /// origin finds out whether the origin supports HTTP/2 (ALPN).
    pub(super) fn is_protocol_unknown(&self, target: &ConnectionTarget<'_>) -> bool {
        self.http2_offer(target) == Http2Offer::Alpn
            && self.pool.is_protocol_unknown(&target.pool_key())
    }

    /// Returns a free stream, or a ticket for opening a connection. Before that, waits for any
    /// connection being opened by another request that will have a free stream.
    ///
    /// `clock` records that connecting begins if no stream is free at once.
    pub(super) async fn take_stream_or_dial_ticket(
        &self,
        target: &ConnectionTarget<'_>,
        clock: &HopClock,
    ) -> StreamOrDialTicket {
        let offer = self.http2_offer(target);
        if offer == Http2Offer::NotOffered {
            clock.record_connecting(Instant::now());
            return StreamOrDialTicket::Dial(DialTicket::without_http2_offer());
        }
        let runtime_id = Handle::current().id();
        let key = target.pool_key();
        let assume_http2 = offer == Http2Offer::PriorKnowledge;
        // The time of the last activity is precise enough for the checks of idle connections, and
        // reading it needs no system call.
        let mut now = clock.last_activity_at();
        let mut dial_alone = false;
        let mut is_connecting = false;
        let mut has_yielded = false;
        loop {
            let source =
                self.pool
                    .find_stream_or_dial(runtime_id, &key, assume_http2, dial_alone, now);
            if !is_connecting && !matches!(source, StreamSource::Stream(_)) {
                clock.record_connecting(Instant::now());
                is_connecting = true;
            }
            match source {
                StreamSource::Stream(mut lease) => {
                    if !has_yielded && lease.idle_duration_before_lease(now) >= VALIDATE_AFTER_IDLE
                    {
                        // The driver task runs during the yield and detects a close by the peer.
                        yield_now().await;
                        has_yielded = true;
                    }
                    if lease.cannot_open_stream() {
                        lease.retire_connection();
                        continue;
                    }
                    clock.record_connected(now);
                    return StreamOrDialTicket::Stream(lease);
                }
                StreamSource::PendingConnection(pending) => {
                    dial_alone = wait_for_pending_connection(pending).await;
                    now = Instant::now();
                }
                StreamSource::Dial(registration) => {
                    return StreamOrDialTicket::Dial(DialTicket::new(registration, offer));
                }
                StreamSource::DialHttp1 => {
                    return StreamOrDialTicket::Dial(DialTicket::without_http2_offer());
                }
            }
        }
    }

    /// Closes the connection that has been idle for the longest time, so that another connection
    /// can be opened.
    pub(super) fn evict_longest_idle(&self) {
        self.pool.evict_longest_idle();
    }

    /// The number of connections without a stream.
    pub(super) fn idle_count(&self) -> usize {
        self.pool.idle_count()
    }

    fn http2_offer(&self, target: &ConnectionTarget<'_>) -> Http2Offer {
        match self.http_version_policy {
            HttpVersionPolicy::Http1Only => Http2Offer::NotOffered,
            _ if target.is_https => Http2Offer::Alpn,
            HttpVersionPolicy::PriorKnowledge if !target.uses_forward_proxy() => {
                Http2Offer::PriorKnowledge
            }
            HttpVersionPolicy::PriorKnowledge | HttpVersionPolicy::Negotiate => {
                Http2Offer::NotOffered
            }
        }
    }
}

/// Waits until a connection that another request opens is ready or abandoned. Returns whether
/// opening the connection failed.
async fn wait_for_pending_connection(mut pending: watch::Receiver<bool>) -> bool {
    pending.changed().await.is_ok()
}
