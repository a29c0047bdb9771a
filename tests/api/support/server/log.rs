use http::{HeaderMap, Method};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};
use tokio::sync::watch;

/// A request as a server received it.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    /// The time at which the head was complete.
    pub received_at: Instant,
    pub method: Method,
    /// The path and the query as sent.
    pub path: String,
    pub headers: HeaderMap,
    /// The number of the connection, from 0 in order of acceptance.
    pub connection: usize,
    pub body: Vec<u8>,
}

/// The counters of a server since its start or last reset.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Requests received in full.
    pub requests: usize,
    /// Requests whose response is not complete. A request is not counted once the client has read
    /// the end of the response. A cancelled request is counted until the server notices the close.
    pub in_flight: usize,
    pub max_in_flight: usize,
    /// The maximum over all servers of the group. Equals `max_in_flight` if there is no group.
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
    fn increment(&mut self) {
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

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
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

    pub(super) fn record_connection(self: &Arc<Self>) -> OpenConnection {
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

    pub(super) fn record_request(self: &Arc<Self>, entry: ReceivedRequest) -> InFlightRequest {
        let mut state = self.state();
        state.log.push(entry);
        state.in_flight.increment();
        drop(state);
        self.group().increment();
        self.changed.send_replace(());
        InFlightRequest(Arc::clone(self))
    }

    /// Counts a request of `key` and returns whether it is one of the first `fault_count`.
    pub(super) fn count_flaky_request(&self, key: &str, fault_count: usize) -> bool {
        let mut state = self.state();
        let count = state.flaky_counts.entry(key.to_owned()).or_default();
        *count += 1;
        *count <= fault_count
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn group(&self) -> MutexGuard<'_, Peak> {
        self.group.lock().expect("not poisoned")
    }
}

/// Counts a connection as open until dropped.
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

/// Counts a request as in flight until dropped.
pub(super) struct InFlightRequest(Arc<RequestLog>);

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.state().in_flight.current -= 1;
        self.0.group().current -= 1;
        self.0.changed.send_replace(());
    }
}
