//! Tests against servers that misbehave on purpose. Each server runs on its own threads, so it does
//! not depend on the runtime under test.

mod address_filter;
#[cfg(feature = "tls")]
mod certificates;
mod errors;
#[cfg(feature = "http2")]
mod http2;
mod reuse;
mod runtimes;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_handshakes;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use tokio::net::TcpSocket;
use tokio::time::Instant;
use url::Host;

use super::{
    ConnectionSource, ConnectionTarget, IncomingBody, SendError, StickyConnection, UnsentRequest,
    Wire, WireConfig,
};
use crate::body::Body;
use crate::error::{Error, ErrorKind};
use crate::hop_clock::{HopClock, Phase};

/// A wait longer than this fails the test.
const HANG_GUARD: Duration = Duration::from_secs(60);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Server {
    port: u16,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    /// Runs `handler` on each connection. The second argument of `handler` is the number of earlier
    /// connections.
    fn new(handler: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), handler)
    }

    fn on(address: SocketAddr, handler: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let handler = Arc::new(handler);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let handler = Arc::clone(&handler);
                let earlier = count.fetch_add(1, SeqCst);
                thread::spawn(move || handler(stream, earlier));
            }
        });
        Self { port, accepted }
    }

    /// Sends `response` to every request.
    fn responding(response: &'static str) -> Self {
        Self::new(move |mut stream, _| while respond(&mut stream, response) {})
    }

    /// Sends `response` to one request per connection, and closes the connection.
    fn responding_once(response: &'static str) -> Self {
        Self::new(move |mut stream, _| {
            respond(&mut stream, response);
        })
    }

    fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

/// Reads a request head. Returns false at the end of the connection.
fn read_head(stream: &mut impl Read) -> bool {
    let mut tail = [0; 4];
    let mut byte = [0];
    while tail != *b"\r\n\r\n" {
        match stream.read(&mut byte) {
            Ok(1) => {
                tail.rotate_left(1);
                tail[3] = byte[0];
            }
            _ => return false,
        }
    }
    true
}

/// Reads a request head and sends `response`. Returns false at the end of the connection.
fn respond(stream: &mut (impl Read + Write), response: &str) -> bool {
    read_head(stream) && stream.write_all(response.as_bytes()).is_ok() && stream.flush().is_ok()
}

/// Reads until the client closes. Closing earlier with unread bytes would reset the connection.
#[cfg(feature = "tls")]
fn drain(stream: &mut TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = std::io::copy(stream, &mut std::io::sink());
}

/// Resets the connection: closes it with unread bytes.
fn reset(stream: TcpStream) {
    let mut byte = [0];
    let _ = stream.peek(&mut byte);
    drop(stream);
}

/// The error of a request, with the request if the connection returned it.
#[derive(Debug)]
struct FailedSend {
    failure: SendError,
    request: UnsentRequest,
}

impl std::ops::Deref for FailedSend {
    type Target = SendError;

    fn deref(&self) -> &SendError {
        &self.failure
    }
}

struct Client {
    wire: Wire,
    clock: HopClock,
    sticky_connection: Mutex<StickyConnection>,
    /// Whether to keep a sticky connection between two exchanges, as a worker does.
    keeps_sticky: bool,
}

impl Client {
    fn new() -> Self {
        Self::with(WireConfig::default())
    }

    fn with(config: WireConfig) -> Self {
        Self {
            wire: Wire::new(config),
            clock: HopClock::new(Instant::now()),
            sticky_connection: Mutex::default(),
            keeps_sticky: false,
        }
    }

    fn take_sticky(&self) -> StickyConnection {
        std::mem::take(&mut *self.sticky_connection.lock().unwrap())
    }

    fn put_sticky(&self, mut sticky_connection: StickyConnection) {
        if self.keeps_sticky {
            *self.sticky_connection.lock().unwrap() = sticky_connection;
        } else {
            sticky_connection.return_to_pool();
        }
    }

    async fn send_to(
        &self,
        target: ConnectionTarget<'_>,
        request: Request<Body>,
        source: ConnectionSource,
    ) -> Result<(Parts, IncomingBody), FailedSend> {
        self.clock.reset_for_new_hop(Instant::now());
        let mut unsent = Some(request);
        let mut sticky_connection = self.take_sticky();
        let sent = self
            .wire
            .send(
                &target,
                &mut unsent,
                source,
                &self.clock,
                &mut sticky_connection,
            )
            .await;
        self.put_sticky(sticky_connection);
        sent.map_err(|failure| FailedSend {
            failure,
            request: unsent,
        })
    }

    async fn get(&self, port: u16) -> Result<(Parts, IncomingBody), FailedSend> {
        self.send(port, get()).await
    }

    async fn send(
        &self,
        port: u16,
        request: Request<Body>,
    ) -> Result<(Parts, IncomingBody), FailedSend> {
        let origin = format!("http://127.0.0.1:{port}");
        self.send_to(
            plain_target(&origin, port),
            request,
            ConnectionSource::Pooled,
        )
        .await
    }

    async fn next_chunk(&self, incoming: &mut IncomingBody) -> Option<Result<Bytes, Error>> {
        let mut sticky_connection = self.take_sticky();
        let chunk = incoming
            .next_chunk(&self.clock, &mut sticky_connection)
            .await;
        self.put_sticky(sticky_connection);
        chunk
    }

    async fn read(&self, incoming: &mut IncomingBody) -> Result<Bytes, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.next_chunk(incoming).await {
            body.extend_from_slice(&chunk?);
        }
        Ok(body.into())
    }

    /// Sends a request and reads the whole response body.
    async fn fetch(&self, port: u16) -> Result<Bytes, ErrorKind> {
        let (_, mut incoming) = self
            .get(port)
            .await
            .map_err(|failure| failure.error.kind())?;
        self.read(&mut incoming).await.map_err(|error| error.kind())
    }

    fn idle_connections(&self) -> usize {
        self.wire.http1.pool.idle_count()
    }

    fn open_socket_count(&self) -> usize {
        self.wire.http1.pool.open_socket_count()
    }
}

fn plain_target(origin: &str, port: u16) -> ConnectionTarget<'_> {
    ConnectionTarget {
        origin,
        is_https: false,
        host: Host::Ipv4(Ipv4Addr::LOCALHOST),
        port,
        proxy: None,
    }
}

fn get() -> Request<Body> {
    request("GET", Body::default())
}

fn request(method: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri("/")
        .header("host", "test")
        .body(body)
        .unwrap()
}

/// Waits until `condition` is true.
async fn eventually(claim: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < HANG_GUARD, "never came true: {claim}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An address that refuses connections while the process lives. Its socket is bound, so that no
/// other socket gets the port, and never listens.
fn refused_address() -> SocketAddr {
    static BOUND: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    BOUND.lock().unwrap().push(socket);
    address
}
