//! Which requests are retried, how often, and when.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::server::{FaultServer, expected_body, pattern_bytes};
use fanout::{Attempt, ErrorKind, Fetcher, Outcome, Request, Response, Retry};
use http::StatusCode;

fn outcomes(response: &Response) -> Vec<Outcome> {
    let attempts = response.attempts().iter();
    attempts.map(Attempt::outcome).collect()
}

#[tokio::test]
async fn a_post_whose_connection_is_reset_is_sent_once() {
    let server = FaultServer::start();
    for path in ["/reset-before", "/close-before", "/half-head", "/truncated"] {
        let post = Request::post(server.url(path)).body("one order");
        let error = Fetcher::new().fetch(post).await.unwrap_err();
        assert!(error.maybe_sent(), "{error:?}");
        assert_eq!(error.attempts().len(), 1);
        assert_eq!(server.request_count_for(path), 1);
    }
    assert!(server.log().iter().all(|entry| entry.body == b"one order"));
}

#[tokio::test]
async fn post_on_a_reused_connection_is_sent_once() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    fetcher.fetch(server.url("/ok/1")).await.unwrap();
    let post = Request::post(server.url("/reset-before")).body("one order");
    let error = fetcher.fetch(post).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.maybe_sent());
    assert_eq!(server.request_count_for("/reset-before"), 1);
    assert_eq!(server.counts().total_connections, 1);
}

#[tokio::test]
async fn idempotent_post_is_attempted_three_times() {
    let server = FaultServer::start();
    let with_key = Request::post(server.url("/reset-before")).header("idempotency-key", "7");
    let marked = Request::post(server.url("/close-before")).idempotent();
    for (request, path) in [(with_key, "/reset-before"), (marked, "/close-before")] {
        let fetcher = Fetcher::new();
        let error = fetcher.fetch(request.body("one order")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(error.attempts().len(), 3);
        assert_eq!(server.request_count_for(path), 3);
    }
    assert!(server.log().iter().all(|entry| entry.body == b"one order"));
}

#[tokio::test]
async fn post_with_status_503_is_not_retried() {
    let server = FaultServer::start();
    let post = Request::post(server.url("/status/503")).body("one order");
    let response = Fetcher::new().fetch(post).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(server.counts().requests, 1);
}

#[tokio::test]
async fn post_that_the_server_did_not_process_is_sent_again() {
    let server = FaultServer::start();
    for (status, query) in [(429, ""), (503, "?retry_after=0"), (425, "")] {
        let path = format!("/flaky/{status}/2/{status}{query}");
        let post = || Request::post(server.url(&path)).body("one order");
        let retry = Retry::default()
            .base_delay(Duration::ZERO)
            .throttled_base_delay(Duration::ZERO);
        let off = retry.clone().retry_unprocessed_posts(false);
        let [off, on] = [off, retry].map(|retry| Fetcher::builder().retry(retry).build().unwrap());
        let response = off.fetch(post()).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.attempts().len(), 1, "{status}");
        let response = on.fetch(post()).await.unwrap();
        assert_eq!(response.status(), 200, "{status}");
        assert_eq!(response.attempts().len(), 2, "{status}");
    }
    assert!(server.log().iter().all(|entry| entry.body == b"one order"));
}

/// An API that accepts `quota` orders per window, and refuses others with status 429.
struct LimitedApi {
    quota: usize,
    window: Duration,
    used: usize,
    window_end: Instant,
    orders: Vec<String>,
}

impl LimitedApi {
    fn accept(&mut self, order: String) -> StatusCode {
        let now = Instant::now();
        if self.window_end <= now {
            (self.window_end, self.used) = (now + self.window, 0);
        }
        if self.used == self.quota {
            return StatusCode::TOO_MANY_REQUESTS;
        }
        self.used += 1;
        self.orders.push(order);
        StatusCode::CREATED
    }
}

