//! The connection that a worker keeps between two exchanges.

use tokio::time::Instant;

use super::connection::Connection;
use super::idle_list::IdleConnection;

/// An idle HTTP/1.1 connection that a worker keeps for its next exchange, if there is one.
///
/// The next request of a worker most likely goes to the same server. Keeping the connection saves
/// a poll, a waker and two visits to the pool.
///
/// Other requests cannot use a sticky connection. So the worker returns it to the pool before it
/// waits for anything but the peer, before it turns to another host, and before it ends. All
/// exchanges of one `StickyConnection` run on the same runtime.
///
/// Dropping it closes the connection.
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
    pub(super) fn keep(&mut self, connection: Box<Connection>, idle_since: Instant) {
        // An exchange on a fresh connection leaves an older sticky connection in place.
        self.return_to_pool();
        self.0 = Some(IdleConnection {
            connection,
            idle_since,
        });
    }

    /// Takes the connection if `pool_key` fits and it has not expired. Otherwise returns it to
    /// the pool.
    pub(super) fn take_for(
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
