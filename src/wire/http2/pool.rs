//! The HTTP/2 connections that take new streams, by (runtime, origin), and what is being opened.
//!
//! A request goes on the first connection with a free stream. If all are full it joins a
//! connection that is being opened and will have entry for it, or else opens one. So nobody waits
//! for a stream: a request waits for the network dial_alone, and there are never more connections
//! than the same requests would have had done HTTP/1.1. The lock is held for a few instructions;
//! what may wake a task is dropped outside it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::runtime::Id;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::ConnectionState;
use super::dial::{DialRegistration, DialTicket, Http2Offer};
use super::exchange::StreamLease;
use super::protocol_cache::{ProtocolCache, ProtocolSupport};

pub(super) struct Http2Pool {
    state: Mutex<PoolState>,
    pub(super) idle_timeout: Duration,
    pub(super) ping_timeout: Duration,
    next_dial_id: AtomicU64,
}

#[derive(Default)]
struct PoolState {
    /// One for each runtime: nearly always one.
    runtimes: Vec<RuntimeOrigins>,
    protocols: ProtocolCache,
}

struct RuntimeOrigins {
    runtime: Id,
    origins: HashMap<Arc<str>, OriginConnections>,
}

#[derive(Default)]
struct OriginConnections {
    connections: Vec<PooledConnection>,
    dials: Vec<(u64, PendingConnection)>,
}

struct PooledConnection {
    connection: Arc<ConnectionState>,
    /// Without a sender in here the connection ends by itself after its last stream.
    sender: SendRequest<Bytes>,
    /// Until the peer has said how many streams it allows.
    pending: Option<PendingConnection>,
}

/// A connection that is not ready yet.
pub(super) struct PendingConnection {
    waiters: usize,
    /// Dropped when it is ready, or will never be; true if it could not be opened.
    pub(super) done: watch::Sender<bool>,
}

/// What there is for a request.
pub(super) enum Lookup {
    Stream(StreamLease),
    /// Somebody is pending a connection that will have entry.
    Pending(watch::Receiver<bool>),
    Dial(DialTicket),
}

