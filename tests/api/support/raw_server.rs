//! A server that sends arbitrary bytes and records every byte it receives.
#![allow(dead_code, unreachable_pub)]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

/// The timeout of every wait.
const HANG_GUARD: Duration = Duration::from_secs(60);

/// The bytes of a response, and the state of the connection after them.
#[derive(Clone, Debug)]
pub struct RawResponse {
    bytes: Vec<u8>,
    after: AfterBytes,
}

#[derive(Clone, Debug)]
enum AfterBytes {
    KeepAlive,
    Close,
    /// Writes these bytes repeatedly until the client closes the connection.
    Repeat(Vec<u8>),
}

impl RawResponse {
    pub fn keep_alive(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(bytes, AfterBytes::KeepAlive)
    }

    pub fn close(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(bytes, AfterBytes::Close)
    }

    pub fn repeat(bytes: impl Into<Vec<u8>>, repeated: impl Into<Vec<u8>>) -> Self {
        Self::new(bytes, AfterBytes::Repeat(repeated.into()))
    }

    fn new(bytes: impl Into<Vec<u8>>, after: AfterBytes) -> Self {
        let bytes = bytes.into();
        Self { bytes, after }
    }
}

/// A received request.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// The number of the connection, from 0 in order of acceptance.
    pub connection: usize,
    /// The number of the request on its connection, from 0.
    pub index_on_connection: usize,
    /// The head and the body.
    pub bytes: Vec<u8>,
}

impl RawRequest {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The request line without the version: `METHOD target`.
    pub fn line(&self) -> String {
        let text = self.text();
        let line = text.lines().next().unwrap_or_default();
        line.trim_end_matches(" HTTP/1.1").to_owned()
    }
}

#[derive(Default)]
struct State {
    accepted: usize,
    closed_by_client: usize,
    requests: Vec<RawRequest>,
    bytes: Vec<u8>,
}

#[derive(Clone)]
pub struct RawServer {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl RawServer {
    /// Starts on a free port of 127.0.0.1.
    pub fn start(respond: impl Fn(&RawRequest) -> RawResponse + Send + Sync + 'static) -> Self {
        super::raise_descriptor_limit();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("a bound socket"),
            state: Arc::default(),
        };
        let (accepting, respond) = (server.clone(), Arc::new(respond));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let connection = accepting.update(|state| {
                    state.accepted += 1;
                    state.accepted - 1
                });
                let (server, respond) = (accepting.clone(), Arc::clone(&respond));
                thread::spawn(move || server.serve(stream, connection, &*respond));
            }
        });
        server
    }

    /// Sends the same response to every request.
    pub fn responding(reply: RawResponse) -> Self {
        Self::start(move |_| reply.clone())
    }

    fn serve(
        &self,
        mut stream: TcpStream,
        connection: usize,
        respond: &dyn Fn(&RawRequest) -> RawResponse,
    ) {
        let _ = stream.set_nodelay(true);
        for index_on_connection in 0.. {
            let Some(bytes) = self.read_request(&mut stream) else {
                self.update(|state| state.closed_by_client += 1);
                return;
            };
            let request = RawRequest {
                connection,
                index_on_connection,
                bytes,
            };
            let reply = respond(&request);
            self.update(|state| state.requests.push(request));
            let is_written = stream.write_all(&reply.bytes).is_ok();
            match reply.after {
                AfterBytes::KeepAlive if is_written => {}
                AfterBytes::Close => return,
                AfterBytes::Repeat(repeated) => {
                    while stream.write_all(&repeated).is_ok() {}
                    self.update(|state| state.closed_by_client += 1);
                    return;
                }
                AfterBytes::KeepAlive => {
                    self.update(|state| state.closed_by_client += 1);
                    return;
                }
            }
        }
    }

    /// Reads a request, or returns `None` if the client closes the connection.
    fn read_request(&self, stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            self.read_byte(stream, &mut bytes)?;
        }
        let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|length| length.trim().parse().ok())
            .unwrap_or(0);
        for _ in 0..length {
            self.read_byte(stream, &mut bytes)?;
        }
        Some(bytes)
    }

    fn read_byte(&self, stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => {
                self.update(|state| state.bytes.push(byte[0]));
                bytes.push(byte[0]);
                Some(())
            }
            _ => None,
        }
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (state, changed) = &*self.state;
        let result = change(&mut state.lock().expect("not poisoned"));
        changed.notify_all();
        result
    }

    fn get<T>(&self, select: impl FnOnce(&State) -> T) -> T {
        select(&self.state.0.lock().expect("not poisoned"))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn accepted_connections(&self) -> usize {
        self.get(|state| state.accepted)
    }

    pub fn requests(&self) -> Vec<RawRequest> {
        self.get(|state| state.requests.clone())
    }

    /// Every byte received, on all connections.
    pub fn bytes(&self) -> Vec<u8> {
        self.get(|state| state.bytes.clone())
    }

    /// Blocks until the client has closed `count` connections.
    ///
    /// # Panics
    ///
    /// If that takes longer than 60 s.
    pub fn wait_for_closed_by_client(&self, count: usize) {
        let (state, changed) = &*self.state;
        let state = state.lock().expect("not poisoned");
        let is_below = |state: &mut State| state.closed_by_client < count;
        let waited = changed.wait_timeout_while(state, HANG_GUARD, is_below);
        let (_state, waited) = waited.expect("not poisoned");
        assert!(!waited.timed_out(), "the client did not close");
    }
}