#[tokio::test]
async fn limited_api_processes_each_of_300_posts_once() {
    let api = Arc::new(Mutex::new(LimitedApi {
        quota: 48,
        window: Duration::from_millis(100),
        used: 0,
        window_end: Instant::now(),
        orders: Vec::new(),
    }));
    let handler = {
        let api = Arc::clone(&api);
        axum::routing::post(move |order: String| async move { api.lock().unwrap().accept(order) })
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/orders", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/orders", handler);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let orders: Vec<String> = (0..300).map(|n| format!("order {n:03}")).collect();
    let posts = orders
        .iter()
        .map(|order| Request::post(&*url).body(order.clone()));
    let results = Fetcher::new()
        .batch(posts)
        .retry(Retry::default().throttled_base_delay(Duration::from_millis(100)))
        .gather()
        .await;
    server.abort();
    for (result, order) in results.into_iter().zip(&orders) {
        let response = result.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED, "{order}");
    }
    let mut processed = std::mem::take(&mut api.lock().unwrap().orders);
    processed.sort();
    assert_eq!(processed, orders);
}

#[tokio::test]
async fn retry_after_delays_its_whole_host_and_no_other() {
    let wait = Duration::from_secs(4);
    let servers = FaultServer::start_group(2);
    let (throttling, other) = (&servers[0], &servers[1]);
    let first = throttling.url("/flaky/throttled/1/503?retry_after=4");
    let same_host = (0..20).map(|n| throttling.url(&format!("/ok/{n}")));
    let other_host = (0..20).map(|n| other.url(&format!("/ok/{n}")));
    let urls = std::iter::once(first).chain(same_host).chain(other_host);
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch(urls)
        .concurrency_per_host(1)
        .retry(Retry::default().throttled_base_delay(Duration::from_millis(1)))
        .as_completed();
    let mut order = Vec::new();
    while let Some(completed) = results.next().await {
        completed.result.unwrap();
        order.push(completed.index);
    }
    assert_eq!(order.len(), 41);
    let hosts: HashSet<bool> = order[..20].iter().map(|index| *index > 20).collect();
    assert_eq!(hosts, HashSet::from([true]), "{order:?}");
    let arrivals = throttling.arrival_times();
    assert_eq!(arrivals.len(), 22);
    assert!(arrivals[1] - arrivals[0] >= wait);
}

#[tokio::test]
async fn retry_after_beyond_the_maximum_returns_the_response() {
    let server = FaultServer::start();
    let url = server.url("/status/429?retry_after=4000");
    let response = Fetcher::new().fetch(url).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.retry_after(), Some(Duration::from_secs(4000)));
    assert_eq!(server.counts().requests, 1);
}

#[tokio::test]
async fn third_attempt_succeeds_after_two_failures() {
    let server = FaultServer::start();
    for (fault, kind) in [
        ("truncated", ErrorKind::Truncated),
        ("truncated-chunks", ErrorKind::Truncated),
        ("reset-after-head", ErrorKind::Reset),
        ("half-head", ErrorKind::Closed),
        ("reset-before", ErrorKind::Closed),
    ] {
        let url = server.url(&format!("/flaky/{fault}/2/{fault}"));
        let response = Fetcher::new().fetch(url).await.unwrap();
        assert_eq!(response.bytes()[..], expected_body(0));
        let failed = Outcome::Error(kind);
        let succeeded = Outcome::Status(StatusCode::OK);
        assert_eq!(outcomes(&response), [failed, failed, succeeded], "{fault}");
    }
    let response = Fetcher::builder()
        .retry(Retry::default().throttled_base_delay(Duration::from_millis(10)))
        .build()
        .unwrap()
        .fetch(server.url("/flaky/busy/2/503"))
        .await
        .unwrap();
    let busy = Outcome::Status(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        outcomes(&response),
        [busy, busy, Outcome::Status(StatusCode::OK)]
    );
}

