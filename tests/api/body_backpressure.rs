//! The limit on buffered bodies that the consumer has not taken (`max_buffered_bytes`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::body_streams::IntervalStream;
use crate::support::server::{FaultServer, pattern_bytes};
use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fanout::{Body, Fetcher, Retry, Timeouts};
use tokio::time::{sleep, timeout};

const CHUNK_BYTES: usize = 10_000;
const CHUNK_COUNT: usize = 20;
const BODY_BYTES: usize = CHUNK_BYTES * CHUNK_COUNT;

/// Returns a fetcher whose responses send one chunk per millisecond, and the number of bytes sent.
fn counting_fetcher() -> (Fetcher, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let app = Router::new().fallback(move || {
        let made = Arc::clone(&counted);
        async move {
            let pieces = IntervalStream::new(Duration::from_millis(1), CHUNK_COUNT, move || {
                made.fetch_add(CHUNK_BYTES, SeqCst);
                Bytes::from_static(&[7; CHUNK_BYTES])
            });
            axum::body::Body::new(Body::stream(pieces))
        }
    });
    let second = Duration::from_secs(1);
    let timeouts = Timeouts::default().body_idle(second).total(2 * second);
    let fetcher = Fetcher::builder().transport(app).timeouts(timeouts);
    (fetcher.build().unwrap(), made)
}

fn urls(count: usize) -> impl Iterator<Item = String> + Send {
    (0..count).map(|n| format!("http://a.example/{n}"))
}

