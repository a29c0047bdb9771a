//! HTTP/2 with prior knowledge, against h2's own server side and against frames made by hand.

mod basics;
mod faults;
mod frames;
mod going_away;
mod life;
mod streams;

use std::future::{Future, pending};

use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::{Response, StatusCode};
use std::pin::Pin;
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::*;
use crate::wire::Protocols;

type Serving = server::Connection<TcpStream, Bytes>;
type Answer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A server on a thread and a runtime of its own.
struct Peer {
    port: u16,
    accepted: Arc<AtomicUsize>,
    /// Streams open now, and the most that were at once.
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
}

impl Peer {
    /// Runs `handler` on each connection, with the number of connections before it.
    fn raw<F>(handler: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let peer = Self {
            port: listener.local_addr().unwrap().port(),
            accepted: Arc::default(),
            open: Arc::default(),
            most: Arc::default(),
            served: Arc::default(),
        };
        let accepted = Arc::clone(&peer.accepted);
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
        peer
    }

    /// Answers each request with `answer`, on connections that allow so many streams.
    fn new(
        streams: u32,
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        let counts: [Arc<AtomicUsize>; 3] = Default::default();
        let counters = counts.clone();
        let mut peer = Self::raw(move |stream, _| {
            let (answer, counters) = (Arc::clone(&answer), counters.clone());
            async move {
                let mut builder = server::Builder::new();
                builder.max_concurrent_streams(streams);
                let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
                    return;
                };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let [open, most, served] = counters.clone();
                    most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                    let answer = answer(request, respond);
                    tokio::spawn(async move {
                        answer.await;
                        open.fetch_sub(1, SeqCst);
                        served.fetch_add(1, SeqCst);
                    });
                }
            }
        });
        [peer.open, peer.most, peer.served] = counts;
        peer
    }

    /// Answers "ok" after so many milliseconds.
    fn answering(streams: u32, after: u64) -> Self {
        Self::new(streams, move |_, respond| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                say_ok(respond);
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

fn say_ok(mut respond: SendResponse<Bytes>) {
    if let Ok(mut body) = respond.send_response(ok(), false) {
        let _ = body.send_data(Bytes::from_static(b"ok"), true);
    }
}

/// Serves the next request of a connection.
async fn serve_one(connection: &mut Serving) {
    if let Some(Ok((_, respond))) = connection.accept().await {
        say_ok(respond);
    }
}

/// Drives a connection until the client closes it.
async fn drive(mut connection: Serving) {
    while connection.accept().await.is_some() {}
}

fn client() -> Client {
    Client::with(prior())
}

fn prior() -> Config {
    Config {
        protocols: Protocols::PriorKnowledge,
        ..Config::default()
    }
}

impl Client {
    /// So many exchanges at once.
    async fn fetch_many(&self, port: u16, count: usize) -> Vec<Result<Bytes, ErrorKind>> {
        let exchanges = (0..count).map(|_| async move {
            let progress = Progress::new(Instant::now());
            progress.reset(Instant::now());
            let origin = format!("http://127.0.0.1:{port}");
            let target = plain(&origin, port);
            let sent = self
                .wire
                .send(&target, &mut Some(get()), Reuse::Pooled, &progress)
                .await;
            let (_, mut incoming) = sent.map_err(|failure| failure.error.kind())?;
            let mut body = Vec::new();
            while let Some(chunk) = incoming.chunk(&progress).await {
                body.extend_from_slice(&chunk.map_err(|error| error.kind())?);
            }
            Ok(Bytes::from(body))
        });
        join_all(exchanges.collect()).await
    }
}

/// Polls all of them until all are done.
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
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
