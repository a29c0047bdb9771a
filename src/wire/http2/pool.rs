//! The HTTP/2 connections that take new streams, by (runtime, origin), and what is being opened.
//!
//! A request goes on the first connection with a free stream. If all are full it joins a
//! connection that is being opened and will have room for it, or else opens one. So nobody waits
//! for a stream: a request waits for the network alone, and there are never more connections
//! than the same requests would have had over HTTP/1.1. The lock is held for a few instructions;
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

use super::connection::Shared;
use super::dial::{Dial, Offer, Place};
use super::exchange::Lease;
use super::known::{Known, Speaks};

pub(super) struct Pool {
    state: Mutex<State>,
    pub(super) idle: Duration,
    pub(super) ping: Duration,
    dials: AtomicU64,
}

#[derive(Default)]
struct State {
    /// One for each runtime: nearly always one.
    rooms: Vec<Room>,
    known: Known,
}

struct Room {
    runtime: Id,
    origins: HashMap<Arc<str>, Origin>,
}

#[derive(Default)]
struct Origin {
    connections: Vec<Entry>,
    dials: Vec<(u64, Opening)>,
}

struct Entry {
    shared: Arc<Shared>,
    /// Without a sender in here the connection ends by itself after its last stream.
    sender: SendRequest<Bytes>,
    /// Until the peer has said how many streams it allows.
    opening: Option<Opening>,
}

/// A connection that is not ready yet.
pub(super) struct Opening {
    joined: usize,
    /// Dropped when it is ready, or will never be; true if it could not be opened.
    pub(super) over: watch::Sender<bool>,
}

/// What there is for a request.
pub(super) enum Found {
    Lease(Lease),
    /// Somebody is opening a connection that will have room.
    Opening(watch::Receiver<bool>),
    Dial(Dial),
}

