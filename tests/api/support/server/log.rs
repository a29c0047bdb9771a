use http::{HeaderMap, Method};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};
use tokio::sync::watch;

/// One request, as it was received.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    /// When its head was complete.
    pub at: Instant,
    pub method: Method,
    /// Path and query, as sent.
    pub path: String,
    pub headers: HeaderMap,
    /// Connections are numbered from 0 in the order of their acceptance.
    pub connection: usize,
    pub body: Vec<u8>,
}

/// What a server has counted since it started or was last reset.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Requests received, body included.
    pub requests: usize,
    /// Requests received and not yet answered, reset or given up by the client. Whoever has read the end
    /// of an answer does not find it here; what a client gives up the server notices a moment later.
    pub in_flight: usize,
    pub max_in_flight: usize,
    /// Over all servers of the group; of a server on its own, the same as `max_in_flight`.
    pub max_in_flight_in_group: usize,
    pub open_connections: usize,
    pub total_connections: usize,
}

#[derive(Default)]
pub(super) struct Peak {
    current: usize,
    max: usize,
}

impl Peak {
    fn enter(&mut self) {
        self.current += 1;
        self.max = self.max.max(self.current);
    }
}

#[derive(Default)]
struct State {
    log: Vec<ReceivedRequest>,
    in_flight: Peak,
    open_connections: usize,
    total_connections: usize,
    next_connection_id: usize,
    flaky_counts: HashMap<String, usize>,
}

pub(super) struct RequestLog {
    state: Mutex<State>,
    group: Arc<Mutex<Peak>>,
    changed: watch::Sender<()>,
    held_released: watch::Sender<bool>,
}

impl RequestLog {
    pub(super) fn new(group: Arc<Mutex<Peak>>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            group,
            changed: watch::Sender::new(()),
            held_released: watch::Sender::new(false),
        })
    }

    pub(super) fn release_held(&self) {
        self.held_released.send_replace(true);
    }

    pub(super) async fn wait_for_release(&self) {
        let mut released = self.held_released.subscribe();
        let _ = released.wait_for(|is_released| *is_released).await;
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn entries(&self) -> Vec<ReceivedRequest> {
        self.state().log.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state();
        Counts {
            requests: state.log.len(),
            in_flight: state.in_flight.current,
            max_in_flight: state.in_flight.max,
            max_in_flight_in_group: self.group().max,
            open_connections: state.open_connections,
            total_connections: state.total_connections,
        }
    }

    pub(super) fn reset(&self) {
        let mut state = self.state();
        state.log.clear();
        state.flaky_counts.clear();
        state.total_connections = 0;
        state.in_flight.max = state.in_flight.current;
        let mut group = self.group();
        group.max = group.current;
    }

    pub(super) fn accepted(self: &Arc<Self>) -> OpenConnection {
        let mut state = self.state();
        let connection = state.next_connection_id;
        state.next_connection_id += 1;
        state.total_connections += 1;
        state.open_connections += 1;
        drop(state);
        self.changed.send_replace(());
        OpenConnection {
            log: Arc::clone(self),
            connection,
        }
    }

    pub(super) fn received(self: &Arc<Self>, entry: ReceivedRequest) -> InFlightRequest {
        let mut state = self.state();
        state.log.push(entry);
        state.in_flight.enter();
        drop(state);
        self.group().enter();
        self.changed.send_replace(());
        InFlightRequest(Arc::clone(self))
    }

    /// Whether fewer than `first` requests with this key came before this one.
    pub(super) fn is_fault_due(&self, key: &str, first: usize) -> bool {
        let mut state = self.state();
        let given = state.flaky_counts.entry(key.to_owned()).or_default();
        *given += 1;
        *given <= first
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn group(&self) -> MutexGuard<'_, Peak> {
        self.group.lock().expect("not poisoned")
    }
}

/// A connection, counted as open_connections until this is dropped.
pub(super) struct OpenConnection {
    log: Arc<RequestLog>,
    pub(super) connection: usize,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.log.state().open_connections -= 1;
        self.log.changed.send_replace(());
    }
}

/// A request, counted as in flight until this is dropped.
pub(super) struct InFlightRequest(Arc<RequestLog>);

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.state().in_flight.current -= 1;
        self.0.group().current -= 1;
        self.0.changed.send_replace(());
    }
}
