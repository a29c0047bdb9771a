//! The circuit breaker: hosts that refuse or time out connections.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use fanout::{Body, Breaker, ErrorKind, Fetcher, Host, Mock, MockResponse, Outcome, Retry};
use tokio::time::{Instant, sleep};

use super::{builder, fetcher, ms, received_at_ms, secs, urls};

const A: &str = "http://a.example/*";
const URL: &str = "http://a.example/";

fn builder_without_retry(mock: &Mock) -> fanout::FetcherBuilder {
    builder(mock).retry(Retry::off())
}

#[tokio::test(start_paused = true)]
async fn dead_host_costs_five_requests_and_a_probe() {
    let mock = Mock::new()
        .on(A, ErrorKind::Connect)
        .fallback(MockResponse::text("x").delay(ms(100)));
    let fetcher = builder_without_retry(&mock).build().unwrap();
    let started = Instant::now();
    let both = urls("a", 10_000).zip(urls("b", 10_000));
    let inputs = both.flat_map(|(dead, live)| [dead, live]);
    let results = fetcher.gather(inputs).await;
    assert_eq!(results.len(), 20_000);
    let mut kinds: HashMap<ErrorKind, usize> = HashMap::new();
    for (index, result) in results.iter().enumerate() {
        match result {
            Ok(response) => assert!(index % 2 == 1 && response.status() == 200),
            Err(error) => {
                assert!(index % 2 == 0 && !error.maybe_sent() && error.is_connect());
                *kinds.entry(error.kind()).or_default() += 1;
            }
        }
    }
    assert_eq!(kinds.values().sum::<usize>(), 10_000);
    let rejected = kinds[&ErrorKind::HostDown];
    assert!(rejected >= 9_900, "{kinds:?}");
    assert_eq!(
        started.elapsed(),
        secs(15),
        "one cooldown, not one timeout per request"
    );
}

/// Counts `poll_ready` calls.
#[derive(Clone)]
struct PollCount(Arc<Mutex<usize>>);

/// A transport that never becomes ready, so that each request times out while connecting.
#[derive(Clone)]
struct NeverReady(PollCount);

impl tower_service::Service<http::Request<Body>> for NeverReady {
    type Response = http::Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        *self.0.0.lock().unwrap() += 1;
        Poll::Pending
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(http::Response::new(String::new())))
    }
}

#[tokio::test(start_paused = true)]
async fn unresponsive_host_costs_one_timeout_per_slot_and_a_probe() {
    let polls = Arc::default();
    let fetcher = Fetcher::builder()
        .transport(NeverReady(PollCount(Arc::clone(&polls))))
        .retry(Retry::off())
        .build()
        .unwrap();
    let started = Instant::now();
    let results = fetcher.gather(urls("a", 10_000)).await;
    let count = |kind| {
        let of = |result: &&fanout::Result<_>| result.as_ref().is_err_and(|e| e.kind() == kind);
        results.iter().filter(of).count()
    };
    assert_eq!(
        count(ErrorKind::ConnectTimeout),
        105,
        "100 slots, 4 starts after the first failures, and the probe"
    );
    assert_eq!(count(ErrorKind::HostDown), 10_000 - 105);
    assert_eq!(started.elapsed(), secs(10 + 15 + 10));
    assert!(*polls.lock().unwrap() >= 105);
}

#[tokio::test(start_paused = true)]
async fn open_breaker_ends_retried_request_with_its_last_error() {
    let mock = Mock::new().on(A, ErrorKind::Connect);
    let fetcher = builder(&mock)
        .breaker(Breaker::default().failure_threshold(2).max_wait(ms(0)))
        .build()
        .unwrap();
    let error = fetcher.fetch(URL).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Connect, 2)
    );
    let error = fetcher.fetch(URL).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::HostDown, 0)
    );
    assert!(!error.maybe_sent());
    assert_eq!(error.url(), Some(URL));
    assert_eq!(error.to_string(), format!("host is down for {URL}"));
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_probe_without_holding_a_slot() {
    let mock = Mock::new()
        .on("http://a.example/down", ErrorKind::Connect)
        .fallback(MockResponse::text("x").delay(ms(10)));
    let fetcher = builder_without_retry(&mock).concurrency(1).build().unwrap();
    let started = Instant::now();
    fetcher.gather(["http://a.example/down"; 5]).await;
    let queued_batch = tokio::spawn(fetcher.batch(urls("a", 3)).gather());
    fetcher.gather(urls("b", 10)).await;
    assert_eq!(started.elapsed(), ms(100), "host `b` uses the only slot");
    let snapshot = fetcher.snapshot();
    assert_eq!(snapshot.progress().waiting().for_breaker(), 3);
    assert!(super::all_ok(&queued_batch.await.unwrap()));
    assert_eq!(
        received_at_ms(&mock, "http://a.example/0", started),
        [15_000]
    );
    assert_eq!(
        received_at_ms(&mock, "http://a.example/2", started),
        [15_020]
    );
}

