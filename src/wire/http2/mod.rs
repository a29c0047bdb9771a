//! HTTP/2, through the `h2` crate: many exchanges at once on a connection.
//!
//! A stream is one exchange. Its task waits on h2's handles; the connection itself is driven by a
//! task of its own, on the runtime whose socket it is.

mod connection;
mod dial;
mod exchange;
mod head;
mod known;
mod pool;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::Instant;

use self::dial::Offer;
pub(super) use self::dial::{Agreed, Dial};
pub(crate) use self::exchange::Incoming;
pub(super) use self::exchange::Lease;
use self::pool::{Found, Pool};
use super::progress::Progress;
use super::{LONG_REST, Protocols, Target};

/// The HTTP/2 connections of one fetcher.
pub(super) struct Http2 {
    pool: Arc<Pool>,
    protocols: Protocols,
}

/// How a request goes on.
pub(super) enum Way {
    /// On a stream of a connection that is there.
    Stream(Lease),
    /// By a connection that is to be opened.
    Dial(Dial),
}

impl Http2 {
    pub(super) fn new(protocols: Protocols, idle: Duration, ping: Duration) -> Self {
        Self {
            pool: Pool::new(idle, ping),
            protocols,
        }
    }

    /// Whether the first connection to an origin tells how many more it takes.
    pub(super) fn is_unknown(&self, target: &Target<'_>) -> bool {
        self.offer(target) == Offer::Alpn && self.pool.is_unknown(&target.key())
    }

    /// Finds a stream; joins a connection that is being opened; or else opens one. From the moment that there is no
    /// stream it counts as connecting.
    pub(super) async fn way(&self, target: &Target<'_>, progress: &Progress) -> Way {
        let offer = self.offer(target);
        if offer == Offer::No {
            progress.connecting(Instant::now());
            return Way::Dial(Dial::http1());
        }
        let runtime = Handle::current().id();
        let key = target.key();
        // Recent enough, and saves a look at the clock.
        let mut now = progress.touched_at();
        let mut alone = false;
        let mut has_waited = false;
        let mut yielded = false;
        loop {
            let found = self.pool.find(runtime, &key, offer, alone, now);
            if !has_waited && !matches!(found, Found::Lease(_)) {
                progress.connecting(Instant::now());
                has_waited = true;
            }
            match found {
                Found::Lease(mut lease) => {
                    if !yielded && lease.rested(now) >= LONG_REST {
                        // The driver may not have been asked yet.
                        yield_now().await;
                        yielded = true;
                    }
                    if lease.is_stale() {
                        lease.retire();
                        continue;
                    }
                    progress.connected(now);
                    return Way::Stream(lease);
                }
                Found::Opening(opening) => {
                    alone = has_failed(opening).await;
                    now = Instant::now();
                }
                Found::Dial(dial) => return Way::Dial(dial),
            }
        }
    }

    /// Makes room for another connection.
    pub(super) fn evict_idle(&self) {
        self.pool.evict_idle();
    }

    fn offer(&self, target: &Target<'_>) -> Offer {
        match self.protocols {
            Protocols::Http1 => Offer::No,
            _ if target.https => Offer::Alpn,
            Protocols::PriorKnowledge if !target.is_forwarded() => Offer::Prior,
            Protocols::PriorKnowledge | Protocols::Negotiated => Offer::No,
        }
    }
}

async fn has_failed(mut opening: watch::Receiver<bool>) -> bool {
    opening.changed().await.is_ok()
}