/// The server closes some connections after the response without `Connection: close`, so that the
/// client reuses connections that are already closed.
#[tokio::test]
async fn unannounced_close_loses_no_request_and_costs_no_attempt() {
    let server = FaultServer::start();
    let urls = (0..1000).map(|n| match n % 3 {
        0 => server.url(&format!("/ok-then-close/{n}")),
        _ => server.url(&format!("/ok/{n}")),
    });
    let results = Fetcher::new().batch(urls).concurrency(10).gather().await;
    for (n, result) in results.iter().enumerate() {
        let response = result.as_ref().unwrap();
        assert_eq!(response.bytes()[..], expected_body(n as u64));
        assert_eq!(response.attempts().len(), 1, "input {n}");
    }
    let paths: HashSet<String> = server.log().into_iter().map(|entry| entry.path).collect();
    assert_eq!(paths.len(), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unannounced_close_costs_no_attempt_on_several_threads() {
    let server = FaultServer::start();
    let urls = (0..1000).map(|n| server.url(&format!("/ok-then-close/{n}")));
    let results = Fetcher::new().batch(urls).concurrency(20).gather().await;
    for (n, result) in results.iter().enumerate() {
        let response = result.as_ref().unwrap();
        assert_eq!(response.bytes()[..], expected_body(n as u64));
        assert_eq!(response.attempts().len(), 1, "input {n}");
    }
}

#[tokio::test]
async fn closed_idle_connections_cost_no_attempt() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    for round in 0..10 {
        let urls = (0..20).map(|n| server.url(&format!("/ok/{n}")));
        for result in fetcher.gather(urls).await {
            assert_eq!(result.unwrap().attempts().len(), 1, "round {round}");
        }
        server.close_connections().await;
    }
    // A POST must not be sent twice. Once the reactor has seen the close, it uses a new connection.
    tokio::task::yield_now().await;
    let post = Request::post(server.url("/echo")).body("one order");
    let response = fetcher.fetch(post).await.unwrap();
    assert_eq!(response.attempts().len(), 1);
    assert_eq!(server.request_count_for("/echo"), 1);
}

#[tokio::test]
async fn idle_connections_are_reused() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    for _ in 0..5 {
        let urls = (0..200).map(|n| server.url(&format!("/ok/{n}")));
        let results = fetcher.batch(urls).concurrency(10).gather().await;
        assert!(results.iter().all(Result::is_ok));
    }
    let counts = server.counts();
    assert_eq!(counts.requests, 1000);
    assert!(counts.total_connections <= 10, "{counts:?}");
}

#[tokio::test]
async fn large_and_small_bodies_arrive_complete() {
    let server = FaultServer::start();
    let urls = (0..40).map(|n| match n % 4 {
        0 => server.url("/bytes/1000000"),
        1 => server.url("/big/300000"),
        _ => server.url(&format!("/ok/{n}")),
    });
    let results = Fetcher::new().batch(urls).concurrency(8).gather().await;
    let (million, chunked) = (pattern_bytes(1_000_000), pattern_bytes(300_000));
    for (n, result) in results.iter().enumerate() {
        let body = result.as_ref().unwrap().bytes();
        match n % 4 {
            0 => assert!(body[..] == million, "input {n}"),
            1 => assert!(body[..] == chunked, "input {n}"),
            _ => assert_eq!(body[..], expected_body(n as u64)),
        }
    }
}

#[tokio::test]
async fn post_succeeds_after_a_close_the_reactor_has_not_seen() {
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().retry(Retry::off()).build().unwrap();
    for n in 0..20 {
        fetcher.fetch(server.url("/ok-then-close/1")).await.unwrap();
        // Blocks the runtime, so that the reactor cannot see the close.
        let give_up_at = std::time::Instant::now() + Duration::from_secs(30);
        while server.counts().open_connections > 0 && std::time::Instant::now() < give_up_at {
            std::thread::sleep(Duration::from_millis(1));
        }
        let post = Request::post(server.url("/ok/1")).body("one order");
        assert!(fetcher.fetch(post).await.is_ok(), "{n}");
        server.close_connections().await;
    }
    assert_eq!(server.request_count_for("/ok/1"), 20);
}
