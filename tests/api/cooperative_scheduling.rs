//! Streams and bodies that are always ready: they yield to other tasks and to their timeouts.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::body_streams::TempDir;
use crate::support::raw_server::{RawResponse, RawServer};
#[cfg(all(feature = "http2", feature = "tls"))]
use crate::support::{
    alpn_server::{AlpnServer, PLAINTEXT_SERVER},
    http2_frames::{DATA, END_HEADERS, HEADERS, Http2Peer, STATUS_200},
};
use bytes::Bytes;
use fanout::{Body, ErrorKind, Fetcher, FetcherBuilder, Request, Retry, Timeouts};
use futures_core::Stream;
use tokio::task::yield_now;

/// The number of polls after which a stream panics, because its task does not yield.
const MAX_POLLS: usize = 50_000_000;

/// Yields the same item until `is_stopped` is set.
struct AlwaysReady<T> {
    item: T,
    polls: Arc<AtomicUsize>,
    is_stopped: Arc<AtomicBool>,
}

impl<T: Clone + Unpin> Stream for AlwaysReady<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        let polls = self.polls.fetch_add(1, Relaxed);
        assert!(polls < MAX_POLLS, "the task never yields");
        Poll::Ready((!self.is_stopped.load(Relaxed)).then(|| self.item.clone()))
    }
}

fn always_ready<T>(item: T) -> AlwaysReady<T> {
    AlwaysReady {
        item,
        polls: Arc::default(),
        is_stopped: Arc::default(),
    }
}

#[derive(Clone)]
struct EmptyChunk;

impl From<EmptyChunk> for Bytes {
    fn from(_: EmptyChunk) -> Self {
        Bytes::new()
    }
}

/// Adapts a stream of items to a stream of results.
struct Chunks<T>(AlwaysReady<T>);

impl<T: Clone + Unpin> Stream for Chunks<T> {
    type Item = Result<T, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|item| item.map(Ok))
    }
}

fn endless_empty_chunks() -> Chunks<EmptyChunk> {
    Chunks(always_ready(EmptyChunk))
}

/// Starts a server that reads requests and does not respond. Returns a Fetcher and the URL for
/// HTTP/1.1 and, with the feature, for HTTP/2.
fn silent_servers(builder: impl Fn() -> FetcherBuilder) -> Vec<(Fetcher, String)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || std::io::copy(&mut socket, &mut std::io::sink()));
        }
    });
    #[allow(unused_mut)]
    let mut servers = vec![(builder().build().unwrap(), url.clone())];
    #[cfg(feature = "http2")]
    servers.push((builder().http2_prior_knowledge().build().unwrap(), url));
    servers
}

#[tokio::test]
async fn empty_chunks_of_a_request_body_do_not_block_other_tasks() {
    for (fetcher, url) in silent_servers(|| Fetcher::builder().retry(Retry::off())) {
        let chunks = endless_empty_chunks();
        let is_stopped = Arc::clone(&chunks.0.is_stopped);
        let upload = tokio::spawn(fetcher.fetch(Request::put(url).body(Body::stream(chunks))));
        for _ in 0..100 {
            yield_now().await;
        }
        is_stopped.store(true, Relaxed);
        upload.abort();
    }
}

#[tokio::test]
async fn response_head_timeout_ends_a_request_body_of_empty_chunks() {
    let timeouts = Timeouts::default().response_head(Duration::from_millis(50));
    let builder = || {
        Fetcher::builder()
            .retry(Retry::off())
            .timeouts(timeouts.clone())
    };
    for (fetcher, url) in silent_servers(builder) {
        let body = Body::stream(endless_empty_chunks());
        let error = fetcher
            .fetch(Request::put(url).body(body))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResponseHeadTimeout);
    }
}

#[tokio::test]
async fn cancelled_upload_of_empty_chunks_ends() {
    for (fetcher, url) in silent_servers(Fetcher::builder) {
        let body = Body::stream(endless_empty_chunks());
        let batch = fetcher.batch([Request::put(url).body(body)]);
        let handle = batch.handle();
        let cancel = async {
            for _ in 0..100 {
                yield_now().await;
            }
            handle.cancel();
        };
        let (results, ()) = tokio::join!(batch.gather(), cancel);
        assert_eq!(
            results[0].as_ref().unwrap_err().kind(),
            ErrorKind::Cancelled
        );
    }
}

#[tokio::test]
async fn deadline_ends_a_batch_of_inputs_that_are_always_ready() {
    let fetcher = Fetcher::new();
    for input in ["not a URL", "http://127.0.0.1:1/"] {
        let batch = fetcher.batch_from_stream(always_ready(input));
        let mut results = batch.deadline(Duration::from_millis(50)).as_completed();
        let mut count = 0;
        while let Some(completed) = results.next().await {
            assert!(completed.result.is_err());
            count += 1;
        }
        assert!(count > 0);
    }
}

