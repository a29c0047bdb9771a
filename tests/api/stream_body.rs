//! Responses whose body the caller of a fetch reads (`Fetch::stream_body`).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::support::body_streams::{
    CHUNK_SIZE, ChunkCounter, IntervalStream, StreamEnd, chunk_stream, interval_bytes, listen,
    read_head, wait_until, write,
};
use crate::support::encoding_server::{EncodedResponse, Framing, encode, serve};
use crate::support::server::{FaultServer, expected_body, pattern_bytes, refused_url};
use bytes::Bytes;
use fanout::{
    Body, BodyProgress, Error, ErrorKind, Fetcher, Mock, MockResponse, Outcome, Request, Result,
    Retry, StreamingResponse, Timeouts,
};
use http_body::Body as _;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::sleep;

fn fetcher_with_short_backoff() -> Fetcher {
    let retry = Retry::default()
        .base_delay(Duration::from_millis(1))
        .throttled_base_delay(Duration::from_millis(1));
    Fetcher::builder().retry(retry).build().unwrap()
}

fn fetcher_with_one_slot() -> Fetcher {
    Fetcher::builder().concurrency(1).build().unwrap()
}

/// Reads the body to its end or to its error. Asserts that the stream ends after either.
async fn read_to_end(response: &mut StreamingResponse) -> (Vec<u8>, Option<Error>) {
    let mut bytes = Vec::new();
    let mut error = None;
    while let Some(chunk) = response.next().await {
        assert!(error.is_none(), "an item after {error:?}");
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(failure) => error = Some(failure),
        }
    }
    assert!(response.next().await.is_none());
    assert!(response.is_end_stream());
    (bytes, error)
}

async fn read_complete(mut response: StreamingResponse) -> Vec<u8> {
    let (bytes, error) = read_to_end(&mut response).await;
    assert!(error.is_none(), "{error:?}");
    bytes
}

/// Whether the stream yields nothing at the moment.
async fn is_pending(response: &mut StreamingResponse) -> bool {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *response).poll_frame(cx).is_pending())).await
}

/// The completed requests and the requests in flight.
fn counts(fetcher: &Fetcher) -> (usize, usize) {
    let snapshot = fetcher.snapshot();
    let progress = snapshot.progress();
    (progress.completed(), progress.in_flight())
}

async fn wait_until_idle(fetcher: &Fetcher) {
    wait_until(|| {
        let snapshot = fetcher.snapshot();
        snapshot.progress().in_flight() == 0
            && snapshot.open_connections() == snapshot.idle_connections()
    })
    .await;
}

#[tokio::test]
async fn head_arrives_before_the_body_is_sent() {
    let (listener, url) = listen().await;
    let (send_body, body_is_due) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_head(&mut socket).await;
        write(
            &mut socket,
            "HTTP/1.1 203 Any\r\nx-a: b\r\ncontent-length: 4\r\n\r\n",
        )
        .await;
        body_is_due.await.unwrap();
        write(&mut socket, "body").await;
        socket
    });
    let fetcher = Fetcher::new();
    let mut response = fetcher.fetch(&url).stream_body().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.length()),
        (203, Some(4))
    );
    assert_eq!(response.headers()["x-a"], "b");
    assert_eq!(response.url().as_str(), url);
    assert!(is_pending(&mut response).await);
    assert_eq!(counts(&fetcher), (0, 1));
    send_body.send(()).unwrap();
    assert_eq!(read_complete(response).await, b"body");
    drop(server.await.unwrap());
}

#[tokio::test]
async fn complete_body_frees_its_slot_and_its_connection() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_one_slot();
    for (number, path) in [
        "/bytes/300000",
        "/big/300000",
        "/bytes/1",
        "/big/1",
        "/bytes/300000",
    ]
    .into_iter()
    .enumerate()
    {
        let fetch = fetcher.fetch(server.url(path)).stream_body();
        let mut response = tokio::spawn(fetch).await.unwrap().unwrap();
        let length = path.rsplit('/').next().unwrap().parse().unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < length {
            bytes.extend_from_slice(&response.next().await.unwrap().unwrap());
        }
        if path.starts_with("/big") {
            assert!(response.next().await.is_none());
        }
        assert!(bytes == pattern_bytes(length), "{path}");
        assert!(response.is_end_stream());
        // The response is still alive.
        assert_eq!(counts(&fetcher), (number + 1, 0), "{path}");
        assert!(response.next().await.is_none());
    }
    assert_eq!(server.counts().total_connections, 1);
}

