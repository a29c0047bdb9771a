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
    /// The connections being opened (dials) that other requests may wait for, with their dial IDs.
    dials: Vec<(u64, PendingState)>,
}

pub(super) struct PooledConnection {
    pub(super) state: Arc<ConnectionState>,
    /// Opens streams. A connection without a stream closes once its last sender is dropped.
    pub(super) sender: SendRequest<Bytes>,
    /// `None` once the peer's settings have arrived.
    pub(super) pending: Option<PendingState>,
}

/// The state of a pooled connection until it is ready for further requests: the number of requests
/// that wait for it, and the channel that wakes them.
pub(super) struct PendingState {
    waiter_count: usize,
    /// Wakes the waiting requests: the channel closes when the connection is ready or abandoned.
    /// Before that, it is set to `true` if opening the connection failed. Each waiting request then
    /// opens its own connection.
    pub(super) failed_channel: watch::Sender<bool>,
}

impl PendingState {
    pub(super) fn new() -> Self {
        Self {
            waiter_count: 0,
            failed_channel: watch::Sender::new(false),
        }
    }
}

impl ConnectionMap {
    /// Opens a stream on the oldest connection that allows another stream.
    ///
    /// The oldest connection is used first, so that surplus connections become idle and expire.
    pub(super) fn open_stream_on_oldest(
        &self,
        runtime: Id,
        origin: &str,
        now: Instant,
        idle_timeout: Duration,
    ) -> Option<(Arc<ConnectionState>, SendRequest<Bytes>)> {
        let origins = self.origins_by_runtime.get(runtime)?;
        let mut connections = origins.get(origin)?.connections.iter();
        let pooled = connections.find(|pooled| pooled.state.try_open_stream(now, idle_timeout))?;
        Some((Arc::clone(&pooled.state), pooled.sender.clone()))
    }

    /// Adds a request to those that wait for a pending connection, if a stream will be left on such
    /// a connection with a limit of `max_streams` streams.
    pub(super) fn join_pending_connection(
        &mut self,
        runtime: Id,
        origin: &str,
        max_streams: usize,
    ) -> Option<watch::Receiver<bool>> {
        // One stream is for the request that opens the connection.
        let has_capacity = |pending: &&mut PendingState| pending.waiter_count + 1 < max_streams;
        let mut all_pending = self
            .origins_by_runtime
            .get_mut(runtime)?
            .get_mut(origin)?
            .pending_connections_mut();
        let pending = all_pending.find(has_capacity)?;
        pending.waiter_count += 1;
        Some(pending.failed_channel.subscribe())
    }

    pub(super) fn add_dial(&mut self, runtime: Id, origin: &Arc<str>, dial_id: u64) {
        let dials = &mut self.origin_or_default(runtime, origin).dials;
        dials.push((dial_id, PendingState::new()));
    }

    pub(super) fn remove_dial(
        &mut self,
        runtime: Id,
        origin: &Arc<str>,
        dial_id: u64,
    ) -> Option<PendingState> {
        let dials = &mut self
            .origins_by_runtime
            .get_mut(runtime)?
            .get_mut(origin)?
            .dials;
        let index = dials.iter().position(|&(id, _)| id == dial_id)?;
        let (_, pending) = dials.swap_remove(index);
        self.remove_origin_if_empty(runtime, origin);
        Some(pending)
    }

    pub(super) fn add(&mut self, pooled: PooledConnection) {
        let state = &pooled.state;
        let of_origin = self.origin_or_default(state.runtime, &Arc::clone(&state.origin));
        of_origin.connections.push(pooled);
    }

    /// Marks a connection as ready. Dropping the result wakes the requests that wait for the
    /// connection.
    pub(super) fn take_pending(&mut self, state: &ConnectionState) -> Option<PendingState> {
        let mut connections = self.connections_mut(state)?.iter_mut();
        let pooled = connections.find(|pooled| pooled.has_state(state))?;
        pooled.pending.take()
    }

    pub(super) fn remove(&mut self, state: &ConnectionState) -> Option<PooledConnection> {
        let connections = self.connections_mut(state)?;
        let index = connections
            .iter()
            .position(|pooled| pooled.has_state(state))?;
        // `swap_remove` would not keep the order by age.
        let removed = connections.remove(index);
        self.remove_origin_if_empty(state.runtime, &state.origin);
        Some(removed)
    }

    /// Removes the connections to an origin on every runtime.
    pub(super) fn remove_origin(&mut self, origin: &Arc<str>) -> Vec<PooledConnection> {
        let mut removed = Vec::new();
        self.origins_by_runtime.retain(|origins| {
            if let Some(of_origin) = origins.get_mut(origin) {
                removed.append(&mut of_origin.connections);
                if of_origin.is_empty() {
                    origins.remove(origin);
                }
            }
            !origins.is_empty()
        });
        removed
    }

    /// The connection that has been without a stream for the longest time.
    pub(super) fn oldest_idle(&self) -> Option<&Arc<ConnectionState>> {
        self.idle_connections()
            .min_by_key(|state| state.idle_since())
    }

    pub(super) fn idle_connections(&self) -> impl Iterator<Item = &Arc<ConnectionState>> {
        self.origins_by_runtime
            .values()
            .flat_map(OriginMap::values)
            .flat_map(|of_origin| &of_origin.connections)
            .map(|pooled| &pooled.state)
            .filter(|state| state.open_streams() == 0)
    }

    fn origin_or_default(&mut self, runtime: Id, origin: &Arc<str>) -> &mut OriginConnections {
        let origins = self.origins_by_runtime.get_or_default(runtime);
        origins.entry(Arc::clone(origin)).or_default()
    }

    fn connections_mut(&mut self, state: &ConnectionState) -> Option<&mut Vec<PooledConnection>> {
        let origin = self
            .origins_by_runtime
            .get_mut(state.runtime)?
            .get_mut(&state.origin)?;
        Some(&mut origin.connections)
    }

    /// Removes an origin that has no connections and no dials. Removes the runtime if it has no
    /// origins left.
    fn remove_origin_if_empty(&mut self, runtime: Id, origin: &Arc<str>) {
        let Some(origins) = self.origins_by_runtime.get_mut(runtime) else {
            return;
        };
        if origins.get(origin).is_some_and(OriginConnections::is_empty) {
            origins.remove(origin);
        }
        if origins.is_empty() {
            self.origins_by_runtime.remove(runtime);
        }
    }
}

impl OriginConnections {
    fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.dials.is_empty()
    }

    /// Returns the connections that are not ready: they are being opened, or the peer's settings
    /// have not arrived.
    fn pending_connections_mut(&mut self) -> impl Iterator<Item = &mut PendingState> {
        let dials = self.dials.iter_mut().map(|(_, pending)| pending);
        let connections = self.connections.iter_mut();
        dials.chain(connections.filter_map(|pooled| pooled.pending.as_mut()))
    }
}

impl PooledConnection {
    fn has_state(&self, state: &ConnectionState) -> bool {
        std::ptr::eq(&*self.state, state)
    }
}
