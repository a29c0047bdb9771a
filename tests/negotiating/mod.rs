//! Servers that choose between HTTP/1.1 and HTTP/2 as TLS does, on a thread and a runtime of their own.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use fanout::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;

use super::server::{Leaf, server_config};

/// What a server does.
#[derive(Clone)]
pub struct Manner {
    pub alpn: &'static [&'static str],
    /// None over plain TCP.
    pub tls: bool,
    /// So many connections are accepted and never spoken to.
    pub stalled: usize,
    /// No answer before so many requests are there at once.
    pub gathers: usize,
    pub streams: u32,
}

pub const HTTP2: Manner = Manner {
    alpn: &["h2", "http/1.1"],
    tls: true,
    stalled: 0,
    gathers: 1,
    streams: 1000,
};

pub const HTTP1: Manner = Manner {
    alpn: &["http/1.1"],
    ..HTTP2
};

pub struct Server {
    port: u16,
    manner: Manner,
    pub connections: Arc<AtomicUsize>,
    pub open: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(manner: Manner) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let (gathers, streams) = (manner.gathers, manner.streams);
        let mut server = Self::with(manner, move |socket, is_http2| {
            let count = Arc::clone(&count);
            async move { serve(socket, is_http2, streams, count, gathers).await }
        });
        server.requests = requests;
        server
    }

    /// Runs `handler` on each connection, after its handshake.
    pub fn with<F>(
        manner: Manner,
        handler: impl Fn(Socket, bool) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("not to block");
        let server = Self {
            port: listener.local_addr().expect("an address").port(),
            manner: manner.clone(),
            connections: Arc::default(),
            open: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, open) = (Arc::clone(&server.connections), Arc::clone(&server.open));
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let mut config = server_config(Leaf::Good);
                config.alpn_protocols = manner
                    .alpn
                    .iter()
                    .map(|name| name.as_bytes().to_vec())
                    .collect();
                let acceptor = manner.tls.then(|| TlsAcceptor::from(Arc::new(config)));
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let handler = Arc::new(handler);
                let mut kept = Vec::new();
                while let Ok((stream, _)) = listener.accept().await {
                    if connections.fetch_add(1, SeqCst) < manner.stalled {
                        kept.push(stream);
                        continue;
                    }
                    let (acceptor, handler) = (acceptor.clone(), Arc::clone(&handler));
                    let open = Arc::clone(&open);
                    tokio::spawn(async move {
                        open.fetch_add(1, SeqCst);
                        if let Some((socket, is_http2)) = shake_hands(acceptor, stream).await {
                            handler(socket, is_http2).await;
                        }
                        open.fetch_sub(1, SeqCst);
                    });
                }
            });
        });
        server
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub fn origin(&self) -> String {
        let scheme = if self.manner.tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.port)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    pub fn urls(&self, count: usize) -> impl Iterator<Item = String> + Send + use<> {
        let origin = self.origin();
        (0..count).map(move |n| format!("{origin}/{n}"))
    }

    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

pub type Socket = Box<dyn Stream>;
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

async fn shake_hands(acceptor: Option<TlsAcceptor>, stream: TcpStream) -> Option<(Socket, bool)> {
    let Some(acceptor) = acceptor else {
        return Some((Box::new(stream), true));
    };
    let stream = acceptor.accept(stream).await.ok()?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Some((Box::new(stream), is_http2))
}

/// Serves as hyper does: the answer is the path, or what was sent.
async fn serve(
    socket: Socket,
    is_http2: bool,
    streams: u32,
    count: Arc<AtomicUsize>,
    gathers: usize,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, SeqCst);
            while count.load(SeqCst) < gathers {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let version = format!("{:?}", request.version());
            let (head, body) = request.into_parts();
            let sent = read(body).await;
            let answer = match sent.is_empty() {
                true => head.uri.path().as_bytes().to_vec(),
                false => sent,
            };
            let response = Response::builder()
                .header("x-version", version)
                .body(Body::from(answer));
            Ok::<_, Infallible>(response.expect("a response"))
        }
    });
    let io = TokioIo::new(socket);
    // How a connection ends is the client's affair.
    let _ = match is_http2 {
        true => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(streams);
            builder.serve_connection(io, service).await
        }
        false => http1::Builder::new().serve_connection(io, service).await,
    };
}

async fn read(mut body: Incoming) -> Vec<u8> {
    use http_body::Body as _;
    let mut whole = Vec::new();
    while let Some(Ok(frame)) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
    {
        if let Ok(data) = frame.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    whole
}
