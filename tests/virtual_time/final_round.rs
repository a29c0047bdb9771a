//! One more attempt at the end of the batch.

use fanout::{Breaker, Error, ErrorKind, Mock, MockResponse, Outcome, Retry, RetryBudget};
use tokio::time::Instant;

use super::{all_ok, ms, over, received, secs, urls};

const URL: &str = "http://a.example/flaky";

fn final_round() -> Retry {
    Retry::default()
        .max_retries(1)
        .base_delay(ms(0))
        .final_round(true)
}

#[tokio::test(start_paused = true)]
async fn what_failed_goes_once_more_after_all_the_others() {
    let mock = Mock::new()
        .on(URL, 500)
        .then(500)
        .then(200)
        .fallback(MockResponse::text("x").delay(ms(100)));
    let fetcher = over(&mock).retry(final_round()).build().unwrap();
    let started = Instant::now();
    let inputs = std::iter::once(URL.to_owned()).chain(urls("b", 30));
    let results = fetcher.batch(inputs).concurrency(3).gather().await;
    assert!(all_ok(&results));
    assert_eq!(results[0].as_ref().unwrap().attempts().len(), 3);
    assert_eq!(received(&mock, URL, started), [0, 100, 1_000]);
}

#[tokio::test(start_paused = true)]
async fn it_goes_once_and_its_end_is_the_result_in_every_ending() {
    let mock = Mock::new().fallback(ErrorKind::Closed);
    let fetcher = over(&mock).retry(final_round()).build().unwrap();
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
async fn what_nothing_can_mend_and_single_fetches_have_none() {
    let mock = Mock::new().on(URL, ErrorKind::Tls).fallback(500);
    let fetcher = over(&mock).retry(final_round()).build().unwrap();
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
async fn a_window_full_of_them_starts_them() {
    let mock = Mock::new().fallback(500);
    let fetcher = over(&mock)
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
async fn the_window_grows_before_a_round_begins() {
    let mock = Mock::new().fallback(500);
    let fetcher = over(&mock)
        .retry(final_round())
        .retry_budget(RetryBudget::off())
        .build()
        .unwrap();
    let batch = fetcher.batch(urls("a", 500)).concurrency(2);
    let results = batch.gather().await;
    assert_eq!(results.len(), 500);
    let requests = mock.requests();
    let last: Vec<_> = requests[1_000..]
        .iter()
        .map(fanout::MockRequest::url)
        .collect();
    let mut distinct = last.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(
        (last.len(), distinct.len()),
        (500, 500),
        "all went twice before any went last"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_answers_them_with_what_they_came_to() {
    let mock = Mock::new()
        .on(URL, 500)
        .fallback(MockResponse::text("x").delay(secs(60)));
    let fetcher = over(&mock).retry(final_round()).build().unwrap();
    let batch = fetcher.batch([URL, "http://b.example/"]).deadline(secs(5));
    let results = batch.gather().await;
    let flaky = results[0].as_ref().unwrap();
    assert_eq!((flaky.status().as_u16(), flaky.attempts().len()), (500, 2));
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_handler_reads_only_the_last_answer() {
    let mock = Mock::new().on(URL, 500).then(500).then(503);
    let fetcher = over(&mock).retry(final_round()).build().unwrap();
    let batch = fetcher
        .batch([URL])
        .read_with(|body| async move { Ok::<_, Error>(body.status()) });
    let results = batch.gather().await;
    assert_eq!(*results[0].as_ref().unwrap(), 503);
    assert_eq!(mock.request_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_the_budget_refused_has_its_round() {
    let mock = Mock::new().on(URL, 500).then(200).fallback(500);
    let none = RetryBudget::default()
        .retry_percent(0)
        .retries_per_second(0);
    let fetcher = over(&mock).retry_budget(none).build().unwrap();
    fetcher
        .batch(["http://a.example/none"; 5])
        .retry(Retry::default().max_retries(9))
        .gather()
        .await;
    let results = fetcher.batch([URL]).retry(final_round()).gather().await;
    assert!(all_ok(&results));
}

#[tokio::test(start_paused = true)]
async fn one_whose_host_is_down_by_then_keeps_what_it_came_to() {
    let mock = Mock::new().on("http://a.example/*", ErrorKind::Connect);
    let fetcher = over(&mock)
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
