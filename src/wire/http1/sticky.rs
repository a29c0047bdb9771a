//! The connection that a worker (a task that runs one exchange after another) keeps between two
//! exchanges.

use tokio::time::Instant;

use super::connection::Connection;
use super::idle_list::IdleConnection;

/// The idle HTTP/1.1 connection, if any, that a worker keeps for its next exchange.
///
/// The next request of a worker is likely to go to the same server. Keeping the connection saves a
/// poll, a waker and two operations on the pool.
///
/// Other requests cannot use the kept connection. Therefore the worker returns the connection to
/// the pool before the worker waits for anything but the peer, sends to another host, or ends. A
/// `StickyConnection` is used on one runtime only.
///
/// Dropping a `StickyConnection` closes its connection.
#[derive(Default)]
pub(crate) struct StickyConnection(Option<IdleConnection<Connection>>);

impl StickyConnection {
    /// Returns the kept connection, if there is one, to the pool.
    pub(crate) fn return_to_pool(&mut self) {
        if let Some(idle) = self.0.take() {
            idle.connection.return_to_pool(idle.idle_since);
        }
    }

    /// Keeps a reusable connection for the next exchange.
    pub(super) fn keep_for_next_exchange(
        &mut self,
        connection: Box<Connection>,
        idle_since: Instant,
    ) {
        // An older connection may still be kept if this exchange opened a new connection.
        self.return_to_pool();
        self.0 = Some(IdleConnection {
            connection,
            idle_since,
        });
    }

    /// Takes the kept connection if its key is `pool_key` and it has not expired. Otherwise,
    /// returns the kept connection to the pool.
    pub(super) fn take_for_key(
        &mut self,
        pool_key: &str,
        now: Instant,
    ) -> Option<IdleConnection<Connection>> {
        let idle = self.0.take()?;
        if idle.is_usable_for_key(pool_key, now) {
            return Some(idle);
        }
        idle.connection.return_to_pool(idle.idle_since);
        None
    }
}
