//! The server behind a [`Link`](super::link::Link): HTTP/1.1 or HTTP/2, behind TLS or a proxy.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, ready};

use fanout::Body;
use http::{Method, Request, Response, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_rustls::TlsAcceptor;

use crate::support::encoding_server::encode;
use crate::support::server::{ServerCertificate, pattern_bytes, server_config};

/// The protocols of a connection, outermost first.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    TlsHttp1,
    Http2,
    TlsHttp2,
    /// SOCKS5, then HTTP/1.1.
    SocksHttp1,
    /// An HTTP proxy with `CONNECT`, then TLS and HTTP/1.1.
    ConnectTlsHttp1,
}

/// The reply of the proxy to `CONNECT`.
const CONNECTED: &[u8] = b"HTTP/1.1 200 Connected\r\n\r\n";

impl Protocol {
    pub(super) fn is_encrypted(self) -> bool {
        matches!(
            self,
            Self::TlsHttp1 | Self::TlsHttp2 | Self::ConnectTlsHttp1
        )
    }

    pub(super) fn has_proxy(self) -> bool {
        matches!(self, Self::SocksHttp1 | Self::ConnectTlsHttp1)
    }

    pub(super) fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::TlsHttp2)
    }

    /// The number of bytes from the server, and a number of bytes to the server, without which no
    /// request can be sent: the replies of a proxy, and the first flights of a TLS handshake.
    pub(super) fn min_setup_bytes(self) -> (usize, usize) {
        match self {
            Self::Http1 | Self::Http2 => (0, 0),
            Self::SocksHttp1 => (12, 3),
            Self::TlsHttp1 | Self::TlsHttp2 => (120, 100),
            Self::ConnectTlsHttp1 => (CONNECTED.len() + 120, 100),
        }
    }
}

/// A request that the server has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReceivedRequest {
    pub(super) method: Method,
    pub(super) path: String,
}

#[derive(Default)]
struct Log {
    requests: Vec<ReceivedRequest>,
    /// The decrypted bytes of each connection, without those for a proxy.
    connections: Vec<Vec<u8>>,
}

/// The server, with a log of the requests to it.
#[derive(Clone, Default)]
pub(super) struct Origin(Arc<Mutex<Log>>);

impl Origin {
    /// The requests that were received with a complete head.
    pub(super) fn requests(&self) -> Vec<ReceivedRequest> {
        self.0.lock().expect("not poisoned").requests.clone()
    }

    /// The decrypted bytes of each connection that has sent any, without those for a proxy.
    pub(super) fn connections(&self) -> Vec<Vec<u8>> {
        let log = self.0.lock().expect("not poisoned");
        let received = log.connections.iter().filter(|bytes| !bytes.is_empty());
        received.cloned().collect()
    }

    /// Serves one connection. An error is expected, because of the injected faults.
    pub(super) async fn serve(self, mut io: DuplexStream, protocol: Protocol) {
        let is_connected = match protocol {
            Protocol::SocksHttp1 => accept_socks(&mut io).await,
            Protocol::ConnectTlsHttp1 => accept_connect(&mut io).await,
            _ => Ok(()),
        };
        if is_connected.is_err() {
            return;
        }
        if !protocol.is_encrypted() {
            return self.serve_http(io, protocol.is_http2()).await;
        }
        static HTTP1: LazyLock<TlsAcceptor> = LazyLock::new(|| tls_acceptor(b"http/1.1"));
        static HTTP2: LazyLock<TlsAcceptor> = LazyLock::new(|| tls_acceptor(b"h2"));
        let acceptor = if protocol.is_http2() { &HTTP2 } else { &HTTP1 };
        if let Ok(io) = acceptor.accept(io).await {
            self.serve_http(io, protocol.is_http2()).await;
        }
    }

    async fn serve_http<S>(self, io: S, is_http2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = {
            let mut log = self.0.lock().expect("not poisoned");
            log.connections.push(Vec::new());
            log.connections.len() - 1
        };
        let io = TokioIo::new(RecordingStream {
            io,
            connection,
            origin: self.clone(),
        });
        let service = service_fn(|request| self.clone().respond(request));
        let _ = if is_http2 {
            let builder = http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(io, service).await
        } else {
            http1::Builder::new().serve_connection(io, service).await
        };
    }