#[tokio::test]
async fn response_without_a_body_is_complete_with_its_head() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_one_slot();
    let requests = [
        Request::get(server.url("/bytes/0")),
        Request::get(server.url("/status/204")),
        Request::head(server.url("/bytes/100")),
    ];
    for (number, request) in requests.into_iter().enumerate() {
        let response = fetcher.fetch(request).stream_body().await.unwrap();
        assert!(response.is_end_stream());
        assert_eq!(response.size_hint().exact(), Some(0));
        assert_eq!(counts(&fetcher), (number + 1, 0));
        assert_eq!(read_complete(response).await, b"");
    }
    assert_eq!(server.counts().total_connections, 1);
}

#[tokio::test]
async fn retries_and_redirects_happen_before_the_head() {
    let server = FaultServer::start();
    for (path, requests, status, attempts, redirects) in [
        ("/flaky/a/2/503", 3, 200, 3, 0),
        ("/flaky/b/2/reset-before", 3, 200, 3, 0),
        ("/hops/3", 4, 200, 1, 3),
        ("/status/503", 3, 503, 3, 0),
        ("/gone", 1, 410, 1, 0),
    ] {
        server.reset();
        let fetcher = fetcher_with_short_backoff();
        let fetch = fetcher.fetch(server.url(path)).stream_body();
        let response = fetch.await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.attempts().len(), attempts, "{path}");
        assert_eq!(response.redirects().len(), redirects, "{path}");
        assert!(
            response.timings().response_head() > Duration::ZERO,
            "{path}"
        );
        assert!(!read_complete(response).await.is_empty(), "{path}");
        assert_eq!(server.counts().requests, requests, "{path}");
    }
}

#[tokio::test]
async fn cut_body_is_an_error_of_the_stream_and_is_not_retried() {
    let server = FaultServer::start();
    for (path, kind) in [
        ("/truncated", ErrorKind::Truncated),
        ("/truncated-chunks", ErrorKind::Truncated),
        ("/reset-after-head", ErrorKind::Reset),
    ] {
        server.reset();
        let fetcher = fetcher_with_short_backoff();
        let url = server.url(path);
        let mut response = fetcher.fetch(&url).stream_body().await.unwrap();
        let (bytes, error) = read_to_end(&mut response).await;
        let error = error.unwrap_or_else(|| panic!("{path}: {bytes:?}"));
        assert_eq!((error.kind(), error.url()), (kind, Some(&*url)), "{path}");
        assert_eq!(error.attempts().len(), 1, "{path}");
        assert_eq!(
            error.attempts()[0].outcome(),
            Outcome::Error(kind),
            "{path}"
        );
        assert!(error.maybe_sent(), "{path}");
        assert_eq!(server.counts().requests, 1, "{path}");
        let snapshot = fetcher.snapshot();
        assert_eq!(snapshot.progress().failed(), 1, "{path}");
        assert_eq!(snapshot.progress().in_flight(), 0, "{path}");
    }
}

#[tokio::test]
async fn stalled_body_is_a_timeout_of_the_stream() {
    let server = FaultServer::start();
    let timeouts = Timeouts::default().body_idle(Duration::from_millis(50));
    let fetcher = Fetcher::builder().timeouts(timeouts).build().unwrap();
    let fetch = fetcher.fetch(server.url("/stall-body")).stream_body();
    let (_, error) = read_to_end(&mut fetch.await.unwrap()).await;
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::BodyIdleTimeout);
    assert!(error.to_string().contains("50ms"), "{error}");
    server.wait_for_in_flight(0).await;
}

