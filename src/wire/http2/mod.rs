//! HTTP/2 through the `h2` crate: many concurrent exchanges on one connection.
//!
//! Each exchange has its own stream, and its task polls h2's handles of the stream. A driver task
//! polls the connection itself, on the runtime that its socket is registered with.

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
pub(super) use self::dial::{DialTicket, Negotiated};
pub(super) use self::exchange::exchange;
pub(super) use self::pool::StreamLease;
use self::pool::{Http2Pool, Lookup};
use super::config::{HttpVersionPolicy, VALIDATE_AFTER_IDLE};
use super::target::Target;
use crate::attempt_clock::AttemptClock;

/// The HTTP/2 connections of one fetcher.
pub(super) struct Http2Connections {
    pool: Arc<Http2Pool>,
    http_versions: HttpVersionPolicy,
}

/// How a request gets a connection.
pub(super) enum Route {
    /// The request uses this stream of an open HTTP/2 connection.
    Stream(StreamLease),
    /// The request opens a connection with this ticket.
    Dial(DialTicket),
}

impl Http2Connections {
    pub(super) fn new(
        http_versions: HttpVersionPolicy,
        idle_timeout: Duration,
        ping_interval: Duration,
    ) -> Self {
        Self {
            pool: Http2Pool::new(idle_timeout, ping_interval),
            http_versions,
        }
    }

    /// Returns whether it is unknown if the origin supports HTTP/2, and the first connection will
    /// tell.
    pub(super) fn is_protocol_unknown(&self, target: &Target<'_>) -> bool {
        self.offer(target) == Http2Offer::Alpn && self.pool.is_protocol_unknown(&target.pool_key())
    }

    /// Finds a stream, or waits for a connection being opened, or returns a ticket to open one.
    ///
    /// Connecting begins, on the clock, when no stream is free.
    pub(super) async fn route(&self, target: &Target<'_>, clock: &AttemptClock) -> Route {
        let offer = self.offer(target);
        if offer == Http2Offer::None {
            clock.record_connecting(Instant::now());
            return Route::Dial(DialTicket::http1_only());
        }
        let runtime = Handle::current().id();
        let key = target.pool_key();
        let assume_http2 = offer == Http2Offer::PriorKnowledge;
        // The last activity is close enough to the present, and needs no system call.
        let mut now = clock.last_activity();
        let mut dial_alone = false;
        let mut is_connecting = false;
        let mut has_yielded = false;
        loop {
            let lookup = self
                .pool
                .lookup(runtime, &key, assume_http2, dial_alone, now);
            if !is_connecting && !matches!(lookup, Lookup::Stream(_)) {
                clock.record_connecting(Instant::now());
                is_connecting = true;
            }
            match lookup {
                Lookup::Stream(mut lease) => {
                    if !has_yielded && lease.idle_duration(now) >= VALIDATE_AFTER_IDLE {
                        // Lets the driver see whether the peer has closed the connection.
                        yield_now().await;
                        has_yielded = true;
                    }
                    if lease.is_stale() {
                        lease.retire_connection();
                        continue;
                    }
                    clock.record_connected(now);
                    return Route::Stream(lease);
                }
                Lookup::Pending(pending) => {
                    dial_alone = pending_connection_failed(pending).await;
                    now = Instant::now();
                }
                Lookup::Dial(registration) => {
                    return Route::Dial(DialTicket::new(registration, offer));
                }
                Lookup::Http1 => return Route::Dial(DialTicket::http1_only()),
            }
        }
    }

    /// Makes room for another connection.
    pub(super) fn evict_oldest_idle(&self) {
        self.pool.evict_oldest_idle();
    }

    fn offer(&self, target: &Target<'_>) -> Http2Offer {
        match self.http_versions {
            HttpVersionPolicy::Http1 => Http2Offer::None,
            _ if target.https => Http2Offer::Alpn,
            HttpVersionPolicy::PriorKnowledge if !target.uses_forward_proxy() => {
                Http2Offer::PriorKnowledge
            }
            HttpVersionPolicy::PriorKnowledge | HttpVersionPolicy::Negotiated => Http2Offer::None,
        }
    }
}

/// Waits until a connection is ready or abandoned. Returns whether it failed.
async fn pending_connection_failed(mut pending: watch::Receiver<bool>) -> bool {
    pending.changed().await.is_ok()
}