#[tokio::test(start_paused = true)]
async fn only_connect_failures_trip_breaker() {
    let failures = [
        ErrorKind::Dns,
        ErrorKind::Connect,
        ErrorKind::Proxy,
        ErrorKind::ConnectTimeout,
    ];
    let ignored = [
        ErrorKind::HostNotFound,
        ErrorKind::ProxyRefused,
        ErrorKind::Tls,
        ErrorKind::Closed,
        ErrorKind::Truncated,
        ErrorKind::ResponseHeadTimeout,
        ErrorKind::RequestTimeout,
        ErrorKind::Protocol,
        ErrorKind::NotAllowed,
    ];
    for (kind, trips) in failures
        .map(|kind| (kind, true))
        .into_iter()
        .chain(ignored.map(|kind| (kind, false)))
    {
        let mock = Mock::new().on(URL, kind);
        let fetcher = builder_without_retry(&mock).build().unwrap();
        let started = Instant::now();
        for _ in 0..6 {
            let _ = fetcher.fetch(URL).await;
        }
        assert_eq!(started.elapsed() == secs(15), trips, "{kind}");
    }
    let mock = Mock::new().on(URL, 500);
    let fetcher = builder_without_retry(&mock).build().unwrap();
    for _ in 0..6 {
        fetcher.fetch(URL).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn request_timeout_while_connecting_trips_breaker() {
    let mock = Mock::new().connect_delay(secs(3)).fallback(200);
    let fetcher = builder_without_retry(&mock)
        .breaker(Breaker::default().max_wait(ms(0)))
        .build()
        .unwrap();
    let request = fanout::Request::get(URL).timeout(secs(1));
    for _ in 0..5 {
        let error = fetcher.fetch(request.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestTimeout);
    }
    let error = fetcher.fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostDown);
}

#[tokio::test(start_paused = true)]
async fn breaker_is_off_if_disabled_or_with_limit_by() {
    let count = |mock: &Mock| mock.request_count();
    let mock = Mock::new().fallback(ErrorKind::Connect);
    let without_wait = Breaker::default().max_wait(ms(0));
    let without_breaker = builder_without_retry(&mock)
        .breaker(Breaker::off())
        .build()
        .unwrap();
    without_breaker
        .batch(urls("a", 50))
        .concurrency(1)
        .gather()
        .await;
    assert_eq!(count(&mock), 50);

    let mock = Mock::new().fallback(ErrorKind::Connect);
    let off_for_a = builder_without_retry(&mock)
        .breaker(without_wait)
        .host("http://a.example", Host::new().breaker(Breaker::off()))
        .build()
        .unwrap();
    off_for_a.batch(urls("a", 50)).concurrency(1).gather().await;
    off_for_a.batch(urls("b", 50)).concurrency(1).gather().await;
    assert_eq!(count(&mock), 50 + 5);

    let mock = Mock::new().fallback(ErrorKind::Connect);
    let one_lane = builder_without_retry(&mock)
        .breaker(without_wait)
        .limit_by(|_: &_| "all");
    let one_lane = one_lane.build().unwrap();
    one_lane.batch(urls("a", 50)).concurrency(1).gather().await;
    assert_eq!(count(&mock), 50);
}

#[tokio::test(start_paused = true)]
async fn dropped_probe_is_replaced_by_next_request() {
    let mock = Mock::new()
        .on("http://a.example/down", ErrorKind::Connect)
        .on(
            "http://a.example/slow",
            MockResponse::text("x").delay(secs(60)),
        )
        .fallback(200);
    let fetcher = builder_without_retry(&mock).build().unwrap();
    let started = Instant::now();
    fetcher.gather(["http://a.example/down"; 5]).await;
    let probe = tokio::spawn(fetcher.fetch("http://a.example/slow"));
    sleep(ms(1)).await;
    let next = tokio::spawn(fetcher.fetch("http://a.example/next"));
    sleep(secs(20)).await;
    assert_eq!(
        received_at_ms(&mock, "http://a.example/next", started).len(),
        0
    );
    probe.abort();
    assert_eq!(next.await.unwrap().unwrap().status(), 200);
    assert_eq!(
        received_at_ms(&mock, "http://a.example/next", started),
        [20_001]
    );
}

#[tokio::test(start_paused = true)]
async fn redirect_to_down_host_fails_with_host_down() {
    let mock = Mock::new()
        .on("http://a.example/down", ErrorKind::Connect)
        .on(
            "http://b.example/",
            MockResponse::status(302)
                .header("location", URL)
                .delay(ms(1)),
        );
    let fetcher = builder_without_retry(&mock)
        .breaker(Breaker::default().max_wait(ms(0)))
        .build()
        .unwrap();
    fetcher.gather(["http://a.example/down"; 5]).await;
    let error = fetcher.fetch("http://b.example/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostDown);
    assert!(error.maybe_sent(), "host `b` received the request");
    assert_eq!(error.redirects().len(), 1);
    let outcome = error.attempts()[0].outcome();
    assert_eq!(outcome, Outcome::Error(ErrorKind::HostDown));
}

#[tokio::test(start_paused = true)]
async fn host_down_error_holds_response_withheld_from_handler() {
    let mock = Mock::new()
        .on(URL, MockResponse::status(503).header("retry-after", "10"))
        .fallback(MockResponse::error(ErrorKind::Connect).delay(ms(1)));
    let fetcher = builder(&mock)
        .breaker(Breaker::default().max_wait(ms(0)))
        .build()
        .unwrap();
    let with_handler = fetcher.batch([URL]).read_with(|_body| async { Ok(()) });
    let failing = fetcher.batch(urls("a", 5)).retry(Retry::off());
    let (results, _) = tokio::join!(with_handler.gather(), failing.gather());
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostDown);
    assert!(error.maybe_sent());
    assert_eq!(error.response().unwrap().status(), 503);
}

#[tokio::test(start_paused = true)]
async fn default_breaker_allows_all_retries_of_single_request() {
    let mock = Mock::new()
        .on(URL, ErrorKind::Connect)
        .then(ErrorKind::Connect)
        .then(200);
    let response = fetcher(&mock).fetch(URL).await.unwrap();
    assert_eq!(response.attempts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn deadline_before_the_next_probe_ends_requests_at_once() {
    let mock = Mock::new()
        .on(A, MockResponse::error(ErrorKind::Connect).delay(ms(1)))
        .fallback(MockResponse::text("x").delay(ms(20)));
    let fetcher = builder_without_retry(&mock).build().unwrap();
    fetcher.gather(urls("a", 5)).await;
    let started = Instant::now();
    let fan_out = fetcher.batch([URL, "http://b.example/"]);
    let results = fan_out.deadline(ms(200)).gather().await;
    assert_eq!(started.elapsed(), ms(20), "the time of the live host");
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostDown);
    assert!(results[1].is_ok());
    // The fifth failure may be that of the batch itself.
    let fetcher = builder_without_retry(&mock).build().unwrap();
    fetcher.gather(urls("a", 4)).await;
    let started = Instant::now();
    let fan_out = fetcher.batch(urls("a", 3)).concurrency(1);
    let results = fan_out.deadline(ms(200)).gather().await;
    assert_eq!(started.elapsed(), ms(1));
    let kinds = results
        .iter()
        .map(|result| result.as_ref().unwrap_err().kind());
    let expected = [ErrorKind::Connect, ErrorKind::HostDown, ErrorKind::HostDown];
    assert!(kinds.eq(expected));
}