/// A `Fetcher` whose transport responds with the body from `body`.
fn fetcher_with_body(
    body: impl Fn() -> Body + Clone + Send + Sync + 'static,
    timeouts: Timeouts,
) -> Fetcher {
    let app = axum::Router::new().fallback(move || {
        let body = body();
        async move { axum::body::Body::new(body) }
    });
    let builder = Fetcher::builder().transport(app).timeouts(timeouts);
    builder.build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn timeouts_exclude_consumer_time_and_include_peer_time() {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts::default().total(second).body_idle(10 * second);
    for (interval, ends_in_timeout) in [(9 * second, false), (11 * second, true)] {
        let body = move || Body::stream(interval_bytes(interval, 4));
        let fetcher = fetcher_with_body(body, timeouts.clone());
        let request = Request::get("http://a.example/").timeout(second);
        let mut response = fetcher.fetch(request).stream_body().await.unwrap();
        let mut chunks = 0;
        let error = loop {
            sleep(3600 * second).await;
            match response.next().await {
                Some(Ok(_)) => chunks += 1,
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        if ends_in_timeout {
            assert_eq!(error.unwrap().kind(), ErrorKind::BodyIdleTimeout);
        } else {
            assert!(error.is_none(), "{error:?}");
            assert_eq!(chunks, 4);
        }
    }
}

#[tokio::test]
async fn dropped_response_closes_its_connection_and_frees_its_slot() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_one_slot();
    for chunks in [0, 1, 3] {
        server.reset();
        let fetch = fetcher.fetch(server.url("/endless")).stream_body();
        let mut response = fetch.await.unwrap();
        for _ in 0..chunks {
            response.next().await.unwrap().unwrap();
        }
        let next = tokio::spawn(fetcher.fetch(server.url("/ok/1")));
        wait_until(|| fetcher.snapshot().progress().waiting().total() == 1).await;
        assert_eq!(server.request_count_for("/ok/1"), 0);
        drop(response);
        let next = next.await.unwrap().unwrap();
        assert_eq!(next.bytes()[..], expected_body(1));
        server.wait_for_in_flight(0).await;
        wait_until_idle(&fetcher).await;
    }
}

#[tokio::test]
async fn dropped_response_with_a_pending_read_frees_its_slot() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_one_slot();
    let fetch = fetcher.fetch(server.url("/stall-body")).stream_body();
    let mut response = fetch.await.unwrap();
    response.next().await.unwrap().unwrap();
    assert!(is_pending(&mut response).await);
    drop(response);
    fetcher.fetch(server.url("/ok/1")).await.unwrap();
    server.wait_for_in_flight(0).await;
    assert_eq!(counts(&fetcher), (1, 0));
}

#[tokio::test]
async fn failure_before_the_head_is_the_result_of_the_fetch() {
    let server = FaultServer::start();
    let fetcher = fetcher_with_short_backoff();
    let failing_body = Body::stream(chunk_stream(&["a"], StreamEnd::Fail));
    for (request, kind, attempts) in [
        (Request::get(refused_url()), ErrorKind::Connect, 3),
        (Request::get("not a URL"), ErrorKind::InvalidRequest, 0),
        (
            Request::get(server.url("/ok/1")).save_to("never"),
            ErrorKind::InvalidRequest,
            0,
        ),
        (Request::get(server.url("/half-head")), ErrorKind::Closed, 3),
        (
            Request::put(server.url("/ok/1")).body(failing_body),
            ErrorKind::RequestBody,
            1,
        ),
    ] {
        let error = fetcher.fetch(request).stream_body().await.unwrap_err();
        assert_eq!((error.kind(), error.attempts().len()), (kind, attempts));
    }
    assert_eq!(counts(&fetcher).1, 0);
}

#[tokio::test]
async fn error_for_status_has_the_url_and_cancels_the_request() {
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().retry(Retry::off()).build().unwrap();
    let url = server.url("/flaky/a/1/endless");
    let response = fetcher.fetch(&url).stream_body().await.unwrap();
    let mut response = response.error_for_status().unwrap();
    response.next().await.unwrap().unwrap();
    drop(response);
    let url = server.url("/status/404");
    let response = fetcher.fetch(&url).stream_body().await.unwrap();
    let error = response.error_for_status().unwrap_err();
    assert_eq!(
        (error.kind(), error.url()),
        (ErrorKind::Status, Some(&*url))
    );
    assert_eq!(error.attempts().len(), 1);
    assert_eq!(error.response().unwrap().status(), 404);
    wait_until_idle(&fetcher).await;
}

#[tokio::test]
async fn progress_counts_bytes_as_they_arrive_and_the_request_once() {
    let (listener, url) = listen().await;
    let (send_rest, rest_is_due) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_head(&mut socket).await;
        write(
            &mut socket,
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n1234",
        )
        .await;
        rest_is_due.await.unwrap();
        write(&mut socket, "567890").await;
        let _ = read_head(&mut socket).await;
    });
    let progress = BodyProgress::new();
    let fetcher = Fetcher::new();
    let request = Request::get(url).body_progress(&progress);
    let mut response = fetcher.fetch(request).stream_body().await.unwrap();
    assert_eq!(response.size_hint().exact(), Some(10));
    response.next().await.unwrap().unwrap();
    assert_eq!(
        (progress.received_bytes(), progress.total_bytes()),
        (4, Some(10))
    );
    assert_eq!(response.size_hint().exact(), Some(6));
    assert_eq!(response.length(), Some(10));
    assert_eq!(fetcher.snapshot().progress().body_bytes(), 4);
    assert_eq!(counts(&fetcher), (0, 1));
    send_rest.send(()).unwrap();
    response.next().await.unwrap().unwrap();
    assert_eq!(progress.received_bytes(), 10);
    assert_eq!(response.size_hint().exact(), Some(0));
    assert_eq!(fetcher.snapshot().progress().body_bytes(), 10);
    assert_eq!(counts(&fetcher), (1, 0));
    drop(response);
    assert_eq!(fetcher.snapshot().progress().body_bytes(), 10);
    assert_eq!(counts(&fetcher), (1, 0));
}