    async fn respond(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let method = head.method;
        let received = ReceivedRequest {
            method,
            path: path.clone(),
        };
        self.0.lock().expect("not poisoned").requests.push(received);
        let _ = body.collect().await;
        let body = expected_body(&path);
        let response = Response::builder();
        let response = match path.as_str() {
            "/length" => response.body(body.into()),
            "/chunked" => response.body(stream_of(body)),
            "/gzip" => response
                .header(header::CONTENT_ENCODING, "gzip")
                .body(encode("gzip", &body).into()),
            // hyper ends the body of an HTTP/1.0 response without a length by closing.
            "/until-close" => response.version(Version::HTTP_10).body(stream_of(body)),
            "/file" => Ok(range_response(&head.headers, &body)),
            "/file/unsized-rest" => {
                let mut response = range_response(&head.headers, &body);
                if response.status() == 206 {
                    *response.version_mut() = Version::HTTP_10;
                    let rest = response.body().as_bytes().expect("bytes").to_vec();
                    *response.body_mut() = stream_of(rest);
                }
                Ok(response)
            }
            _ => response.status(404).body("no such path".into()),
        };
        Ok(response.expect("a valid response"))
    }
}

/// The decoded body of a path.
pub(super) fn expected_body(path: &str) -> Vec<u8> {
    match path {
        "/length" => pattern_bytes(50),
        "/chunked" => pattern_bytes(60),
        "/gzip" => pattern_bytes(300),
        "/until-close" => pattern_bytes(70),
        "/file" | "/file/unsized-rest" => pattern_bytes(400),
        _ => Vec::new(),
    }
}

/// A body without a length, in chunks of 25 bytes.
fn stream_of(body: Vec<u8>) -> Body {
    struct Chunks(std::vec::IntoIter<Vec<u8>>);
    impl futures_core::Stream for Chunks {
        type Item = Result<Vec<u8>, Infallible>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.next().map(Ok))
        }
    }
    let chunks: Vec<Vec<u8>> = body.chunks(25).map(<[u8]>::to_vec).collect();
    Body::stream(Chunks(chunks.into_iter()))
}

/// The response of a server that supports ranges (RFC 9110 §14).
fn range_response(headers: &http::HeaderMap, body: &[u8]) -> Response<Body> {
    const ETAG: &str = "\"v1\"";
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let response = Response::builder().header(header::ETAG, ETAG);
    let first: Option<usize> = text(header::RANGE)
        .filter(|_| text(header::IF_RANGE).is_none_or(|etag| etag == ETAG))
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .filter(|first| *first < body.len());
    let response = match first {
        Some(first) => {
            let range = format!("bytes {first}-{}/{}", body.len() - 1, body.len());
            let response = response.status(206).header(header::CONTENT_RANGE, range);
            response.body(body[first..].to_vec().into())
        }
        None => response.body(body.to_vec().into()),
    };
    response.expect("a valid response")
}

fn tls_acceptor(alpn: &[u8]) -> TlsAcceptor {
    let mut config = server_config(ServerCertificate::Good);
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Accepts a SOCKS5 client without authentication (RFC 1928).
async fn accept_socks(io: &mut DuplexStream) -> std::io::Result<()> {
    let mut greeting = [0; 2];
    io.read_exact(&mut greeting).await?;
    io.read_exact(&mut vec![0; greeting[1].into()]).await?;
    io.write_all(&[5, 0]).await?;
    let mut head = [0; 4];
    io.read_exact(&mut head).await?;
    let address_length = match head[3] {
        1 => 4,
        4 => 16,
        _ => io.read_u8().await?.into(),
    };
    io.read_exact(&mut vec![0; address_length + 2]).await?;
    io.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

async fn accept_connect(io: &mut DuplexStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
    }
    io.write_all(CONNECTED).await
}

/// A stream that logs the bytes that are read from it.
struct RecordingStream<S> {
    io: S,
    connection: usize,
    origin: Origin,
}

impl<S: AsyncRead + Unpin> AsyncRead for RecordingStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let filled = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let mut log = self.origin.0.lock().expect("not poisoned");
        log.connections[self.connection].extend_from_slice(&buffer.filled()[filled..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RecordingStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
