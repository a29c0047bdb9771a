//! `Batch::stop_when`: a result that dooms the rest drains the batch, in every ending.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{ErrorKind, Host, Mock, MockRequest, MockResponse, Request, Response, Result, Retry};
use tokio::time::{Instant, sleep};

use super::batch_control::{ENDINGS, Ending, count_outcomes, is_unsent};
use super::{builder, fetcher, ms, responding_after_ms, urls};

/// Responds after 100 ms: with 401 to the request with number 25, and with 200 to all others.
fn revoking_the_key() -> Mock {
    Mock::new().fallback(MockResponse::from_fn(|request: &MockRequest| {
        let is_refused = request.url().ends_with("/25");
        MockResponse::status(if is_refused { 401 } else { 200 }).delay(ms(100))
    }))
}

fn is_unauthorized(result: &Result<Response>) -> bool {
    matches!(result, Ok(response) if response.status() == 401)
}

#[tokio::test(start_paused = true)]
async fn batch_is_drained_after_the_result_in_every_ending() {
    for ending in ENDINGS {
        let mock = revoking_the_key();
        let batch = fetcher(&mock).batch(urls("a", 100)).concurrency(10);
        let results = ending.run(batch.stop_when(is_unauthorized)).await;
        if ending == Ending::TryGather {
            assert!(is_unsent(results[0].as_ref().unwrap_err()));
        } else {
            // Five requests end before number 25 at the same instant, and five others start.
            assert_eq!(count_outcomes(&results), (35, 0, 65), "{ending:?}");
        }
        assert_eq!(mock.request_count(), 35, "{ending:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn batch_is_drained_although_its_consumer_does_not_take_results() {
    let mock = revoking_the_key();
    let batch = fetcher(&mock).batch(urls("a", 100)).concurrency(10);
    let mut done = batch.stop_when(is_unauthorized).as_completed();
    done.next().await.unwrap().result.unwrap();
    sleep(ms(60_000)).await;
    assert_eq!(mock.request_count(), 35);
    let mut results = vec![];
    while let Some(completed) = done.next().await {
        results.push(completed.result);
    }
    assert_eq!(count_outcomes(&results), (34, 0, 65));
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_complete() {
    let mock = Mock::new()
        .on("*/0", MockResponse::status(401).delay(ms(10)))
        .fallback(MockResponse::text("x").delay(ms(500)));
    let batch = fetcher(&mock).batch(urls("a", 100)).concurrency(10);
    let started = Instant::now();
    let results = batch.stop_when(is_unauthorized).gather().await;
    assert_eq!(count_outcomes(&results), (10, 0, 90));
    assert_eq!(started.elapsed(), ms(500));
}

#[tokio::test(start_paused = true)]
async fn function_is_called_once_per_result_and_not_for_attempts() {
    let mock = Mock::new()
        .on("*/0", MockResponse::status(503))
        .then(MockResponse::text("x"))
        .fallback(MockResponse::text("x").delay(ms(10)));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let batch = fetcher(&mock)
        .batch(urls("a", 10))
        .stop_when(move |result| {
            counted.fetch_add(1, Relaxed);
            result
                .as_ref()
                .map_or(true, |response| response.status() != 200)
        });
    let results = batch.gather().await;
    assert_eq!(count_outcomes(&results), (10, 0, 0));
    assert_eq!(results[0].as_ref().unwrap().attempts().len(), 2);
    assert_eq!(calls.load(Relaxed), 10);
}

#[tokio::test(start_paused = true)]
async fn result_has_its_attempts_and_url() {
    let mock = Mock::new().fallback(MockResponse::error(ErrorKind::Connect));
    let batch = fetcher(&mock).batch(urls("a", 1));
    let batch = batch.retry(Retry::default().max_retries(1));
    let results = batch
        .stop_when(|result| {
            let error = result.as_ref().unwrap_err();
            assert_eq!(error.attempts().len(), 2);
            assert_eq!(error.url(), Some("http://a.example/0"));
            true
        })
        .gather()
        .await;
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Connect, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn results_of_requests_that_never_start_count() {
    for ending in [Ending::Gather, Ending::AsCompleted, Ending::InOrder] {
        let mock = responding_after_ms(100);
        let inputs = ["not a URL".to_owned()].into_iter().chain(urls("a", 50));
        let batch = fetcher(&mock).batch(inputs).concurrency(10);
        let results = ending.run(batch.stop_when(Result::is_err)).await;
        assert_eq!(
            results[0].as_ref().unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
        assert_eq!(mock.request_count(), 0, "{ending:?}");
        assert!(
            results[1..]
                .iter()
                .all(|result| is_unsent(result.as_ref().unwrap_err()))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_function_fails_only_its_input() {
    let mock = responding_after_ms(10);
    let batch = fetcher(&mock).batch(urls("a", 10)).concurrency(2);
    let results = batch
        .stop_when(|result| {
            let url = result.as_ref().unwrap().url();
            assert_ne!(url.path(), "/3", "a panic in `stop_when`");
            false
        })
        .gather()
        .await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 9);
    let error = results[3].as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.url(), error.maybe_sent()),
        (ErrorKind::Panicked, Some("http://a.example/3"), true)
    );
    assert_eq!(error.response().unwrap().text(), "x");
}

#[tokio::test(start_paused = true)]
async fn other_batches_continue() {
    let mock = revoking_the_key();
    let fetcher = builder(&mock)
        .host("http://a.example", Host::new().concurrency(10))
        .build()
        .unwrap();
    let stopped = fetcher.batch(urls("a", 100)).stop_when(is_unauthorized);
    let other = fetcher.batch(urls("a", 100));
    let (stopped, other) = tokio::join!(stopped.gather(), other.gather());
    assert_eq!(count_outcomes(&other), (100, 0, 0));
    assert!(count_outcomes(&stopped).2 > 0);
}

#[tokio::test(start_paused = true)]
async fn handler_error_can_stop_the_batch() {
    let mock = responding_after_ms(100);
    let batch = fetcher(&mock).batch(urls("a", 100)).concurrency(10);
    let results = batch
        .stop_when(|result| {
            result
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::Handler)
        })
        .read_with(|body| async move {
            if body.url().path() == "/5" {
                return Err("no more disk space".into());
            }
            Ok(())
        })
        .gather()
        .await;
    assert_eq!(count_outcomes(&results), (14, 0, 85));
    assert_eq!(mock.request_count(), 15);
}

/// Links found in results are not followed after the stop.
#[tokio::test(start_paused = true)]
async fn found_links_are_not_followed_after_the_stop() {
    let mock = revoking_the_key();
    let start = [Request::get("http://a.example/24")];
    let batch = fetcher(&mock).batch(start).stop_when(is_unauthorized);
    let mut done =
        batch
            .as_completed()
            .follow_links(fanout::FollowLimits::default(), |completed| {
                let number: u32 = completed
                    .request
                    .url_str()
                    .rsplit('/')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap();
                vec![Request::get(format!("http://a.example/{}", number + 1))]
            });
    let mut paths = vec![];
    while let Some(completed) = done.next().await {
        paths.push(completed.request.url_str().to_owned());
    }
    assert_eq!(paths, ["http://a.example/24", "http://a.example/25"]);
}