#[tokio::test]
async fn encoded_body_is_decoded_unless_decoding_is_off() {
    let plain = pattern_bytes(300_000);
    let encoded = encode("gzip", &plain);
    let served = encoded.clone();
    let address = serve(move |head| {
        let length = if head.contains(" /cut ") {
            served.len() / 2
        } else {
            served.len()
        };
        EncodedResponse::coded("gzip", served[..length].to_vec(), Framing::Length)
    });
    let fetcher = Fetcher::new();
    let url = format!("http://{address}/whole");
    let response = fetcher.fetch(&url).stream_body().await.unwrap();
    assert_eq!(
        (response.length(), response.size_hint().exact()),
        (None, None)
    );
    assert!(response.headers().is_empty(), "{:?}", response.headers());
    assert!(read_complete(response).await == plain);

    let as_received = Request::get(&url).decode_content(false);
    let response = fetcher.fetch(as_received).stream_body().await.unwrap();
    assert_eq!(response.length(), Some(encoded.len() as u64));
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(read_complete(response).await == encoded);

    let fetch = fetcher.fetch(format!("http://{address}/cut")).stream_body();
    let (bytes, error) = read_to_end(&mut fetch.await.unwrap()).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::ContentEncoding);
    assert!(bytes.len() < plain.len());
}

#[tokio::test]
async fn body_limit_does_not_apply_to_a_streamed_body() {
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().max_body_size(1000).build().unwrap();
    for path in ["/bytes/50000", "/big/50000"] {
        let fetch = fetcher.fetch(server.url(path)).stream_body();
        assert_eq!(read_complete(fetch.await.unwrap()).await.len(), 50_000);
    }
}

#[tokio::test]
async fn many_responses_are_read_in_other_tasks() {
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().concurrency(5).build().unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let path = ["/bytes/100000", "/big/100000"][number % 2];
            let fetch = fetcher.fetch(server.url(path)).stream_body();
            tokio::spawn(async move { read_complete(fetch.await.unwrap()).await })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap() == pattern_bytes(100_000));
    }
    assert!(server.counts().max_in_flight <= 5);
    assert_eq!(counts(&fetcher), (100, 0));
}

fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn response_is_readable_outside_of_its_runtime() {
    let server = FaultServer::start();
    let (own, other) = (multi_thread(), multi_thread());
    let fetcher = Fetcher::new();
    let fetch = fetcher.fetch(server.url("/big/300000")).stream_body();
    let response = own.block_on(fetch).unwrap();
    let read = other.spawn(read_complete(response));
    assert!(other.block_on(read).unwrap() == pattern_bytes(300_000));
    assert_eq!(counts(&fetcher), (1, 0));
}

#[test]
fn shutdown_of_its_runtime_is_an_error_of_the_stream() {
    let server = FaultServer::start();
    for is_read_pending in [false, true] {
        let (own, other) = (multi_thread(), multi_thread());
        let fetcher = Fetcher::new();
        let fetch = fetcher.fetch(server.url("/stall-body")).stream_body();
        let mut response = own.block_on(fetch).unwrap();
        let mut read_bytes = 0;
        if is_read_pending {
            read_bytes = other.block_on(response.next()).unwrap().unwrap().len();
            assert!(other.block_on(is_pending(&mut response)));
        }
        let read = other.spawn(async move { read_to_end(&mut response).await });
        drop(own);
        let (bytes, error) = other.block_on(read).unwrap();
        assert!(read_bytes + bytes.len() < expected_body(0).len());
        assert_eq!(error.unwrap().kind(), ErrorKind::Cancelled);
        assert_eq!(counts(&fetcher).1, 0);
        // The Fetcher works on another runtime.
        let response = other.block_on(fetcher.fetch(server.url("/ok/1")));
        assert_eq!(response.unwrap().bytes()[..], expected_body(1));
    }
}

