//! HTTP/2 with prior knowledge, against h2's server and against hand-written frames.

mod basics;
mod faults;
mod frames;
mod goaway;
mod lifetime;
mod streams;

use std::future::{Future, pending};

use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::{Response, StatusCode};
use std::pin::Pin;
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::*;
use crate::wire::HttpVersionPolicy;

type ServerConnection = server::Connection<TcpStream, Bytes>;
type ResponseFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An HTTP/2 server on its own thread and runtime.
struct Http2Server {
    port: u16,
    accepted: Arc<AtomicUsize>,
    /// The number of currently open streams.
    open: Arc<AtomicUsize>,
    /// The maximum number of streams that were open at once.
    max_open: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
}

impl Http2Server {
    /// Calls `handler` with each connection and the number of earlier connections.
    fn with_connection_handler<F>(
        handler: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            accepted: Arc::default(),
            open: Arc::default(),
            max_open: Arc::default(),
            served: Arc::default(),
        };
        let accepted = Arc::clone(&server.accepted);
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let before = accepted.fetch_add(1, SeqCst);
                    tokio::spawn(handler(stream, before));
                }
            });
        });
        server
    }

    /// Calls `responder` with each request. A connection allows `streams` concurrent streams.
    fn with_responder(
        streams: u32,
        responder: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> ResponseFuture
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let responder = Arc::new(responder);
        let counts: [Arc<AtomicUsize>; 3] = Default::default();
        let counters = counts.clone();
        let mut server = Self::with_connection_handler(move |stream, _| {
            let (responder, counters) = (Arc::clone(&responder), counters.clone());
            async move {
                let mut builder = server::Builder::new();
                builder.max_concurrent_streams(streams);
                let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
                    return;
                };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let [open, max_open, served] = counters.clone();
                    max_open.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                    let response = responder(request, respond);
                    tokio::spawn(async move {
                        response.await;
                        open.fetch_sub(1, SeqCst);
                        served.fetch_add(1, SeqCst);
                    });
                }
            }
        });
        [server.open, server.max_open, server.served] = counts;
        server
    }

    /// Responds "ok" after `delay_ms` milliseconds.
    fn responding(streams: u32, delay_ms: u64) -> Self {
        Self::with_responder(streams, move |_, respond| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                respond_ok(respond);
            })
        })
    }

    fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

fn ok() -> Response<()> {
    Response::builder().status(StatusCode::OK).body(()).unwrap()
}

fn respond_ok(mut respond: SendResponse<Bytes>) {
    if let Ok(mut body) = respond.send_response(ok(), false) {
        let _ = body.send_data(Bytes::from_static(b"ok"), true);
    }
}

/// Responds "ok" to the next request of a connection.
async fn respond_to_next(connection: &mut ServerConnection) {
    if let Some(Ok((_, respond))) = connection.accept().await {
        respond_ok(respond);
    }
}

/// Drives a connection until the client closes it.
async fn serve_until_closed(mut connection: ServerConnection) {
    while connection.accept().await.is_some() {}
}

fn prior_knowledge_client() -> Client {
    Client::with(prior_knowledge_config())
}

fn prior_knowledge_config() -> WireConfig {
    WireConfig {
        http_version_policy: HttpVersionPolicy::PriorKnowledge,
        ..WireConfig::default()
    }
}

impl Client {
    /// Runs `count` concurrent exchanges.
    async fn fetch_many(&self, port: u16, count: usize) -> Vec<Result<Bytes, ErrorKind>> {
        let exchanges = (0..count).map(|_| async move {
            let clock = HopClock::new(Instant::now());
            clock.reset_for_new_hop(Instant::now());
            let origin = format!("http://127.0.0.1:{port}");
            let target = plain_target(&origin, port);
            let mut sticky_connection = StickyConnection::default();
            let sent = self
                .wire
                .send(
                    &target,
                    &mut Some(get()),
                    ConnectionSource::Pooled,
                    &clock,
                    &mut sticky_connection,
                )
                .await;
            let (_, mut incoming) = sent.map_err(|failure| failure.error.kind())?;
            let mut body = Vec::new();
            while let Some(chunk) = incoming.next_chunk(&clock, &mut sticky_connection).await {
                body.extend_from_slice(&chunk.map_err(|error| error.kind())?);
            }
            Ok(Bytes::from(body))
        });
        join_all(exchanges.collect()).await
    }
}

/// Polls all futures until each is ready.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| Box::pin(future)).collect();
    let mut done: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in running.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