#[tokio::test(start_paused = true)]
async fn slow_consumer_pauses_body_reads_without_timeouts() {
    const CONCURRENCY: usize = 8;
    let (fetcher, made) = counting_fetcher();
    let cap = 3 * BODY_BYTES;
    let batch = || {
        fetcher
            .batch(urls(60))
            .concurrency(CONCURRENCY)
            .max_buffered_bytes(cap as u64)
    };
    // Allowed beyond the limit: a chunk per connection, and the oldest body.
    let most = cap + CONCURRENCY * CHUNK_BYTES + BODY_BYTES;
    let mut as_completed = batch().as_completed();
    let mut in_order = batch().in_order();
    for taken in 0..120 {
        let completed = if taken < 60 {
            as_completed.next().await.unwrap()
        } else {
            in_order.next().await.unwrap()
        };
        assert_eq!(completed.result.unwrap().bytes().len(), BODY_BYTES);
        let held = made.load(SeqCst) - taken * BODY_BYTES;
        assert!(held <= most, "{held} after {taken}");
        sleep(Duration::from_secs(600)).await;
        let held = made.load(SeqCst) - (taken + 1) * BODY_BYTES;
        assert!(held <= most, "{held} after {taken}");
    }
    assert!(as_completed.next().await.is_none() && in_order.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn body_larger_than_the_limit_is_delivered() {
    let (fetcher, _) = counting_fetcher();
    let mut done = fetcher
        .batch(urls(20))
        .concurrency(5)
        .max_buffered_bytes(1)
        .as_completed();
    let mut indices = BTreeSet::new();
    while let Some(completed) = done.next().await {
        assert_eq!(completed.result.unwrap().bytes().len(), BODY_BYTES);
        indices.insert(completed.index);
    }
    assert_eq!(indices.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn gather_ignores_max_buffered_bytes() {
    let (fetcher, _) = counting_fetcher();
    let results = fetcher.batch(urls(20)).max_buffered_bytes(1).gather().await;
    assert!(results.iter().all(Result::is_ok));
    let responses = fetcher
        .batch(urls(20))
        .max_buffered_bytes(1)
        .try_gather()
        .await;
    assert_eq!(responses.unwrap().len(), 20);
}

/// Returns a fetcher for which every third URL fails once.
fn fetcher_failing_every_third() -> Fetcher {
    let failed = Arc::new(Mutex::new(BTreeSet::new()));
    let answer = move |Path(n): Path<usize>| {
        let fails = n % 3 == 0 && failed.lock().unwrap().insert(n);
        async move {
            if fails {
                return http::StatusCode::BAD_GATEWAY.into_response();
            }
            let piece = || Bytes::from_static(&[7; CHUNK_BYTES]);
            let pieces = IntervalStream::new(Duration::from_millis(1), CHUNK_COUNT, piece);
            Response::new(axum::body::Body::new(Body::stream(pieces)))
        }
    };
    let app = Router::new().route("/{n}", axum::routing::get(answer));
    let retry = Retry::default().base_delay(Duration::from_secs(5));
    Fetcher::builder()
        .transport(app)
        .retry(retry)
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn in_order_retry_of_the_next_result_is_not_blocked_by_later_bodies() {
    for concurrency in [1, 2, 5] {
        let fetcher = fetcher_failing_every_third();
        let batch = fetcher
            .batch(urls(40))
            .concurrency(concurrency)
            .max_buffered_bytes(BODY_BYTES as u64);
        let mut in_order = batch.in_order();
        for index in 0..40 {
            let completed = timeout(Duration::from_secs(3600), in_order.next()).await;
            let completed = completed.expect("it goes on").unwrap();
            assert_eq!(completed.index, index);
            let response = completed.result.unwrap();
            assert_eq!(
                response.attempts().len(),
                if index % 3 == 0 { 2 } else { 1 }
            );
            assert_eq!(response.bytes().len(), BODY_BYTES);
        }
    }
}

/// Returns a fetcher for one host. The first request fails and is retried within `base`.
fn fetcher_failing_first(base: Duration) -> (Fetcher, Arc<AtomicUsize>, Arc<Mutex<Option<usize>>>) {
    let made = Arc::new(AtomicUsize::new(0));
    let when_back: Arc<Mutex<Option<usize>>> = Arc::default();
    let (counted, noted) = (Arc::clone(&made), Arc::clone(&when_back));
    let calls = Arc::new(AtomicUsize::new(0));
    let answer = move |Path(n): Path<usize>| {
        let is_first = n == 0 && calls.fetch_add(1, SeqCst) == 0;
        if n == 0 && !is_first {
            *noted.lock().unwrap() = Some(counted.load(SeqCst));
        }
        let made = Arc::clone(&counted);
        async move {
            if is_first {
                return http::StatusCode::BAD_GATEWAY.into_response();
            }
            let piece = move || {
                made.fetch_add(CHUNK_BYTES, SeqCst);
                Bytes::from_static(&[7; CHUNK_BYTES])
            };
            let pieces = IntervalStream::new(Duration::from_millis(1), CHUNK_COUNT, piece);
            Response::new(axum::body::Body::new(Body::stream(pieces)))
        }
    };
    let app = Router::new().route("/{n}", axum::routing::get(answer));
    let retry = Retry::default().base_delay(base).max_delay(base);
    let fetcher = Fetcher::builder().transport(app).retry(retry).build();
    (fetcher.unwrap(), made, when_back)
}

#[tokio::test(start_paused = true)]
async fn in_order_buffers_no_more_while_the_next_result_backs_off() {
    const CONCURRENCY: usize = 5;
    let minute = Duration::from_secs(60);
    // Allowed beyond the limit: a chunk per connection, and the body requested before the retry.
    let most = 3 * BODY_BYTES + CONCURRENCY * CHUNK_BYTES + BODY_BYTES;
    for _ in 0..20 {
        let (fetcher, made, when_back) = fetcher_failing_first(minute);
        let batch = fetcher.batch(urls(100)).concurrency(CONCURRENCY);
        let mut in_order = batch.max_buffered_bytes(3 * BODY_BYTES as u64).in_order();
        let first = in_order.next().await.unwrap();
        assert_eq!(first.result.unwrap().attempts().len(), 2);
        let held = when_back.lock().unwrap().unwrap();
        assert!(held <= most, "{held}");
        // The body of the first result is delivered in any case.
        assert!(made.load(SeqCst) <= most + BODY_BYTES);
        for index in 1..100 {
            assert_eq!(in_order.next().await.unwrap().index, index);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_use_no_buffer_budget() {
    let (fetcher, made) = counting_fetcher();
    let inputs: Vec<String> = (0..30)
        .map(|n| match n % 3 {
            0 => "not a url".to_owned(),
            _ => format!("http://a.example/{n}"),
        })
        .collect();
    let mut in_order = fetcher
        .batch(inputs)
        .concurrency(4)
        .max_buffered_bytes(BODY_BYTES as u64)
        .in_order();
    let mut taken = 0;
    for index in 0..30 {
        let completed = in_order.next().await.unwrap();
        assert_eq!(
            (completed.index, completed.result.is_err()),
            (index, index % 3 == 0)
        );
        taken += usize::from(completed.result.is_ok());
        sleep(Duration::from_secs(600)).await;
        let held = made.load(SeqCst) - taken * BODY_BYTES;
        assert!(held <= 2 * BODY_BYTES + 4 * CHUNK_BYTES, "{held}");
    }
}

#[tokio::test]
async fn real_sockets_deliver_every_body_and_drop_frees_connections() {
    let server = FaultServer::start();
    let urls: Vec<String> = (0..60)
        .map(|n| server.url(&format!("/bytes/{}", 200_000 + n)))
        .collect();
    let fetcher = Fetcher::new();
    let batch = || {
        fetcher
            .batch(&urls)
            .concurrency(8)
            .max_buffered_bytes(500_000)
    };
    let mut done = batch().as_completed();
    let mut count = 0;
    while let Some(completed) = done.next().await {
        let body = completed.result.unwrap().into_bytes();
        assert!(body == pattern_bytes(200_000 + completed.index));
        sleep(Duration::from_millis(1)).await;
        count += 1;
    }
    assert_eq!(count, 60);
    let mut dropped = batch().in_order();
    assert!(dropped.next().await.is_some());
    drop(dropped);
    server.wait_for_in_flight(0).await;
    assert_eq!(
        fetcher
            .gather(&urls[..3])
            .await
            .iter()
            .filter(|result| result.is_ok())
            .count(),
        3
    );
}
