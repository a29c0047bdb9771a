//! Servers that negotiate HTTP/1.1 or HTTP/2 by ALPN. Each runs on its own thread and runtime.
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

use super::server::{ServerCertificate, server_config};

/// The protocols and limits of an [`AlpnServer`].
#[derive(Clone)]
pub struct AlpnServerConfig {
    /// The protocols accepted by ALPN, most preferred first.
    pub alpn: &'static [&'static str],
    /// Whether connections use TLS. Without TLS, every connection is HTTP/2 with prior knowledge.
    pub tls: bool,
    /// The number of connections that are accepted and never read or written.
    pub ignored_connections: usize,
    /// Every response waits until the server has received this many requests.
    pub min_concurrent_requests: usize,
    /// The value of `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub max_concurrent_streams: u32,
}

pub const HTTP2_SERVER: AlpnServerConfig = AlpnServerConfig {
    alpn: &["h2", "http/1.1"],
    tls: true,
    ignored_connections: 0,
    min_concurrent_requests: 1,
    max_concurrent_streams: 1000,
};

pub const HTTP1_SERVER: AlpnServerConfig = AlpnServerConfig {
    alpn: &["http/1.1"],
    ..HTTP2_SERVER
};

/// HTTP/2 with prior knowledge, without TLS.
pub const PLAINTEXT_SERVER: AlpnServerConfig = AlpnServerConfig {
    tls: false,
    ..HTTP2_SERVER
};

pub struct AlpnServer {
    port: u16,
    config: AlpnServerConfig,
    pub connections: Arc<AtomicUsize>,
    pub open_connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
}

impl AlpnServer {
    pub fn start(config: AlpnServerConfig) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let request_count = Arc::clone(&requests);
        let (min_concurrent_requests, max_concurrent_streams) = (
            config.min_concurrent_requests,
            config.max_concurrent_streams,
        );
        let mut server = Self::with_handler(config, move |socket, is_http2| {
            let request_count = Arc::clone(&request_count);
            async move {
                serve(
                    socket,
                    is_http2,
                    max_concurrent_streams,
                    request_count,
                    min_concurrent_requests,
                )
                .await;
            }
        });
        server.requests = requests;
        server
    }

    /// Starts a server that runs `handler` on each connection after the TLS handshake.
    pub fn with_handler<F>(
        config: AlpnServerConfig,
        handler: impl Fn(Socket, bool) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        super::raise_descriptor_limit();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener
            .set_nonblocking(true)
            .expect("a nonblocking listener");
        let server = Self {
            port: listener.local_addr().expect("an address").port(),
            config: config.clone(),
            connections: Arc::default(),
            open_connections: Arc::default(),
            requests: Arc::default(),
        };
        let connections = Arc::clone(&server.connections);
        let open_connections = Arc::clone(&server.open_connections);
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let mut tls_config = server_config(ServerCertificate::Good);
                tls_config.alpn_protocols = config
                    .alpn
                    .iter()
                    .map(|name| name.as_bytes().to_vec())
                    .collect();
                let acceptor = config.tls.then(|| TlsAcceptor::from(Arc::new(tls_config)));
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let handler = Arc::new(handler);
                let mut ignored = Vec::new();
                while let Ok((stream, _)) = listener.accept().await {
                    if connections.fetch_add(1, SeqCst) < config.ignored_connections {
                        ignored.push(stream);
                        continue;
                    }
                    let (acceptor, handler) = (acceptor.clone(), Arc::clone(&handler));
                    let open_connections = Arc::clone(&open_connections);
                    tokio::spawn(async move {
                        open_connections.fetch_add(1, SeqCst);
                        if let Some((socket, is_http2)) = tls_handshake(acceptor, stream).await {
                            handler(socket, is_http2).await;
                        }
                        open_connections.fetch_sub(1, SeqCst);
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
        let scheme = if self.config.tls { "https" } else { "http" };
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

pub type Socket = Box<dyn AsyncReadWrite>;
pub trait AsyncReadWrite: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> AsyncReadWrite for T {}

async fn tls_handshake(acceptor: Option<TlsAcceptor>, stream: TcpStream) -> Option<(Socket, bool)> {
    let Some(acceptor) = acceptor else {
        return Some((Box::new(stream), true));
    };
    let stream = acceptor.accept(stream).await.ok()?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Some((Box::new(stream), is_http2))
}

/// Serves one connection. The response body is the request body, or the path if that is empty.
async fn serve(
    socket: Socket,
    is_http2: bool,
    max_concurrent_streams: u32,
    request_count: Arc<AtomicUsize>,
    min_concurrent_requests: usize,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let request_count = Arc::clone(&request_count);
        async move {
            request_count.fetch_add(1, SeqCst);
            while request_count.load(SeqCst) < min_concurrent_requests {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let version = format!("{:?}", request.version());
            let (head, body) = request.into_parts();
            let request_body = read_body(body).await;
            let response_body = if request_body.is_empty() {
                head.uri.path().as_bytes().to_vec()
            } else {
                request_body
            };
            let response = Response::builder()
                .header("x-version", version)
                .body(Body::from(response_body));
            Ok::<_, Infallible>(response.expect("a response"))
        }
    });
    let io = TokioIo::new(socket);
    // The client may close the connection at any time, so an error is expected.
    let _ = if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(max_concurrent_streams);
        builder.serve_connection(io, service).await
    } else {
        http1::Builder::new().serve_connection(io, service).await
    };
}

async fn read_body(mut body: Incoming) -> Vec<u8> {
    use http_body::Body as _;
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
    {
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    bytes
}
