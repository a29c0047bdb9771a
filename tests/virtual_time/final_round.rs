//! The final round: one more attempt for failed requests at the end of a batch.

use fanout::{Breaker, ErrorKind, Mock, MockResponse, Outcome, Retry, RetryBudget};
use tokio::time::Instant;

use super::{all_ok, builder, ms, received_at_ms, secs, urls};

const URL: &str = "http://a.example/flaky";

fn final_round() -> Retry {
    Retry::default()
        .max_retries(1)
        .base_delay(ms(0))
        .final_round(true)
}

#[tokio::test(start_paused = true)]
async fn final_round_repeats_failed_request_after_all_others() {
    let mock = Mock::new()
        .on(URL, 500)
        .then(500)
        .then(200)
        .fallback(MockResponse::text("x").delay(ms(100)));
    let fetcher = builder(&mock).retry(final_round()).build().unwrap();
    let started = Instant::now();
    let inputs = std::iter::once(URL.to_owned()).chain(urls("b", 30));
    let results = fetcher.batch(inputs).concurrency(3).gather().await;
    assert!(all_ok(&results));
    assert_eq!(results[0].as_ref().unwrap().attempts().len(), 3);
    assert_eq!(received_at_ms(&mock, URL, started), [0, 100, 1_000]);
}

#[tokio::test(start_paused = true)]
async fn final_round_adds_one_attempt_whose_outcome_is_the_result() {
    let mock = Mock::new().fallback(ErrorKind::Closed);
    let fetcher = builder(&mock).retry(final_round()).build().unwrap();
    let results = fetcher.gather(urls("a", 5)).await;
    for result in results {
        assert_eq!(result.unwrap_err().attempts().len(), 3);
    }
    assert_eq!(mock.request_count(), 15);
    let mut in_order = fetcher.batch(urls("b", 5)).in_order();
    let mut count = 0;
    while let Some(completed) = in_order.next().await {
        assert_eq!(completed.index, count);
        count += 1;
    }
    assert_eq!((count, mock.request_count()), (5, 30));
}

#[tokio::test(start_paused = true)]
async fn permanent_errors_and_single_fetches_skip_final_round() {
    let mock = Mock::new().on(URL, ErrorKind::Tls).fallback(500);
    let fetcher = builder(&mock).retry(final_round()).build().unwrap();
    fetcher.gather([URL]).await;
    assert_eq!(mock.request_count(), 1);
    fetcher.fetch("http://a.example/").await.unwrap();
    assert_eq!(mock.request_count(), 3);
    let off = fetcher
        .batch(urls("a", 1))
        .retry(Retry::off().final_round(true));
    off.gather().await;
    assert_eq!(mock.request_count(), 4);
}

#[tokio::test(start_paused = true)]
async fn full_look_ahead_window_starts_final_round() {
    let mock = Mock::new().fallback(500);
    let fetcher = builder(&mock)
        .retry(final_round())
        .retry_budget(RetryBudget::off())
        .build()
        .unwrap();
    let results = fetcher
        .batch(urls("a", 1_000))
        .look_ahead(10)
        .gather()
        .await;
    assert_eq!((results.len(), mock.request_count()), (1_000, 3_000));
}

#[tokio::test(start_paused = true)]
async fn look_ahead_window_grows_before_final_round() {
    let mock = Mock::new().fallback(500);
    let fetcher = builder(&mock)
        .retry(final_round())
        .retry_budget(RetryBudget::off())
        .build()
        .unwrap();
    let batch = fetcher.batch(urls("a", 500)).concurrency(2);
    let results = batch.gather().await;
    assert_eq!(results.len(), 500);
    let requests = mock.requests();
    let final_round_urls: Vec<_> = requests[1_000..]
        .iter()
        .map(fanout::MockRequest::url)
        .collect();
    let mut distinct = final_round_urls.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(
        (final_round_urls.len(), distinct.len()),
        (500, 500),
        "the final round starts after all first attempts and retries"
    );
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_waiting_final_round_with_last_result() {
    let mock = Mock::new()
        .on(URL, 500)
        .fallback(MockResponse::text("x").delay(secs(60)));
    let fetcher = builder(&mock).retry(final_round()).build().unwrap();
    let batch = fetcher.batch([URL, "http://b.example/"]).deadline(secs(5));
    let results = batch.gather().await;
    let flaky = results[0].as_ref().unwrap();
    assert_eq!((flaky.status().as_u16(), flaky.attempts().len()), (500, 2));
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Deadline);
}

#[tokio::test(start_paused = true)]
async fn handler_reads_only_final_round_response() {
    let mock = Mock::new().on(URL, 500).then(500).then(503);
    let fetcher = builder(&mock).retry(final_round()).build().unwrap();
    let batch = fetcher
        .batch([URL])
        .read_with(|body| async move { Ok(body.status()) });
    let results = batch.gather().await;
    assert_eq!(*results[0].as_ref().unwrap(), 503);
    assert_eq!(mock.request_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn request_without_retry_budget_gets_final_round() {
    let mock = Mock::new().on(URL, 500).then(200).fallback(500);
    let empty_budget = RetryBudget::default()
        .retry_percent(0)
        .retries_per_second(0);
    let fetcher = builder(&mock).retry_budget(empty_budget).build().unwrap();
    fetcher
        .batch(["http://a.example/none"; 5])
        .retry(Retry::default().max_retries(9))
        .gather()
        .await;
    let results = fetcher.batch([URL]).retry(final_round()).gather().await;
    assert!(all_ok(&results));
}

#[tokio::test(start_paused = true)]
async fn final_round_on_down_host_keeps_previous_error() {
    let mock = Mock::new().on("http://a.example/*", ErrorKind::Connect);
    let fetcher = builder(&mock)
        .breaker(Breaker::default().max_wait(ms(0)))
        .retry(final_round())
        .build()
        .unwrap();
    let results = fetcher.gather(urls("a", 3)).await;
    for result in results {
        let error = result.unwrap_err();
        let outcome = error.attempts().last().map(fanout::Attempt::outcome);
        assert_eq!(outcome, Some(Outcome::Error(ErrorKind::Connect)));
        assert_eq!(error.kind(), ErrorKind::Connect);
    }
    assert_eq!(mock.request_count(), 5);
}
