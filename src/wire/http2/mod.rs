//! HTTP/2, through the `h2` crate: many exchanges at once on a connection.
//!
//! A stream is one exchange. Its task waits on h2's handles; the connection itself is driven by a
//! task of its own, on the runtime whose socket it is.

mod connection;
mod dial;
mod exchange;
mod pool;
mod protocol_cache;
mod request;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::Instant;

use self::dial::Http2Offer;
pub(super) use self::dial::{DialTicket, Negotiated};
pub(crate) use self::exchange::Http2Body;
pub(super) use self::exchange::StreamLease;
use self::pool::{Http2Pool, Lookup};
use super::attempt_clock::AttemptClock;
use super::{HttpVersionPolicy, Target, VALIDATE_AFTER_IDLE};

/// The HTTP/2 connections of one fetcher.
pub(super) struct Http2Connections {
    pool: Arc<Http2Pool>,
    protocols: HttpVersionPolicy,
}

/// How a request goes on.
pub(super) enum Route {
    /// On a stream of a connection that is there.
    Stream(StreamLease),
    /// By a connection that is to be opened.
    Dial(DialTicket),
}

impl Http2Connections {
    pub(super) fn new(
        protocols: HttpVersionPolicy,
        idle_timeout: Duration,
        ping_timeout: Duration,
    ) -> Self {
        Self {
            pool: Http2Pool::new(idle_timeout, ping_timeout),
            protocols,
        }
    }

    /// Whether the first connection to an origin tells how many more it takes.
    pub(super) fn is_protocol_unknown(&self, target: &Target<'_>) -> bool {
        self.offer(target) == Http2Offer::Alpn && self.pool.is_protocol_unknown(&target.pool_key())
    }

    /// Finds a stream; joins a connection that is being opened; or else opens one. From the moment that there is no
    /// stream it counts as connecting.
    pub(super) async fn route(&self, target: &Target<'_>, clock: &AttemptClock) -> Route {
        let offer = self.offer(target);
        if offer == Http2Offer::None {
            clock.record_connecting(Instant::now());
            return Route::Dial(DialTicket::http1());
        }
        let runtime = Handle::current().id();
        let key = target.pool_key();
        // Recent enough, and saves a look at the clock.
        let mut now = clock.last_activity();
        let mut dial_alone = false;
        let mut is_connecting = false;
        let mut yielded = false;
        loop {
            let lookup = self.pool.lookup(runtime, &key, offer, dial_alone, now);
            if !is_connecting && !matches!(lookup, Lookup::Stream(_)) {
                clock.record_connecting(Instant::now());
                is_connecting = true;
            }
            match lookup {
                Lookup::Stream(mut lease) => {
                    if !yielded && lease.idle_duration(now) >= VALIDATE_AFTER_IDLE {
                        // The driver may not have been asked yet.
                        yield_now().await;
                        yielded = true;
                    }
                    if lease.is_stale() {
                        lease.retire();
                        continue;
                    }
                    clock.record_connected(now);
                    return Route::Stream(lease);
                }
                Lookup::Pending(pending) => {
                    dial_alone = pending_connection_failed(pending).await;
                    now = Instant::now();
                }
                Lookup::Dial(dial) => return Route::Dial(dial),
            }
        }
    }

    /// Makes room for another connection.
    pub(super) fn evict_oldest_idle(&self) {
        self.pool.evict_oldest_idle();
    }

    fn offer(&self, target: &Target<'_>) -> Http2Offer {
        match self.protocols {
            HttpVersionPolicy::Http1 => Http2Offer::None,
            _ if target.https => Http2Offer::Alpn,
            HttpVersionPolicy::PriorKnowledge if !target.uses_forward_proxy() => {
                Http2Offer::PriorKnowledge
            }
            HttpVersionPolicy::PriorKnowledge | HttpVersionPolicy::Negotiated => Http2Offer::None,
        }
    }
}

async fn pending_connection_failed(mut pending: watch::Receiver<bool>) -> bool {
    pending.changed().await.is_ok()
}