#[tokio::test]
async fn inputs_that_are_always_ready_do_not_block_other_tasks() {
    let inputs = always_ready("not a URL");
    let is_stopped = Arc::clone(&inputs.is_stopped);
    let pulled = Arc::clone(&inputs.polls);
    let run = tokio::spawn(async move {
        let results = Fetcher::new().batch_from_stream(inputs).look_ahead(60_000);
        let mut results = results.concurrency(1).as_completed();
        while results.next().await.is_some() {}
    });
    yield_now().await;
    is_stopped.store(true, Relaxed);
    run.await.unwrap();
    let pulled = pulled.load(Relaxed);
    assert!((1..1_000).contains(&pulled), "{pulled}");
}

#[tokio::test]
async fn small_chunks_of_a_response_do_not_block_other_tasks() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let flood = "1\r\n.\r\n".repeat(20_000);
    let server = RawServer::responding(RawResponse::repeat(head, flood));
    let turns = Arc::new(AtomicUsize::new(0));
    let other_task = tokio::spawn({
        let turns = Arc::clone(&turns);
        poll_fn(move |cx| {
            turns.fetch_add(1, Relaxed);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        })
    });
    let read = Fetcher::new().fetch(server.url("/")).read_with({
        move |mut response| {
            let turns = Arc::clone(&turns);
            async move {
                let (mut last_turn, mut chunks_in_turn, mut max_chunks_in_turn) = (0, 0, 0);
                for _ in 0..100_000 {
                    response.next().await.unwrap()?;
                    chunks_in_turn += 1;
                    if std::mem::replace(&mut last_turn, turns.load(Relaxed)) != last_turn {
                        chunks_in_turn = 0;
                    }
                    max_chunks_in_turn = chunks_in_turn.max(max_chunks_in_turn);
                }
                Ok(max_chunks_in_turn)
            }
        }
    });
    let max_chunks_in_turn = read.await.unwrap();
    other_task.abort();
    assert!(max_chunks_in_turn < 300, "{max_chunks_in_turn}");
}

#[cfg(all(feature = "http2", feature = "tls"))]
#[tokio::test]
async fn flood_of_empty_http2_data_frames_ends_the_exchange() {
    let server = AlpnServer::with_handler(PLAINTEXT_SERVER, |socket, _| async move {
        let mut peer = Http2Peer::handshake(socket).await;
        let stream_id = peer.read_until(HEADERS).await.unwrap();
        peer.write_frame(HEADERS, END_HEADERS, stream_id, STATUS_200)
            .await;
        for _ in 0..10_000_000 {
            peer.write_frame(DATA, 0, stream_id, &[]).await;
        }
    });
    let timeouts = Timeouts::default()
        .body_idle(Duration::from_millis(200))
        .total(None);
    let fetcher = Fetcher::builder().retry(Retry::off()).timeouts(timeouts);
    let fetcher = fetcher.http2_prior_knowledge().build().unwrap();
    let error = fetcher.fetch(server.url("/")).await.unwrap_err();
    let expected = [ErrorKind::BodyIdleTimeout, ErrorKind::Protocol];
    assert!(expected.contains(&error.kind()), "{error:?}");
}

#[tokio::test]
async fn body_idle_timeout_ends_a_service_body_of_empty_chunks() {
    let app = axum::Router::new()
        .fallback(|| async { axum::body::Body::from_stream(endless_empty_chunks()) });
    let timeouts = Timeouts::default().body_idle(Duration::from_millis(50));
    let fetcher = Fetcher::builder().retry(Retry::off()).timeouts(timeouts);
    let fetcher = fetcher.transport(app).build().unwrap();
    let error = fetcher.fetch("http://a.example/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BodyIdleTimeout);
}

#[cfg(unix)]
#[tokio::test]
async fn body_file_of_a_fifo_or_a_device_is_an_unsent_error() {
    let directory = TempDir::new();
    let fifo = directory.path("fifo");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(made.success());
    let cases = [
        (fifo, "not a regular file; use `Body::stream`"),
        ("/dev/zero".into(), "not a regular file; use `Body::stream`"),
        ("/dev/null".into(), "not a regular file; use `Body::stream`"),
        (directory.path(""), "it is a directory"),
    ];
    for (path, reason) in cases {
        let request = Request::put("http://127.0.0.1:1/").body(Body::file(&path));
        let error = Fetcher::new().fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestBody, "{path:?}");
        assert!(!error.maybe_sent(), "{path:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(reason), "{source}");
    }
}
