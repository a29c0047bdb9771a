//! The pool's HTTP/2 connections, by runtime and origin.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::runtime::Id;
use tokio::sync::watch;
use tokio::time::Instant;

use super::state::ConnectionState;
use crate::wire::per_runtime::PerRuntime;

#[derive(Default)]
pub(super) struct ConnectionMap {
    origins_by_runtime: PerRuntime<OriginMap>,
}

type OriginMap = HashMap<Arc<str>, OriginConnections>;

/// The connections to one origin on one runtime.
#[derive(Default)]
struct OriginConnections {
    /// The open connections to the origin, oldest first.
    connections: Vec<PooledConnection>,
    /// The connections being opened (dials), with their dial IDs. Other requests may wait for them.
    dials: Vec<(u64, ConnectionWaiters)>,
}

pub(super) struct PooledConnection {
    pub(super) connection_state: Arc<ConnectionState>,
    /// h2's handle for opening streams. A connection without streams closes when its last handle is
    /// dropped.
    pub(super) sender: SendRequest<Bytes>,
    /// The requests that wait for the peer's settings. `None` after the settings have arrived.
    pub(super) waiters: Option<ConnectionWaiters>,
}

/// The requests that wait until a connection can take further requests, and the channel that wakes
/// them.
pub(super) struct ConnectionWaiters {
    waiting_request_count: usize,
    /// Wakes the waiting requests. The channel closes when the connection is ready or abandoned. If
    /// opening the connection failed, the channel first receives `true`, and each waiting request
    /// opens its own connection.
    pub(super) failed_channel: watch::Sender<bool>,
}

impl ConnectionWaiters {
    pub(super) fn new() -> Self {
        Self {
            waiting_request_count: 0,
            failed_channel: watch::Sender::new(false),
        }
    }
}

impl ConnectionMap {
    /// Reserves a stream on the oldest connection that allows another stream.
    ///
    /// Using the oldest connection first lets surplus connections become idle and expire.
    pub(super) fn reserve_stream_on_oldest(
        &self,
        runtime_id: Id,
        origin: &str,
        now: Instant,
        idle_timeout: Duration,
    ) -> Option<(Arc<ConnectionState>, SendRequest<Bytes>)> {
        let origins = self.origins_by_runtime.get(runtime_id)?;
        let mut connections = origins.get(origin)?.connections.iter();
        let pooled = connections.find(|pooled| {
            pooled
                .connection_state
                .try_reserve_stream(now, idle_timeout)
        })?;
        Some((Arc::clone(&pooled.connection_state), pooled.sender.clone()))
    }

    /// Makes a request wait for a pending connection. Returns `None` if no pending connection will
    /// have a free stream, assuming that each allows `max_streams` streams.
    pub(super) fn join_pending_connection(
        &mut self,
        runtime_id: Id,
        origin: &str,
        max_streams: usize,
    ) -> Option<watch::Receiver<bool>> {
        // The request that opens the connection uses one stream.
        let has_capacity =
            |waiters: &&mut ConnectionWaiters| waiters.waiting_request_count + 1 < max_streams;
        let mut all_waiters = self
            .origins_by_runtime
            .get_mut(runtime_id)?
            .get_mut(origin)?
            .pending_connection_waiters_mut();
        let waiters = all_waiters.find(has_capacity)?;
        waiters.waiting_request_count += 1;
        Some(waiters.failed_channel.subscribe())
    }

    pub(super) fn add_dial(&mut self, runtime_id: Id, origin: &Arc<str>, dial_id: u64) {
        let dials = &mut self.origin_connections_or_default(runtime_id, origin).dials;
        dials.push((dial_id, ConnectionWaiters::new()));
    }

    pub(super) fn remove_dial(
        &mut self,
        runtime_id: Id,
        origin: &Arc<str>,
        dial_id: u64,
    ) -> Option<ConnectionWaiters> {
        let dials = &mut self
            .origins_by_runtime
            .get_mut(runtime_id)?
            .get_mut(origin)?
            .dials;
        let index = dials.iter().position(|&(id, _)| id == dial_id)?;
        let (_, waiters) = dials.swap_remove(index);
        self.remove_origin_if_empty(runtime_id, origin);
        Some(waiters)
    }