#[tokio::test(start_paused = true)]
async fn mock_transport_streams_bodies_and_their_errors() {
    let mock = Mock::new()
        .on("http://a.example/text", "hello")
        .on(
            "http://a.example/stall",
            MockResponse::text("half").stall_body(),
        )
        .on("http://a.example/busy", MockResponse::status(503))
        .then("later");
    let fetcher = Fetcher::builder().transport(mock.clone()).build().unwrap();
    let fetch = |path: &str| {
        fetcher
            .fetch(format!("http://a.example/{path}"))
            .stream_body()
    };
    assert_eq!(read_complete(fetch("text").await.unwrap()).await, b"hello");
    let response = fetch("busy").await.unwrap();
    assert_eq!(response.attempts().len(), 2);
    assert_eq!(read_complete(response).await, b"later");
    let (bytes, error) = read_to_end(&mut fetch("stall").await.unwrap()).await;
    assert_eq!(
        (&bytes[..], error.unwrap().kind()),
        (&b"half"[..], ErrorKind::BodyIdleTimeout)
    );
    drop(fetch("stall").await.unwrap());
    wait_until(|| mock.in_flight() == 0).await;
}

#[tokio::test]
async fn unread_response_reads_one_chunk_per_request_of_its_consumer() {
    let counter = ChunkCounter::default();
    let shared = counter.clone();
    let body = move || {
        let counter = shared.clone();
        Body::stream(IntervalStream::new(Duration::ZERO, 100, move || {
            counter.make_chunk()
        }))
    };
    let fetcher = fetcher_with_body(body, Timeouts::default());
    let fetch = fetcher.fetch("http://a.example/").stream_body();
    let mut response = fetch.await.unwrap();
    for read in 0..100 {
        sleep(Duration::from_millis(1)).await;
        assert_eq!(counter.made(), read);
        let chunk = response.next().await.unwrap().unwrap();
        assert_eq!((chunk.len(), counter.alive()), (CHUNK_SIZE, 1));
    }
    assert!(response.next().await.is_none());
}

#[test]
fn streaming_response_can_be_shared_between_threads() {
    fn assert_send_and_sync<T: Send + Sync + Unpin + 'static>() {}
    assert_send_and_sync::<StreamingResponse>();
}

#[tokio::test]
async fn item_type_of_the_stream_is_a_result_of_bytes() {
    fn assert_stream<S: futures_core::Stream<Item = Result<Bytes>>>(stream: S) -> S {
        stream
    }
    let server = FaultServer::start();
    let fetch = Fetcher::new().fetch(server.url("/ok/1")).stream_body();
    let body = axum::body::Body::from_stream(assert_stream(fetch.await.unwrap()));
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    assert_eq!(bytes[..], expected_body(1));
}

#[cfg(feature = "http2")]
mod over_http2 {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::service::TowerToHyperService;

    use super::*;

    /// A clone of an `Arc` for each body that exists.
    #[derive(Clone)]
    struct BodyGuard(#[allow(dead_code)] Arc<()>);

    /// Starts an HTTP/2 server with bodies of `count` chunks of 10,000 bytes. Returns its URL.
    async fn start_server(bodies: &Arc<()>) -> String {
        let (listener, url) = listen().await;
        let bodies = Arc::clone(bodies);
        let respond = move |axum::extract::Path(count): axum::extract::Path<usize>| {
            let guard = BodyGuard(Arc::clone(&bodies));
            async move {
                let chunks = IntervalStream::new(Duration::ZERO, count, move || {
                    let _guard = &guard;
                    Bytes::from_static(&[7; 10_000])
                });
                axum::body::Body::new(Body::stream(chunks))
            }
        };
        let app = axum::Router::new().route("/{count}", axum::routing::get(respond));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(app.clone());
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        url
    }

    #[tokio::test]
    async fn bodies_are_read_and_dropped_over_one_http2_connection() {
        let bodies = Arc::new(());
        let url = start_server(&bodies).await;
        let builder = Fetcher::builder().http2_prior_knowledge().concurrency(2);
        let fetcher = builder.build().unwrap();
        let fetch = |count: usize| fetcher.fetch(format!("{url}{count}")).stream_body();
        let baseline = Arc::strong_count(&bodies);
        let response = fetch(300).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(read_complete(response).await, [7; 3_000_000]);
        // An unread response does not stop others on its connection.
        let mut unread = fetch(1_000_000).await.unwrap();
        assert_eq!(
            read_complete(fetch(300).await.unwrap()).await.len(),
            3_000_000
        );
        unread.next().await.unwrap().unwrap();
        drop(unread);
        // The stream was reset, so the server drops its body.
        wait_until(|| Arc::strong_count(&bodies) == baseline).await;
        assert_eq!(read_complete(fetch(0).await.unwrap()).await, b"");
        assert_eq!(fetcher.snapshot().open_connections(), 1);
        assert_eq!(counts(&fetcher), (3, 0));
    }
}
