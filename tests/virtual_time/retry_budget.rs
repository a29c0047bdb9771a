//! The retry budget of a host, throttled attempts, and `Retry::classify`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fanout::{Body, ErrorKind, Mock, MockResponse, Request, Retry, RetryBudget, RetryDecision};
use tokio::time::Instant;

use super::{builder, fetcher, ms, secs, urls};

const URL: &str = "http://a.example/";

/// Returns the default retry policy without backoff, so that the budget gains nothing over time.
fn without_backoff() -> Retry {
    Retry::default()
        .base_delay(ms(0))
        .throttled_base_delay(ms(0))
}

#[tokio::test(start_paused = true)]
async fn budget_allows_retries_of_20_percent_plus_100() {
    let mock = Mock::new().fallback(500);
    let fetcher = builder(&mock).retry(without_backoff()).build().unwrap();
    let results = fetcher.gather(urls("a", 1_000)).await;
    // The budget starts full, so the deposits of the first 100 requests add nothing.
    assert_eq!(mock.request_count(), 1_000 + 100 + 180);
    assert!(
        results
            .iter()
            .all(|result| result.as_ref().unwrap().status() == 500)
    );
    let attempt_count: usize = results
        .iter()
        .map(|result| result.as_ref().unwrap().attempts().len())
        .sum();
    assert_eq!(attempt_count, 1_280);
}

#[tokio::test(start_paused = true)]
async fn budget_is_shared_by_batches_and_fetches_of_one_host() {
    let mock = Mock::new().fallback(500);
    let small_budget = RetryBudget::default()
        .retry_percent(0)
        .retries_per_second(1);
    let fetcher = builder(&mock)
        .retry(without_backoff())
        .retry_budget(small_budget)
        .build()
        .unwrap();
    fetcher.gather(urls("a", 3)).await;
    fetcher
        .batch(urls("a", 3))
        .retry(without_backoff().max_retries(9))
        .gather()
        .await;
    fetcher.fetch(URL).await.unwrap();
    assert_eq!(mock.request_count(), 7 + 10);
    fetcher.fetch("http://b.example/").await.unwrap();
    assert_eq!(mock.request_count(), 7 + 10 + 3);
    tokio::time::sleep(secs(2)).await;
    fetcher.fetch(URL).await.unwrap();
    assert_eq!(mock.request_count(), 7 + 10 + 3 + 3);
}

#[tokio::test(start_paused = true)]
async fn disabled_budget_allows_all_retries() {
    let mock = Mock::new().fallback(500);
    let fetcher = builder(&mock)
        .retry(without_backoff())
        .retry_budget(RetryBudget::off());
    fetcher.build().unwrap().gather(urls("a", 500)).await;
    assert_eq!(mock.request_count(), 1_500);
}

#[tokio::test(start_paused = true)]
async fn handler_reads_last_response_if_budget_is_empty() {
    let mock = Mock::new().fallback(MockResponse::status(500).body("why"));
    let empty_budget = RetryBudget::default()
        .retry_percent(0)
        .retries_per_second(0);
    let fetcher = builder(&mock)
        .retry(without_backoff())
        .retry_budget(empty_budget)
        .build()
        .unwrap();
    let mut results = fetcher
        .batch(urls("a", 20))
        .read_with(|mut body| async move {
            let mut text = Vec::new();
            while let Some(chunk) = body.next().await {
                text.extend_from_slice(&chunk?);
            }
            Ok(text)
        })
        .as_completed();
    let mut count = 0;
    while let Some(completed) = results.next().await {
        assert_eq!(completed.result.unwrap(), b"why");
        count += 1;
    }
    assert_eq!((count, mock.request_count()), (20, 30));
}

