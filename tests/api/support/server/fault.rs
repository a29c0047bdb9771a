use super::{
    connection::{Connection, Socket},
    log::{Counts, Peak, ReceivedRequest, RequestLog},
};
use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle},
    sync::{oneshot, watch},
    task::{AbortHandle, JoinSet},
};

/// The timeout of every wait, in real time even if the client's clock is paused.
const HANG_GUARD: Duration = Duration::from_secs(60);

/// An HTTP/1.1 server whose behavior is selected by the path.
///
/// Responses (`n` is a u64; `HEAD` receives the head only):
///
/// | path | response |
/// |---|---|
/// | `/ok/<n>` | 200, the body [`expected_body(n)`](super::expected) with its length |
/// | `/bytes/<n>` | 200, [`pattern_bytes(n)`](super::bytes_of) with its length |
/// | `/big/<n>` | the body of `/bytes/<n>` in chunks, without a length |
/// | `/chunked/<n>` | `expected_body(n)` in chunks of 7 bytes |
/// | `/until-close/<n>` | `expected_body(n)` without a length, ended by FIN |
/// | `/close/<n>` | `expected_body(n)` and `Connection: close` |
/// | `/ok-then-close/<n>` | `expected_body(n)`, then FIN without `Connection: close` |
/// | `/keep-alive/<s>` | `expected_body(0)` with `Keep-Alive: timeout=<s>` |
/// | `/header/<n>` | `expected_body(0)` with a header `x-long` of `n` bytes |
/// | `/status/<code>` | this status; `?retry_after=<text>` sets `Retry-After`, `?retry_after_date=<s>` sets it to a date in `s` seconds |
/// | `/echo` | JSON of method, path, headers and body |
/// | `/gone` | 410 |
/// | `/redirect/<code>?to=<url>` | `Location: <url>` |
/// | `/hops/<n>` | 302 to `/hops/<n-1>`; `/hops/0` is `expected_body(0)` |
/// | `/held/<rest>` | the response of `/<rest>`, after [`release_held`](Self::release_held) |
/// | `/delay/<ms>/<rest>` | the response of `/<rest>`, or `expected_body(<rest>)` for a number, after the delay |
/// | `/flaky/<key>/<n>/<rest>` | status `<rest>` or the response of `/<rest>` to the first `n` requests with the key, then `expected_body(0)` |
///
/// Faults, after the whole request is read:
///
/// | path | fault |
/// |---|---|
/// | `/reset-before`, `/close-before` | RST or FIN before any byte |
/// | `/half-head` | FIN in the head |
/// | `/reset-after-head`, `/truncated` | half of the body, then RST or FIN |
/// | `/truncated-chunks` | FIN in a chunk |
/// | `/stall-head`, `/stall-body` | nothing or half of the body, then silence until the client closes |
/// | `/drip/<n>/<ms>` | a body of `n` bytes, one every `ms` |
/// | `/endless` | chunks until the client closes |
/// | `/interim/<n>` | `n` times 103, then `expected_body(0)` |
/// | `/malformed` | not HTTP |
/// | `/length-and-chunked`, `/two-lengths` | contradictory framing |
pub struct FaultServer {
    address: SocketAddr,
    log: Arc<RequestLog>,
    close: watch::Sender<()>,
    accepting: AbortHandle,
    /// Disconnected once the listener and all connections are dropped.
    all_closed: Mutex<mpsc::Receiver<()>>,
    thread: Arc<ServerThread>,
}

