//! Timeouts, and the waiting time that they exclude.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fanout::{
    Attempt, Body, Error, ErrorKind, Fetcher, Mock, MockResponse, Outcome, Request, RequestBuilder,
    Retry, Timeouts,
};
use tokio::task::coop::poll_proceed;
use tokio::time::{Instant, timeout};

use super::{all_ok, builder, fetcher, ms, responding_after_ms, secs, urls};

const URL: &str = "http://a.example/";

/// Runs one attempt. Returns its timeout error and the elapsed time.
async fn timeout_of_one_attempt(mock: Mock, request: RequestBuilder) -> (Error, Duration) {
    let fetcher = builder(&mock).retry(Retry::off()).build().unwrap();
    let started = Instant::now();
    let error = fetcher.fetch(request).await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(mock.in_flight(), 0);
    (error, started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn connect_timeout_fires_after_10_seconds() {
    let mock = Mock::new().connect_delay(secs(3600));
    let (error, elapsed) = timeout_of_one_attempt(mock.clone(), Request::get(URL)).await;
    assert_eq!(
        (error.kind(), elapsed),
        (ErrorKind::ConnectTimeout, secs(10))
    );
    assert_eq!(
        (error.timings().connect(), error.timings().wire()),
        (secs(10), secs(10))
    );
    assert!(error.to_string().contains("connect timeout"), "{error}");
    assert!(!error.maybe_sent());
    assert_eq!(mock.request_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_connect_counts_as_connect_time() {
    let mock = Mock::new()
        .connect_delay(secs(4))
        .fallback(MockResponse::text("x").delay(secs(29)));
    let response = fetcher(&mock).fetch(URL).await.unwrap();
    assert_eq!(response.timings().connect(), secs(4));
    assert_eq!(response.timings().response_head(), secs(29));
}

#[tokio::test(start_paused = true)]
async fn response_head_timeout_fires_after_30_seconds() {
    let mock = Mock::new()
        .connect_delay(secs(5))
        .fallback(MockResponse::hang());
    let (error, elapsed) = timeout_of_one_attempt(mock, Request::get(URL)).await;
    assert_eq!(
        (error.kind(), elapsed),
        (ErrorKind::ResponseHeadTimeout, secs(35))
    );
    assert_eq!(
        (error.timings().connect(), error.timings().response_head()),
        (secs(5), secs(30))
    );
    let text = "response head timeout for http://a.example/: 30s on the wire";
    assert_eq!(error.to_string(), text);
    assert!(error.maybe_sent());
}

#[tokio::test(start_paused = true)]
async fn body_idle_timeout_fires_after_20_seconds_without_data() {
    let mock = Mock::new().fallback(
        MockResponse::text("half")
            .delay(secs(7))
            .body_delay(secs(15))
            .stall_body(),
    );
    let (error, elapsed) = timeout_of_one_attempt(mock, Request::get(URL)).await;
    assert_eq!(
        (error.kind(), elapsed),
        (ErrorKind::BodyIdleTimeout, secs(7 + 15 + 20))
    );
    assert_eq!(
        (error.timings().response_head(), error.timings().body()),
        (secs(7), secs(35))
    );
    assert!(error.to_string().contains("body-idle timeout"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn request_timeout_covers_whole_attempt() {
    let request = Request::get(URL).timeout(secs(3));
    for mock in [
        Mock::new().connect_delay(secs(9)),
        Mock::new().fallback(MockResponse::hang()),
        Mock::new().fallback(MockResponse::text("half").stall_body()),
        Mock::new()
            .connect_delay(secs(1))
            .fallback(MockResponse::text("x").delay(secs(1)).body_delay(secs(2))),
    ] {
        let (error, elapsed) = timeout_of_one_attempt(mock, request.clone()).await;
        assert_eq!(
            (error.kind(), elapsed),
            (ErrorKind::RequestTimeout, secs(3))
        );
        assert!(error.to_string().contains("request timeout"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_timeout_restarts_for_each_attempt() {
    let mock = Mock::new()
        .on(URL, MockResponse::hang())
        .then(MockResponse::hang())
        .then(MockResponse::text("x").delay(secs(2)));
    let retry = Retry::default().base_delay(ms(0));
    let started = Instant::now();
    let fetcher = builder(&mock).retry(retry).build().unwrap();
    let response = fetcher
        .fetch(Request::get(URL).timeout(secs(3)))
        .await
        .unwrap();
    assert_eq!(
        (response.attempts().len(), started.elapsed()),
        (3, secs(3 + 3 + 2))
    );
}

#[tokio::test(start_paused = true)]
async fn request_timeout_of_the_fetcher_applies_to_requests_without_their_own() {
    let mock = Mock::new().fallback(MockResponse::hang());
    let fetcher = builder(&mock)
        .retry(Retry::default().max_retries(1))
        .request_timeout(secs(3))
        .build()
        .unwrap();
    let sibling = fetcher.to_builder().build().unwrap();
    let shorter = fetcher
        .to_builder()
        .request_timeout(secs(1))
        .build()
        .unwrap();
    let own = Request::get(URL).timeout(secs(5));
    for (fetcher, request, limit) in [
        (&fetcher, Request::get(URL), secs(3)),
        (&sibling, Request::get(URL), secs(3)),
        (&shorter, Request::get(URL), secs(1)),
        (&fetcher, own, secs(5)),
    ] {
        let results = fetcher.batch([request.clone()]).gather().await;
        let single = fetcher.fetch(request).await;
        for error in [results.into_iter().next().unwrap(), single].map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::RequestTimeout);
            assert_eq!(error.attempts().len(), 2);
            for attempt in error.attempts() {
                assert_eq!(attempt.timings().wire(), limit);
            }
            assert!(error.to_string().contains(&format!("{limit:?}")), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn total_timeout_counts_wire_time_of_all_attempts_without_waits() {
    let throttled = MockResponse::status(503)
        .header("retry-after", "10")
        .delay(secs(5));
    let mock = Mock::new().on(URL, throttled);
    let retry = Retry::default().throttled_base_delay(ms(0)).max_retries(9);
    let timeouts = Timeouts::default().total(secs(12));
    let fetcher = builder(&mock)
        .retry(retry)
        .timeouts(timeouts)
        .build()
        .unwrap();
    let started = Instant::now();
    let error = fetcher.fetch(URL).await.unwrap_err();
    assert_eq!(started.elapsed(), secs(5 + 10 + 5 + 10 + 2));
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::TotalTimeout, 3)
    );
    assert_eq!(
        (error.timings().wire(), error.timings().queued()),
        (secs(12), secs(20))
    );
    assert!(error.to_string().contains("total timeout"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn exhausted_total_timeout_returns_last_result() {
    let mock = Mock::new().on(URL, MockResponse::status(503).delay(secs(6)));
    let timeouts = Timeouts::default().total(secs(12));
    let retry = Retry::default().max_retries(9);
    let fetcher = builder(&mock)
        .retry(retry)
        .timeouts(timeouts)
        .build()
        .unwrap();
    let response = fetcher.fetch(URL).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (503, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn timeouts_of_none_never_fire() {
    let without_timeouts = Timeouts::default()
        .connect(None)
        .response_head(None)
        .body_idle(None)
        .total(None);
    for mock in [
        Mock::new().connect_delay(secs(1 << 30)),
        Mock::new().fallback(MockResponse::hang()),
        Mock::new().fallback(MockResponse::text("half").stall_body()),
    ] {
        let fetcher = builder(&mock)
            .timeouts(without_timeouts.clone())
            .build()
            .unwrap();
        assert!(timeout(secs(1_000_000), fetcher.fetch(URL)).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn batch_overrides_timeouts() {
    let mock = Mock::new().fallback(MockResponse::hang());
    let fetcher = fetcher(&mock);
    let started = Instant::now();
    let short_timeouts = Timeouts::default().response_head(secs(2));
    let results = fetcher
        .batch([URL])
        .timeouts(short_timeouts)
        .retry(Retry::off())
        .gather()
        .await;
    assert_eq!(
        results[0].as_ref().unwrap_err().kind(),
        ErrorKind::ResponseHeadTimeout
    );
    assert_eq!(started.elapsed(), secs(2));
}

#[tokio::test(start_paused = true)]
async fn queued_time_counts_toward_no_timeout() {
    let mock = responding_after_ms(100);
    let one_second = secs(1);
    let timeouts = Timeouts::default()
        .connect(one_second)
        .response_head(one_second)
        .body_idle(one_second)
        .total(one_second);
    let fetcher = builder(&mock)
        .timeouts(timeouts)
        .concurrency_per_host(2)
        .build()
        .unwrap();
    let started = Instant::now();
    let requests = urls("a", 40).map(|url| Request::get(url).timeout(one_second));
    let results = fetcher.gather(requests).await;
    assert!(all_ok(&results));
    assert!(
        results
            .iter()
            .flatten()
            .all(|response| response.attempts().len() == 1)
    );
    assert_eq!(started.elapsed(), secs(2));
    let max_queued = results
        .iter()
        .flatten()
        .map(|response| response.timings().queued())
        .max();
    assert_eq!(max_queued, Some(ms(1900)));
}

#[tokio::test(start_paused = true)]
async fn attempts_report_which_timeout_fired() {
    let mock = Mock::new()
        .on(URL, MockResponse::hang())
        .then(MockResponse::text("half").stall_body())
        .then(200);
    let response = fetcher(&mock).fetch(URL).await.unwrap();
    let outcomes: Vec<_> = response.attempts().iter().map(Attempt::outcome).collect();
    let expected = [
        Outcome::Error(ErrorKind::ResponseHeadTimeout),
        Outcome::Error(ErrorKind::BodyIdleTimeout),
        Outcome::Status(http::StatusCode::OK),
    ];
    assert_eq!(outcomes, expected);
}

/// A transport that exhausts tokio's cooperative budget at each poll and never responds.
#[derive(Clone)]
struct BudgetExhausting;

impl tower_service::Service<http::Request<Body>> for BudgetExhausting {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        Box::pin(poll_fn(|_| {
            let mut noop_context = Context::from_waker(Waker::noop());
            while let Poll::Ready(progress) = poll_proceed(&mut noop_context) {
                progress.made_progress();
            }
            Poll::Pending
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_fires_with_exhausted_cooperative_budget() {
    let builder = Fetcher::builder().transport(BudgetExhausting);
    let fetcher = builder.retry(Retry::off()).build().unwrap();
    for _ in 0..2 {
        let fetched = timeout(secs(3600), fetcher.fetch(URL)).await;
        let error = fetched.expect("the timeout fires").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResponseHeadTimeout);
    }
}