async fn attempt_count_and_time(
    response: impl Into<MockResponse>,
    retry: Retry,
) -> (usize, Duration) {
    let mock = Mock::new().on(URL, response);
    let started = Instant::now();
    let fetcher = builder(&mock).retry(retry).build().unwrap();
    let _ = fetcher.fetch(URL).await;
    (mock.request_count(), started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn throttled_attempts_cost_no_retry_up_to_maximum() {
    let with_retry_after = |status| MockResponse::status(status).header("retry-after", "1");
    assert_eq!(
        attempt_count_and_time(with_retry_after(429), without_backoff()).await,
        (13, secs(12))
    );
    assert_eq!(
        attempt_count_and_time(with_retry_after(503), without_backoff()).await,
        (13, secs(12))
    );
    assert_eq!(attempt_count_and_time(429, without_backoff()).await.0, 13);
    assert_eq!(attempt_count_and_time(503, without_backoff()).await.0, 3);
    assert_eq!(
        attempt_count_and_time(with_retry_after(500), without_backoff())
            .await
            .0,
        3
    );
    assert_eq!(
        attempt_count_and_time(429, without_backoff().max_throttled_attempts(4))
            .await
            .0,
        7
    );
    assert_eq!(
        attempt_count_and_time(429, without_backoff().max_throttled_attempts(0))
            .await
            .0,
        3
    );
    assert_eq!(
        attempt_count_and_time(429, without_backoff().max_retries(0))
            .await
            .0,
        1
    );
    assert_eq!(attempt_count_and_time(429, Retry::off()).await.0, 1);
    assert_eq!(
        attempt_count_and_time(
            MockResponse::status(429).header("retry-after", "301"),
            without_backoff()
        )
        .await
        .0,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn throttled_attempts_withdraw_nothing_from_budget() {
    let mock = Mock::new()
        .on(
            "http://a.example/busy",
            MockResponse::status(429).header("retry-after", "1"),
        )
        .fallback(500);
    let empty_budget = RetryBudget::default()
        .retry_percent(0)
        .retries_per_second(0);
    let fetcher = builder(&mock)
        .retry(without_backoff())
        .retry_budget(empty_budget)
        .build()
        .unwrap();
    fetcher.gather(["http://a.example/busy"; 1]).await;
    assert_eq!(
        mock.request_count(),
        13,
        "the first attempt, ten throttled attempts and two retries from the budget"
    );
    fetcher.gather(urls("a", 5)).await;
    assert_eq!(
        mock.request_count(),
        13 + 5 + 8,
        "eight retries remain in the budget"
    );
}

#[tokio::test(start_paused = true)]
async fn throttled_backoff_grows_with_each_attempt() {
    let mut max_elapsed = Duration::ZERO;
    for _ in 0..20 {
        let (_, elapsed) = attempt_count_and_time(429, Retry::default()).await;
        // The maximum backoffs are 1, 2, 4, 8 and 16 s, then seven times 20 s.
        assert!(elapsed <= secs(31 + 7 * 20) + ms(20));
        max_elapsed = max_elapsed.max(elapsed);
    }
    assert!(
        max_elapsed > secs(30),
        "a constant backoff would take at most 12 s"
    );
}

#[tokio::test(start_paused = true)]
async fn classifier_adds_and_suppresses_retries() {
    let retry = without_backoff().classify(|outcome, default_decision| match outcome {
        Ok(response) if response.status() == 404 => RetryDecision::Retry,
        Ok(response) if response.status() == 503 => RetryDecision::Done,
        Err(error) if error.kind() == ErrorKind::Protocol => RetryDecision::RetryAfter(secs(7)),
        _ => default_decision,
    });
    assert_eq!(
        attempt_count_and_time(404, retry.clone()).await,
        (3, secs(0))
    );
    assert_eq!(attempt_count_and_time(503, retry.clone()).await.0, 1);
    assert_eq!(attempt_count_and_time(500, retry.clone()).await.0, 3);
    assert_eq!(attempt_count_and_time(200, retry.clone()).await.0, 1);
    assert_eq!(
        attempt_count_and_time(ErrorKind::Protocol, retry.clone()).await,
        (3, secs(14))
    );
    assert_eq!(
        attempt_count_and_time(404, retry.clone().max_retries(0))
            .await
            .0,
        1
    );
    assert_eq!(retry, retry.clone());
    assert_ne!(retry, without_backoff());
}

#[tokio::test(start_paused = true)]
async fn classifier_gets_default_decision_and_url_once_per_attempt() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let retry = without_backoff().classify(move |outcome, default_decision| {
        counter.fetch_add(1, Relaxed);
        let is_retried_by_default = match outcome {
            Ok(response) => {
                assert_eq!(response.url().as_str(), URL);
                response.status() == 500
            }
            Err(error) => {
                assert_eq!(error.url(), Some(URL));
                true
            }
        };
        assert_eq!(
            default_decision == RetryDecision::Retry,
            is_retried_by_default
        );
        default_decision
    });
    let mock = Mock::new().on(URL, 500).then(ErrorKind::Closed).then(200);
    let fetcher = builder(&mock).retry(retry.clone()).build().unwrap();
    assert_eq!(fetcher.fetch(URL).await.unwrap().status(), 200);
    assert_eq!(calls.load(Relaxed), 3);
    let mock = Mock::new().on(URL, 500).then(ErrorKind::Closed).then(200);
    let fetcher = builder(&mock).retry(retry).build().unwrap();
    let batch = fetcher.batch([URL]).read_with(|_| async { Ok(7) });
    assert_eq!(*batch.gather().await[0].as_ref().unwrap(), 7);
    assert_eq!(calls.load(Relaxed), 6);
}

#[tokio::test(start_paused = true)]
async fn classifier_retries_post_but_not_consumed_body_stream() {
    let always_retry = without_backoff().classify(|_, _| RetryDecision::Retry);
    let fetcher_and_mock = |retry: &Retry| {
        let mock = Mock::new().on(URL, 503);
        (builder(&mock).retry(retry.clone()).build().unwrap(), mock)
    };
    let (fetcher, mock) = fetcher_and_mock(&always_retry);
    fetcher.fetch(Request::post(URL).body("x")).await.unwrap();
    assert_eq!(mock.request_count(), 3);
    let (fetcher, mock) = fetcher_and_mock(&always_retry);
    let body_stream = one_chunk_stream();
    fetcher
        .fetch(Request::post(URL).body(Body::stream(body_stream)))
        .await
        .unwrap();
    assert_eq!(mock.request_count(), 1);
}

/// Returns a body stream of one chunk, which cannot be replayed.
fn one_chunk_stream()
-> impl futures_core::Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send + 'static {
    struct OneChunk(bool);
    impl futures_core::Stream for OneChunk {
        type Item = Result<bytes::Bytes, std::io::Error>;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            let chunk = (!std::mem::replace(&mut self.0, true)).then(|| Ok("x".into()));
            std::task::Poll::Ready(chunk)
        }
    }
    OneChunk(false)
}

#[tokio::test(start_paused = true)]
async fn classifier_panic_fails_only_its_request() {
    let retry = without_backoff().classify(|outcome, default_decision| match outcome {
        Ok(response) if response.status() == 418 => panic!("a teapot"),
        _ => default_decision,
    });
    let mock = Mock::new().on(URL, 418).fallback(200);
    let fetcher = builder(&mock).retry(retry).build().unwrap();
    let results = fetcher
        .gather(["http://a.example/1", URL, "http://a.example/2"])
        .await;
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Panicked);
    assert!(results[0].is_ok() && results[2].is_ok());
    let fetcher = fetcher.batch([URL]).read_with(|_| async { Ok(7) });
    let error = fetcher.gather().await.remove(0).unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Panicked, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn classifier_is_not_called_after_deadline() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let retry = Retry::default().classify(move |_, _| {
        counter.fetch_add(1, Relaxed);
        RetryDecision::Retry
    });
    let mock = Mock::new().fallback(MockResponse::hang());
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(urls("a", 5)).retry(retry).deadline(secs(1));
    for result in batch.gather().await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Deadline);
    }
    assert_eq!(calls.load(Relaxed), 0);
}
