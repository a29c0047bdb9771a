//! A reverse proxy: an axum handler that returns a streamed response of its upstream server.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::support::body_streams::{CHUNK_SIZE, ChunkCounter, IntervalStream, listen, wait_until};
use crate::support::encoding_server::encode;
use crate::support::server::{FaultServer, expected_body};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fanout::{Body, ErrorKind, Fetcher, RedirectPolicy};
use http_body::Body as _;
use tokio::time::sleep;

/// The period of the bytes of a large body: a prime, so that no chunk equals the next one.
const PERIOD: usize = 100_003;

const LARGE: u64 = 1600 * CHUNK_SIZE as u64;

/// The bytes of a large body from `offset`.
fn large_body_bytes(offset: u64, length: usize) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let byte = |n| (n % PERIOD * 7 % 256) as u8;
        (0..PERIOD + (4 << 20)).map(byte).collect()
    });
    &BYTES[(offset % PERIOD as u64) as usize..][..length]
}

#[derive(Clone)]
struct Proxy {
    fetcher: Fetcher,
    upstream: String,
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().expect("a path").as_str();
    let mut forwarded = fanout::Request::new(head.method, proxy.upstream + target);
    for name in [header::ACCEPT_ENCODING, header::CONTENT_TYPE] {
        if let Some(value) = head.headers.get(&name) {
            forwarded = forwarded.header(name, value);
        }
    }
    forwarded = match body.size_hint().exact() {
        Some(0) => forwarded,
        Some(length) => forwarded.body(Body::sized_stream(length, body.into_data_stream())),
        None => forwarded.body(Body::stream(body.into_data_stream())),
    };
    let fetch = proxy.fetcher.fetch(forwarded.decode_content(false));
    let Ok(upstream) = fetch.stream_body().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, mut headers) = (upstream.status(), upstream.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    let mut response = Response::new(axum::body::Body::new(upstream));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

async fn start(app: Router) -> String {
    let (listener, url) = listen().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    url.trim_end_matches('/').to_owned()
}

/// Starts a proxy and returns its URL.
async fn start_proxy(fetcher: &Fetcher, upstream: &str) -> String {
    let proxy = Proxy {
        fetcher: fetcher.clone(),
        upstream: upstream.to_owned(),
    };
    start(Router::new().fallback(forward).with_state(proxy)).await
}

fn proxy_fetcher() -> Fetcher {
    let builder = Fetcher::builder().redirect_policy(RedirectPolicy::none());
    builder.build().unwrap()
}

/// A response of [`LARGE`] bytes. `made` is set to the number of bytes that were made so far.
fn large_response(made: &Arc<AtomicU64>, has_length: bool) -> Response {
    let made = Arc::clone(made);
    let chunks = IntervalStream::new(Duration::ZERO, (LARGE as usize) / CHUNK_SIZE, move || {
        let offset = made.fetch_add(CHUNK_SIZE as u64, SeqCst);
        Bytes::from_static(large_body_bytes(offset, CHUNK_SIZE))
    });
    let body = axum::body::Body::new(Body::stream(chunks));
    if has_length {
        return ([(header::CONTENT_LENGTH, LARGE.to_string())], body).into_response();
    }
    body.into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_body_passes_through_with_backpressure() {
    for has_length in [true, false] {
        let made = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&made);
        let respond = move || async move { large_response(&shared, has_length) };
        let upstream = start(Router::new().fallback(respond)).await;
        let fetcher = proxy_fetcher();
        let proxy = start_proxy(&fetcher, &upstream).await;
        let fetch = Fetcher::new().fetch(format!("{proxy}/large")).stream_body();
        let mut response = fetch.await.unwrap();
        assert_eq!(response.length(), has_length.then_some(LARGE));
        // Time in which a proxy without backpressure would read on.
        sleep(Duration::from_millis(300)).await;
        let mut received = 0;
        while let Some(chunk) = response.next().await {
            // The buffers of the four sockets hold some of the bytes.
            let held = made.load(SeqCst) - received;
            assert!(held <= LARGE / 2, "{held} bytes after {received}");
            let chunk = chunk.unwrap();
            assert!(chunk == large_body_bytes(received, chunk.len()));
            received += chunk.len() as u64;
        }
        assert_eq!(received, LARGE);
        wait_until(|| fetcher.snapshot().progress().in_flight() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_holds_few_chunks_of_a_large_body() {
    let counter = ChunkCounter::default();
    let shared = counter.clone();
    let respond = move || {
        let counter = shared.clone();
        let chunks = IntervalStream::new(Duration::ZERO, 1600, move || counter.make_chunk());
        async move { axum::body::Body::new(Body::stream(chunks)) }
    };
    let in_process = Fetcher::builder().transport(Router::new().fallback(respond));
    let proxy = start_proxy(&in_process.build().unwrap(), "http://app.test").await;
    let fetch = Fetcher::new().fetch(format!("{proxy}/large")).stream_body();
    let mut response = fetch.await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let mut received = 0;
    while let Some(chunk) = response.next().await {
        received += chunk.unwrap().len();
    }
    assert_eq!(received, 1600 * CHUNK_SIZE);
    // hyper buffers 400 KiB of a response for its socket.
    let max_alive = counter.max_alive();
    assert!(max_alive <= 16, "{max_alive} chunks");
}

#[tokio::test]
async fn proxy_passes_on_status_headers_and_bytes() {
    let gzip = encode("gzip", b"a compressed text");
    let compressed = gzip.clone();
    let app = Router::new()
        .route(
            "/gzip",
            axum::routing::get(|| async { ([(header::CONTENT_ENCODING, "gzip")], compressed) }),
        )
        .route(
            "/moved",
            axum::routing::get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/gzip")]) }),
        )
        .route("/echo", axum::routing::put(|body: Bytes| async { body }));
    let upstream = start(app).await;
    let fetcher = proxy_fetcher();
    let proxy = start_proxy(&fetcher, &upstream).await;
    let client = proxy_fetcher();

    let response = client.fetch(format!("{proxy}/gzip")).await.unwrap();
    assert_eq!(response.text(), "a compressed text");
    let undecoded = fanout::Request::get(format!("{proxy}/gzip")).decode_content(false);
    let response = client.fetch(undecoded).await.unwrap();
    assert_eq!(response.bytes()[..], gzip);
    assert_eq!(response.headers()["content-length"], gzip.len().to_string());

    let response = client.fetch(format!("{proxy}/moved")).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(response.headers()["location"], "/gzip");
    let head = client.fetch(fanout::Request::head(format!("{proxy}/gzip")));
    let head = head.await.unwrap();
    assert_eq!(head.headers()["content-length"], gzip.len().to_string());
    let response = client.fetch(format!("{proxy}/none")).await.unwrap();
    assert_eq!(response.status(), 404);

    for length in [0, 10, 300_000] {
        let put = fanout::Request::put(format!("{proxy}/echo")).body(vec![5; length]);
        let response = client.fetch(put).await.unwrap();
        assert_eq!(response.bytes()[..], vec![5; length]);
    }
    assert_eq!(fetcher.snapshot().progress().in_flight(), 0);
    assert_eq!(fetcher.snapshot().progress().completed(), 8);
}

#[tokio::test]
async fn body_that_is_cut_upstream_is_cut_for_the_client() {
    let upstream = FaultServer::start();
    let proxy = start_proxy(&proxy_fetcher(), &upstream.url("")).await;
    for path in ["/truncated", "/truncated-chunks", "/reset-after-head"] {
        let fetch = Fetcher::new().fetch(format!("{proxy}{path}"));
        let mut response = fetch.stream_body().await.unwrap();
        let kind = loop {
            match response.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error.kind(),
                None => panic!("{path}: a short body without an error"),
            }
        };
        assert!(
            matches!(kind, ErrorKind::Truncated | ErrorKind::Reset),
            "{path}: {kind:?}"
        );
    }
}

#[tokio::test]
async fn client_that_leaves_frees_the_slot_of_its_proxy() {
    let upstream = FaultServer::start();
    let fetcher = Fetcher::builder().concurrency(1).build().unwrap();
    let proxy = start_proxy(&fetcher, &upstream.url("")).await;
    for _ in 0..3 {
        let client = Fetcher::new();
        let fetch = client.fetch(format!("{proxy}/endless")).stream_body();
        let mut endless = fetch.await.unwrap();
        endless.next().await.unwrap().unwrap();
        drop(endless);
        let response = client.fetch(format!("{proxy}/ok/1")).await.unwrap();
        assert_eq!(response.bytes()[..], expected_body(1));
    }
    upstream.wait_for_in_flight(0).await;
    assert_eq!(fetcher.snapshot().progress().in_flight(), 0);
}
