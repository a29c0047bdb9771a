//! The connection that a worker (a task that runs one exchange after another) keeps between two
//! exchanges.

use tokio::time::Instant;

use super::connection::Connection;
use super::idle_list::IdleConnection;

/// The idle HTTP/1.1 connection, if any, that a worker keeps for its next exchange.
///
/// The next request of a worker most likely goes to the same server. Keeping the connection saves
/// a poll, a waker and two visits to the pool.
///
/// Other requests cannot use a sticky connection. So the worker returns the connection to the pool
/// before the worker waits for anything but the peer, sends to another host, or ends. All exchanges
/// of one `StickyConnection` run on the same runtime.
///
/// Dropping a `StickyConnection` closes its connection.
#[derive(Default)]
pub(crate) struct StickyConnection(Option<IdleConnection<Connection>>);

impl StickyConnection {
    /// Returns the connection to the pool, if there is one.
    pub(crate) fn return_to_pool(&mut self) {
        if let Some(idle) = self.0.take() {
            idle.connection.return_to_pool(idle.idle_since);
        }
    }

    /// Keeps a connection that can be used again at once.
    pub(super) fn keep_for_next_exchange(
        &mut self,
        connection: Box<Connection>,
        idle_since: Instant,
    ) {
        // After an exchange on a fresh connection, an older sticky connection is still in place.
        self.return_to_pool();
        self.0 = Some(IdleConnection {
            connection,
            idle_since,
        });
    }

    /// Takes the connection if its key is `pool_key` and it has not expired. Otherwise, the
    /// connection goes to the pool.
    pub(super) fn take_for_key(
        &mut self,
        pool_key: &str,
        now: Instant,
    ) -> Option<IdleConnection<Connection>> {
        let idle = self.0.take()?;
        if idle.is_usable_for(pool_key, now) {
            return Some(idle);
        }
        idle.connection.return_to_pool(idle.idle_since);
        None
    }
}