impl FaultServer {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST)
    }

    /// Starts on a free port of `ip`. Linux and Windows have all of 127.0.0.0/8, macOS has only
    /// 127.0.0.1.
    ///
    /// # Panics
    ///
    /// If `ip` is not a local address.
    pub fn start_on(ip: impl Into<IpAddr>) -> Self {
        let listener = listen(ip.into()).expect("a free port of a local address");
        Self::serve(listener, Plain, &ServerThread::start(), Arc::default())
    }

    /// Starts `hosts` servers on 127.0.0.2, 127.0.0.3 and so on, or on ports of 127.0.0.1 where
    /// those are not available. They count their requests in flight per server and per group.
    pub fn start_group(hosts: u8) -> Vec<Self> {
        // On a single thread, a request sent after a response is never counted together with it.
        let thread = ServerThread::start();
        let gauge = Arc::default();
        (0..hosts)
            .map(|host| {
                let listener = listen(Ipv4Addr::new(127, 0, 0, 2 + host).into())
                    .or_else(|_| listen(Ipv4Addr::LOCALHOST.into()))
                    .expect("a free port");
                Self::serve(listener, Plain, &thread, Arc::clone(&gauge))
            })
            .collect()
    }

    pub(super) fn start_with(accept: impl Accept) -> Self {
        let listener = listen(Ipv4Addr::LOCALHOST.into()).expect("a free port");
        Self::serve(listener, accept, &ServerThread::start(), Arc::default())
    }

    fn serve(
        listener: std::net::TcpListener,
        accept: impl Accept,
        thread: &Arc<ServerThread>,
        group: Arc<Mutex<Peak>>,
    ) -> Self {
        let address = listener.local_addr().expect("a bound socket");
        let log = RequestLog::new(group);
        let close = watch::Sender::new(());
        let (closed, all_closed) = mpsc::channel();
        let accepting = thread
            .handle
            .spawn(accept_all(
                listener,
                accept,
                Arc::clone(&log),
                close.subscribe(),
                closed,
            ))
            .abort_handle();
        Self {
            address,
            log,
            close,
            accepting,
            all_closed: Mutex::new(all_closed),
            thread: Arc::clone(thread),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://<ip>:<port>`, without a trailing slash.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of `path`, which must begin with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests received, in order of arrival.
    pub fn log(&self) -> Vec<ReceivedRequest> {
        self.log.entries()
    }

    /// The arrival times of the requests, in order.
    pub fn arrival_times(&self) -> Vec<Instant> {
        self.log().iter().map(|entry| entry.received_at).collect()
    }

    /// The number of requests for exactly this path and query.
    pub fn request_count_for(&self, path: &str) -> usize {
        self.log().iter().filter(|entry| entry.path == path).count()
    }

    pub fn counts(&self) -> Counts {
        self.log.counts()
    }

    /// Clears the requests, the maxima, the total of connections and the keys of `/flaky`.
    pub fn reset(&self) {
        self.log.reset();
    }

    /// Waits until the counts satisfy `reached` and returns them.
    ///
    /// # Panics
    ///
    /// If that takes longer than 60 s of real time.
    pub async fn wait_until(&self, reached: impl Fn(&Counts) -> bool) -> Counts {
        let mut changes = self.log.subscribe();
        let mut hang_guard = self.thread.handle.spawn(tokio::time::sleep(HANG_GUARD));
        let counts = loop {
            changes.mark_unchanged();
            let counts = self.counts();
            if reached(&counts) {
                break counts;
            }
            tokio::select! {
                changed = changes.changed() => changed.expect("the log is alive"),
                _ = &mut hang_guard => panic!("not reached within {HANG_GUARD:?}: {counts:?}"),
            }
        };
        hang_guard.abort();
        counts
    }

    pub async fn wait_for_requests(&self, count: usize) -> Counts {
        self.wait_until(|counts| counts.requests >= count).await
    }

    pub async fn wait_for_in_flight(&self, count: usize) -> Counts {
        self.wait_until(|counts| counts.in_flight == count).await
    }

    pub async fn wait_for_open_connections(&self, count: usize) -> Counts {
        self.wait_until(|counts| counts.open_connections == count)
            .await
    }

    /// Answers all requests to `/held/…`, pending and future ones.
    pub fn release_held(&self) {
        self.log.release_held();
    }

    /// Closes all open connections, active or idle, and keeps listening. No client may be
    /// connecting.
    pub async fn close_connections(&self) {
        self.close.send_replace(());
        self.wait_for_open_connections(0).await;
    }

    /// Closes the listener and all connections, and returns once they are closed. Keeps the log.
    pub fn shut_down(&self) {
        self.accepting.abort();
        let all_closed = self.all_closed.lock().expect("not poisoned");
        let _disconnected = all_closed.recv_timeout(HANG_GUARD);
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Turns an accepted TCP connection into one that carries HTTP.
pub(super) trait Accept: Clone + Send + Sync + 'static {
    type Socket: Socket + 'static;

    fn accept(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

#[derive(Clone)]
struct Plain;

impl Accept for Plain {
    type Socket = TcpStream;

    async fn accept(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

fn listen(ip: IpAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind((ip, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn accept_all(
    listener: std::net::TcpListener,
    accept: impl Accept,
    log: Arc<RequestLog>,
    close: watch::Receiver<()>,
    closed: mpsc::Sender<()>,
) {
    let listener = TcpListener::from_std(listener).expect("called within the runtime");
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // The process is probably out of descriptors.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let (log, accept, closed) = (Arc::clone(&log), accept.clone(), closed.clone());
        let mut close = close.clone();
        close.mark_unchanged();
        let open = log.record_connection();
        connections.spawn(async move {
            let _closed = closed;
            let served = async {
                stream.set_nodelay(true)?;
                let socket = accept.accept(stream).await?;
                Connection::new(socket, open).serve(&log).await
            };
            // A client may close its connection at any time, so an error is expected.
            tokio::select! {
                _ = served => {}
                _ = close.changed() => {}
            }
        });
    }
}

/// A thread with a tokio runtime, for a server or a group of servers.
struct ServerThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ServerThread {
    fn start() -> Arc<Self> {
        crate::support::raise_descriptor_limit();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || {
                let _dropped = runtime.block_on(stopped);
            })
            .expect("a thread");
        Arc::new(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