    pub(super) fn add_connection(&mut self, pooled: PooledConnection) {
        let connection_state = &pooled.connection_state;
        let of_origin = self.origin_connections_or_default(
            connection_state.runtime_id,
            &Arc::clone(&connection_state.origin),
        );
        of_origin.connections.push(pooled);
    }

    /// Marks a connection as ready for further requests. The waiting requests wake when the caller
    /// drops the returned value.
    pub(super) fn mark_connection_ready(
        &mut self,
        connection_state: &ConnectionState,
    ) -> Option<ConnectionWaiters> {
        let mut connections = self.origin_connections_mut(connection_state)?.iter_mut();
        let pooled = connections.find(|pooled| pooled.has_connection_state(connection_state))?;
        pooled.waiters.take()
    }

    pub(super) fn remove_connection(
        &mut self,
        connection_state: &ConnectionState,
    ) -> Option<PooledConnection> {
        let connections = self.origin_connections_mut(connection_state)?;
        let index = connections
            .iter()
            .position(|pooled| pooled.has_connection_state(connection_state))?;
        // The order by age must be kept, so `swap_remove` is not used.
        let removed = connections.remove(index);
        self.remove_origin_if_empty(connection_state.runtime_id, &connection_state.origin);
        Some(removed)
    }

    /// Removes the open connections to an origin on every runtime.
    pub(super) fn remove_origin_connections(&mut self, origin: &Arc<str>) -> Vec<PooledConnection> {
        let mut removed = Vec::new();
        self.origins_by_runtime.retain(|origins| {
            if let Some(of_origin) = origins.get_mut(origin) {
                removed.append(&mut of_origin.connections);
                if of_origin.has_no_connections_or_dials() {
                    origins.remove(origin);
                }
            }
            !origins.is_empty()
        });
        removed
    }

    /// Returns the connection that has been idle (without a stream) for the longest time.
    pub(super) fn longest_idle(&self) -> Option<&Arc<ConnectionState>> {
        self.idle_connections()
            .min_by_key(|connection_state| connection_state.idle_since())
    }

    pub(super) fn idle_connections(&self) -> impl Iterator<Item = &Arc<ConnectionState>> {
        self.origins_by_runtime
            .values()
            .flat_map(OriginMap::values)
            .flat_map(|of_origin| &of_origin.connections)
            .map(|pooled| &pooled.connection_state)
            .filter(|connection_state| connection_state.open_stream_count() == 0)
    }

    fn origin_connections_or_default(
        &mut self,
        runtime_id: Id,
        origin: &Arc<str>,
    ) -> &mut OriginConnections {
        let origins = self.origins_by_runtime.get_or_default(runtime_id);
        origins.entry(Arc::clone(origin)).or_default()
    }

    fn origin_connections_mut(
        &mut self,
        connection_state: &ConnectionState,
    ) -> Option<&mut Vec<PooledConnection>> {
        let origin = self
            .origins_by_runtime
            .get_mut(connection_state.runtime_id)?
            .get_mut(&connection_state.origin)?;
        Some(&mut origin.connections)
    }

    /// Removes an origin that has no connections and no dials. Removes the runtime if it has no
    /// origins left.
    fn remove_origin_if_empty(&mut self, runtime_id: Id, origin: &Arc<str>) {
        let Some(origins) = self.origins_by_runtime.get_mut(runtime_id) else {
            return;
        };
        if origins
            .get(origin)
            .is_some_and(OriginConnections::has_no_connections_or_dials)
        {
            origins.remove(origin);
        }
        if origins.is_empty() {
            self.origins_by_runtime.remove(runtime_id);
        }
    }
}

impl OriginConnections {
    fn has_no_connections_or_dials(&self) -> bool {
        self.connections.is_empty() && self.dials.is_empty()
    }

    /// Returns the waiters of all connections that cannot take further requests yet. These
    /// connections are being opened, or the peer's settings have not arrived.
    fn pending_connection_waiters_mut(&mut self) -> impl Iterator<Item = &mut ConnectionWaiters> {
        let dials = self.dials.iter_mut().map(|(_, waiters)| waiters);
        let connections = self.connections.iter_mut();
        dials.chain(connections.filter_map(|pooled| pooled.waiters.as_mut()))
    }
}

impl PooledConnection {
    fn has_connection_state(&self, connection_state: &ConnectionState) -> bool {
        std::ptr::eq(&*self.connection_state, connection_state)
    }
}