impl Http2Pool {
    pub(super) fn new(idle_timeout: Duration, ping_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            idle_timeout,
            ping_timeout,
            next_dial_id: AtomicU64::new(0),
        })
    }

    /// Finds a way to `origin`. One who goes `dial_alone` joins nobody.
    pub(super) fn lookup(
        self: &Arc<Self>,
        runtime: Id,
        origin: &str,
        offer: Http2Offer,
        dial_alone: bool,
        now: Instant,
    ) -> Lookup {
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(lease) = state.acquire_stream(runtime, origin, now, self.idle_timeout) {
            return Lookup::Stream(lease);
        }
        let support = state.protocols.get(origin).or(match offer {
            Http2Offer::PriorKnowledge => Some(ProtocolSupport::HTTP2_UNKNOWN_STREAMS),
            _ => None,
        });
        let mut registration = DialRegistration {
            pool: Arc::clone(self),
            runtime,
            origin: origin.into(),
            dial_id: None,
        };
        match support {
            Some(ProtocolSupport::Http1Required) => Lookup::Dial(DialTicket::http1()),
            Some(ProtocolSupport::Http2 { max_streams }) if !dial_alone => {
                let origin = state.origin_mut(runtime, &registration.origin);
                // One stream is for whoever opens the connection.
                let has_capacity =
                    |pending: &&mut PendingConnection| pending.waiters + 1 < max_streams;
                if let Some(pending) = origin.pending_connections().find(has_capacity) {
                    pending.waiters += 1;
                    return Lookup::Pending(pending.done.subscribe());
                }
                let dial_id = self.next_dial_id.fetch_add(1, Relaxed);
                origin.dials.push((dial_id, PendingConnection::new()));
                registration.dial_id = Some(dial_id);
                Lookup::Dial(DialTicket::new(registration, offer))
            }
            _ => Lookup::Dial(DialTicket::new(registration, offer)),
        }
    }

    /// Whether nothing is protocols of `origin`.
    pub(super) fn is_protocol_unknown(&self, origin: &str) -> bool {
        self.lock().protocols.get(origin).is_none()
    }

    pub(super) fn record_support(&self, origin: &Arc<str>, support: ProtocolSupport) {
        let mut state = self.lock();
        state.protocols.set(origin, support);
        // Others may have opened connections meanwhile, which are no more use than this one.
        let retired = match support {
            ProtocolSupport::Http1Required => state.remove_all(origin),
            _ => Vec::new(),
        };
        drop(state);
        retired
            .iter()
            .for_each(|pooled| pooled.connection.mark_retired());
    }

    /// Takes in a connection; those who waiters its dial go on waiting for its settings.
    pub(super) fn add(
        &self,
        connection: Arc<ConnectionState>,
        sender: SendRequest<Bytes>,
        pending: Option<PendingConnection>,
    ) {
        let mut state = self.lock();
        if !matches!(
            state.protocols.get(&connection.origin),
            Some(ProtocolSupport::Http2 { .. } | ProtocolSupport::Http1Required)
        ) {
            state
                .protocols
                .set(&connection.origin, ProtocolSupport::HTTP2_UNKNOWN_STREAMS);
        }
        let is_accepted = !matches!(
            state.protocols.get(&connection.origin),
            Some(ProtocolSupport::Http1Required)
        );
        let pooled = PooledConnection {
            connection: Arc::clone(&connection),
            sender,
            pending: Some(pending.unwrap_or_else(PendingConnection::new)),
        };
        if is_accepted {
            let origin = state.origin_mut(connection.runtime, &connection.origin);
            origin.connections.push(pooled);
        } else {
            drop(state);
            connection.mark_retired();
        }
    }

    /// The peer has said how many streams it allows: those who waiters can go ahead.
    pub(super) fn set_max_streams(&self, connection: &ConnectionState, max_streams: usize) {
        let mut state = self.lock();
        connection.set_max_streams(max_streams);
        if !matches!(
            state.protocols.get(&connection.origin),
            Some(ProtocolSupport::Http1Required)
        ) {
            state
                .protocols
                .set(&connection.origin, ProtocolSupport::Http2 { max_streams });
        }
        let pending = state
            .connections_mut(connection)
            .and_then(|connections| {
                connections
                    .iter_mut()
                    .find(|pooled| pooled.belongs_to(connection))
            })
            .and_then(|pooled| pooled.pending.take());
        drop(state);
        drop(pending);
    }

    /// No new streams on this one. It ends after its last.
    pub(super) fn retire(&self, connection: &ConnectionState) {
        connection.mark_retired();
        let mut state = self.lock();
        let retired = state.remove(connection);
        drop(state);
        drop(retired);
    }

    /// The same, unless it is in use again.
    pub(super) fn retire_idle(&self, connection: &ConnectionState) {
        let mut state = self.lock();
        if connection.open_streams() > 0 {
            return;
        }
        connection.mark_retired();
        let retired = state.remove(connection);
        drop(state);
        drop(retired);
    }

    /// Retires the connection that has been without a stream for the longest.
    pub(super) fn evict_oldest_idle(&self) {
        let state = self.lock();
        let oldest = state
            .runtimes
            .iter()
            .flat_map(|entry| entry.origins.values())
            .flat_map(|origin| &origin.connections)
            .map(|pooled| &pooled.connection)
            .filter(|connection| connection.open_streams() == 0)
            .min_by_key(|connection| connection.idle_since())
            .map(Arc::clone);
        drop(state);
        if let Some(oldest) = oldest {
            self.retire_idle(&oldest);
        }
    }

    /// Takes a dial back, for its connection or because it has ended.
    pub(super) fn take_pending(
        &self,
        runtime: Id,
        origin: &Arc<str>,
        dial_id: Option<u64>,
    ) -> Option<PendingConnection> {
        let dial_id = dial_id?;
        let mut state = self.lock();
        let entry = state
            .runtimes
            .iter_mut()
            .find(|entry| entry.runtime == runtime)?;
        let dials = &mut entry.origins.get_mut(origin)?.dials;
        let at = dials.iter().position(|&(id, _)| id == dial_id)?;
        let (_, pending) = dials.swap_remove(at);
        state.remove_if_empty(runtime, origin);
        Some(pending)
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingConnection {
    fn new() -> Self {
        Self {
            waiters: 0,
            done: watch::Sender::new(false),
        }
    }
}

impl OriginConnections {
    fn pending_connections(&mut self) -> impl Iterator<Item = &mut PendingConnection> {
        let connecting = self.dials.iter_mut().map(|(_, pending)| pending);
        let settling = self.connections.iter_mut();
        connecting.chain(settling.filter_map(|pooled| pooled.pending.as_mut()))
    }
}

impl PooledConnection {
    fn belongs_to(&self, connection: &ConnectionState) -> bool {
        std::ptr::eq(&*self.connection, connection)
    }
}

impl PoolState {
    /// The oldest connection with a free stream, so that those that are not needed become idle.
    fn acquire_stream(
        &mut self,
        runtime: Id,
        origin: &str,
        now: Instant,
        idle_timeout: Duration,
    ) -> Option<StreamLease> {
        let entry = self
            .runtimes
            .iter()
            .find(|entry| entry.runtime == runtime)?;
        let connections = &entry.origins.get(origin)?.connections;
        let pooled = connections
            .iter()
            .find(|pooled| pooled.connection.try_open_stream(now, idle_timeout))?;
        Some(StreamLease::new(
            Arc::clone(&pooled.connection),
            pooled.sender.clone(),
            true,
        ))
    }

    fn origin_mut(&mut self, runtime: Id, origin: &Arc<str>) -> &mut OriginConnections {
        let entry = match self
            .runtimes
            .iter()
            .position(|entry| entry.runtime == runtime)
        {
            Some(at) => &mut self.runtimes[at],
            None => {
                self.runtimes.push(RuntimeOrigins {
                    runtime,
                    origins: HashMap::new(),
                });
                let last = self.runtimes.len() - 1;
                &mut self.runtimes[last]
            }
        };
        entry.origins.entry(Arc::clone(origin)).or_default()
    }

    fn connections_mut(
        &mut self,
        connection: &ConnectionState,
    ) -> Option<&mut Vec<PooledConnection>> {
        let mut runtimes = self.runtimes.iter_mut();
        let entry = runtimes.find(|entry| entry.runtime == connection.runtime)?;
        let origin = entry.origins.get_mut(&connection.origin)?;
        Some(&mut origin.connections)
    }

    /// Takes all connections to an origin out.
    fn remove_all(&mut self, origin: &Arc<str>) -> Vec<PooledConnection> {
        let runtimes: Vec<Id> = self.runtimes.iter().map(|entry| entry.runtime).collect();
        let mut removed = Vec::new();
        for runtime in runtimes {
            let mut runtimes = self.runtimes.iter_mut();
            if let Some(entry) = runtimes.find(|entry| entry.runtime == runtime)
                && let Some(of_origin) = entry.origins.get_mut(origin)
            {
                removed.append(&mut of_origin.connections);
                self.remove_if_empty(runtime, origin);
            }
        }
        removed
    }

    fn remove(&mut self, connection: &ConnectionState) -> Option<PooledConnection> {
        let connections = self.connections_mut(connection)?;
        let at = connections
            .iter()
            .position(|pooled| pooled.belongs_to(connection))?;
        // Their order is kept: the oldest is filled first.
        let removed = connections.remove(at);
        self.remove_if_empty(connection.runtime, &connection.origin);
        Some(removed)
    }

    /// Forgets an origin, and with the last one a runtime, that has nothing any more.
    fn remove_if_empty(&mut self, runtime: Id, origin: &Arc<str>) {
        let Some(at) = self
            .runtimes
            .iter()
            .position(|entry| entry.runtime == runtime)
        else {
            return;
        };
        let origins = &mut self.runtimes[at].origins;
        let is_empty =
            |origin: &OriginConnections| origin.connections.is_empty() && origin.dials.is_empty();
        if origins.get(origin).is_some_and(is_empty) {
            origins.remove(origin);
        }
        if origins.is_empty() {
            self.runtimes.swap_remove(at);
        }
    }
}
