use http::{HeaderMap, Method};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};
use tokio::sync::watch;

/// One request, as it was received.
#[derive(Clone, Debug)]
pub struct Entry {
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
    pub most_in_flight: usize,
    /// Over all servers of the group; of a server on its own, the same as `most_in_flight`.
    pub most_in_flight_of_group: usize,
    pub open_connections: usize,
    pub connections_ever: usize,
}

#[derive(Default)]
pub(super) struct Gauge {
    now: usize,
    most: usize,
}

impl Gauge {
    fn enter(&mut self) {
        self.now += 1;
        self.most = self.most.max(self.now);
    }
}

#[derive(Default)]
struct State {
    log: Vec<Entry>,
    in_flight: Gauge,
    open: usize,
    ever: usize,
    accepted: usize,
    faults_given: HashMap<String, usize>,
}

pub(super) struct Log {
    state: Mutex<State>,
    group: Arc<Mutex<Gauge>>,
    changed: watch::Sender<()>,
}

impl Log {
    pub(super) fn new(group: Arc<Mutex<Gauge>>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            group,
            changed: watch::Sender::new(()),
        })
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.state().log.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state();
        Counts {
            requests: state.log.len(),
            in_flight: state.in_flight.now,
            most_in_flight: state.in_flight.most,
            most_in_flight_of_group: self.group().most,
            open_connections: state.open,
            connections_ever: state.ever,
        }
    }

    pub(super) fn reset(&self) {
        let mut state = self.state();
        state.log.clear();
        state.faults_given.clear();
        state.ever = 0;
        state.in_flight.most = state.in_flight.now;
        let mut group = self.group();
        group.most = group.now;
    }

    pub(super) fn accepted(self: &Arc<Self>) -> Open {
        let mut state = self.state();
        let connection = state.accepted;
        state.accepted += 1;
        state.ever += 1;
        state.open += 1;
        drop(state);
        self.changed.send_replace(());
        Open {
            log: Arc::clone(self),
            connection,
        }
    }

    pub(super) fn received(self: &Arc<Self>, entry: Entry) -> InFlight {
        let mut state = self.state();
        state.log.push(entry);
        state.in_flight.enter();
        drop(state);
        self.group().enter();
        self.changed.send_replace(());
        InFlight(Arc::clone(self))
    }

    /// Whether fewer than `first` requests with this key came before this one.
    pub(super) fn is_fault_due(&self, key: &str, first: usize) -> bool {
        let mut state = self.state();
        let given = state.faults_given.entry(key.to_owned()).or_default();
        *given += 1;
        *given <= first
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn group(&self) -> MutexGuard<'_, Gauge> {
        self.group.lock().expect("not poisoned")
    }
}

/// A connection, counted as open until this is dropped.
pub(super) struct Open {
    log: Arc<Log>,
    pub(super) connection: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.log.state().open -= 1;
        self.log.changed.send_replace(());
    }
}

/// A request, counted as in flight until this is dropped.
pub(super) struct InFlight(Arc<Log>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.state().in_flight.now -= 1;
        self.0.group().now -= 1;
        self.0.changed.send_replace(());
    }
}