impl Pool {
    pub(super) fn new(idle: Duration, ping: Duration) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            idle,
            ping,
            dials: AtomicU64::new(0),
        })
    }

    /// Finds a way to `origin`. One who goes `alone` joins nobody.
    pub(super) fn find(
        self: &Arc<Self>,
        runtime: Id,
        origin: &str,
        offer: Offer,
        alone: bool,
        now: Instant,
    ) -> Found {
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(lease) = state.lease(runtime, origin, now, self.idle) {
            return Found::Lease(lease);
        }
        let speaks = state.known.get(origin).or(match offer {
            Offer::Prior => Some(Speaks::UNTOLD),
            _ => None,
        });
        let mut place = Place {
            pool: Arc::clone(self),
            runtime,
            origin: origin.into(),
            dial: None,
        };
        match speaks {
            Some(Speaks::OnlyHttp1) => Found::Dial(Dial::http1()),
            Some(Speaks::Http2 { streams }) if !alone => {
                let origin = state.origin(runtime, &place.origin);
                // One stream is for whoever opens the connection.
                let has_room = |opening: &&mut Opening| opening.joined + 1 < streams;
                if let Some(opening) = origin.openings().find(has_room) {
                    opening.joined += 1;
                    return Found::Opening(opening.over.subscribe());
                }
                let dial = self.dials.fetch_add(1, Relaxed);
                origin.dials.push((dial, Opening::new()));
                place.dial = Some(dial);
                Found::Dial(Dial::new(place, offer))
            }
            _ => Found::Dial(Dial::new(place, offer)),
        }
    }

    /// Whether nothing is known of `origin`.
    pub(super) fn is_unknown(&self, origin: &str) -> bool {
        self.lock().known.get(origin).is_none()
    }

    pub(super) fn learn(&self, origin: &Arc<str>, speaks: Speaks) {
        let mut state = self.lock();
        state.known.set(origin, speaks);
        // Others may have opened connections meanwhile, which are no more use than this one.
        let retired = match speaks {
            Speaks::OnlyHttp1 => state.remove_all(origin),
            _ => Vec::new(),
        };
        drop(state);
        retired.iter().for_each(|entry| entry.shared.retire());
    }

    /// Takes in a connection; those who joined its dial go on waiting for its settings.
    pub(super) fn add(
        &self,
        shared: Arc<Shared>,
        sender: SendRequest<Bytes>,
        opening: Option<Opening>,
    ) {
        let mut state = self.lock();
        if !matches!(
            state.known.get(&shared.origin),
            Some(Speaks::Http2 { .. } | Speaks::OnlyHttp1)
        ) {
            state.known.set(&shared.origin, Speaks::UNTOLD);
        }
        let is_welcome = !matches!(state.known.get(&shared.origin), Some(Speaks::OnlyHttp1));
        let entry = Entry {
            shared: Arc::clone(&shared),
            sender,
            opening: Some(opening.unwrap_or_else(Opening::new)),
        };
        if is_welcome {
            let origin = state.origin(shared.runtime, &shared.origin);
            origin.connections.push(entry);
        } else {
            drop(state);
            shared.retire();
        }
    }

    /// The peer has said how many streams it allows: those who joined can go ahead.
    pub(super) fn settle(&self, shared: &Shared, streams: usize) {
        let mut state = self.lock();
        shared.allow(streams);
        if !matches!(state.known.get(&shared.origin), Some(Speaks::OnlyHttp1)) {
            state.known.set(&shared.origin, Speaks::Http2 { streams });
        }
        let opening = state
            .connections(shared)
            .and_then(|connections| connections.iter_mut().find(|entry| entry.is_of(shared)))
            .and_then(|entry| entry.opening.take());
        drop(state);
        drop(opening);
    }

    /// No new streams on this one. It ends after its last.
    pub(super) fn retire(&self, shared: &Shared) {
        shared.retire();
        let mut state = self.lock();
        let retired = state.remove(shared);
        drop(state);
        drop(retired);
    }

    /// The same, unless it is in use again.
    pub(super) fn retire_idle(&self, shared: &Shared) {
        let mut state = self.lock();
        if shared.in_use() > 0 {
            return;
        }
        shared.retire();
        let retired = state.remove(shared);
        drop(state);
        drop(retired);
    }

    /// Retires the connection that has been without a stream for the longest.
    pub(super) fn evict_idle(&self) {
        let state = self.lock();
        let oldest = state
            .rooms
            .iter()
            .flat_map(|room| room.origins.values())
            .flat_map(|origin| &origin.connections)
            .map(|entry| &entry.shared)
            .filter(|shared| shared.in_use() == 0)
            .min_by_key(|shared| shared.idle_since())
            .map(Arc::clone);
        drop(state);
        if let Some(oldest) = oldest {
            self.retire_idle(&oldest);
        }
    }

    /// Takes a dial back, for its connection or because it has ended.
    pub(super) fn take_dial(
        &self,
        runtime: Id,
        origin: &Arc<str>,
        dial: Option<u64>,
    ) -> Option<Opening> {
        let dial = dial?;
        let mut state = self.lock();
        let room = state
            .rooms
            .iter_mut()
            .find(|room| room.runtime == runtime)?;
        let dials = &mut room.origins.get_mut(origin)?.dials;
        let at = dials.iter().position(|&(id, _)| id == dial)?;
        let (_, opening) = dials.swap_remove(at);
        state.tidy(runtime, origin);
        Some(opening)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opening {
    fn new() -> Self {
        Self {
            joined: 0,
            over: watch::Sender::new(false),
        }
    }
}

impl Origin {
    fn openings(&mut self) -> impl Iterator<Item = &mut Opening> {
        let connecting = self.dials.iter_mut().map(|(_, opening)| opening);
        let settling = self.connections.iter_mut();
        connecting.chain(settling.filter_map(|entry| entry.opening.as_mut()))
    }
}

impl Entry {
    fn is_of(&self, shared: &Shared) -> bool {
        std::ptr::eq(&*self.shared, shared)
    }
}

impl State {
    /// The oldest connection with a free stream, so that those that are not needed become idle.
    fn lease(&mut self, runtime: Id, origin: &str, now: Instant, idle: Duration) -> Option<Lease> {
        let room = self.rooms.iter().find(|room| room.runtime == runtime)?;
        let connections = &room.origins.get(origin)?.connections;
        let entry = connections
            .iter()
            .find(|entry| entry.shared.enter(now, idle))?;
        Some(Lease::new(
            Arc::clone(&entry.shared),
            entry.sender.clone(),
            true,
        ))
    }

    fn origin(&mut self, runtime: Id, origin: &Arc<str>) -> &mut Origin {
        let room = match self.rooms.iter().position(|room| room.runtime == runtime) {
            Some(at) => &mut self.rooms[at],
            None => {
                self.rooms.push(Room {
                    runtime,
                    origins: HashMap::new(),
                });
                let last = self.rooms.len() - 1;
                &mut self.rooms[last]
            }
        };
        room.origins.entry(Arc::clone(origin)).or_default()
    }

    fn connections(&mut self, shared: &Shared) -> Option<&mut Vec<Entry>> {
        let mut rooms = self.rooms.iter_mut();
        let room = rooms.find(|room| room.runtime == shared.runtime)?;
        let origin = room.origins.get_mut(&shared.origin)?;
        Some(&mut origin.connections)
    }

    /// Takes all connections to an origin out.
    fn remove_all(&mut self, origin: &Arc<str>) -> Vec<Entry> {
        let runtimes: Vec<Id> = self.rooms.iter().map(|room| room.runtime).collect();
        let mut removed = Vec::new();
        for runtime in runtimes {
            let mut rooms = self.rooms.iter_mut();
            if let Some(room) = rooms.find(|room| room.runtime == runtime)
                && let Some(of) = room.origins.get_mut(origin)
            {
                removed.append(&mut of.connections);
                self.tidy(runtime, origin);
            }
        }
        removed
    }

    fn remove(&mut self, shared: &Shared) -> Option<Entry> {
        let connections = self.connections(shared)?;
        let at = connections.iter().position(|entry| entry.is_of(shared))?;
        // Their order is kept: the oldest is filled first.
        let removed = connections.remove(at);
        self.tidy(shared.runtime, &shared.origin);
        Some(removed)
    }

    /// Forgets an origin, and with the last one a runtime, that has nothing any more.
    fn tidy(&mut self, runtime: Id, origin: &Arc<str>) {
        let Some(at) = self.rooms.iter().position(|room| room.runtime == runtime) else {
            return;
        };
        let origins = &mut self.rooms[at].origins;
        let is_empty = |origin: &Origin| origin.connections.is_empty() && origin.dials.is_empty();
        if origins.get(origin).is_some_and(is_empty) {
            origins.remove(origin);
        }
        if origins.is_empty() {
            self.rooms.swap_remove(at);
        }
    }
}
