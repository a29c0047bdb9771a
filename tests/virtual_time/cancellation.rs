//! Requests and batches that end early: dropped, failed or past their deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{ErrorKind, Fetcher, Mock, MockResponse, Rate, Retry};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::{all_ok, builder, fetcher, ms, secs, urls};

/// Returns a mock whose host `a` never responds, and a fetcher with concurrency 5.
fn unresponsive_host_with_five_slots() -> (Mock, Fetcher) {
    let mock = Mock::new()
        .on("http://a.example/*", MockResponse::hang())
        .fallback(MockResponse::text("x").delay(ms(100)));
    let fetcher = builder(&mock).concurrency(5).build().unwrap();
    (mock, fetcher)
}

/// Asserts that the dropped batch left nothing in flight and freed all slots.
async fn assert_batch_left_nothing(mock: &Mock, fetcher: &Fetcher) {
    let started = Instant::now();
    assert_eq!(mock.request_count_to("http://a.example/*"), 5);
    assert!(all_ok(&fetcher.gather(urls("b", 10)).await));
    assert_eq!(started.elapsed(), ms(200));
    assert_eq!(mock.max_in_flight_to("http://b.example/*"), 5);
    assert_eq!(
        (
            mock.request_count_to("http://a.example/*"),
            mock.in_flight()
        ),
        (5, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_gather_cancels_its_requests_and_frees_slots() {
    let (mock, fetcher) = unresponsive_host_with_five_slots();
    assert!(
        timeout(secs(1), fetcher.gather(urls("a", 100)))
            .await
            .is_err()
    );
    yield_now().await;
    assert_eq!(mock.in_flight(), 0);
    assert_batch_left_nothing(&mock, &fetcher).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_result_stream_cancels_its_requests_and_frees_slots() {
    let (mock, fetcher) = unresponsive_host_with_five_slots();
    let mut done = fetcher.as_completed(urls("a", 100));
    assert!(timeout(secs(1), done.next()).await.is_err());
    assert_eq!(mock.in_flight(), 5);
    drop(done);
    assert_batch_left_nothing(&mock, &fetcher).await;

    let (mock, fetcher) = unresponsive_host_with_five_slots();
    let mut done = fetcher.batch(urls("a", 100)).in_order();
    assert!(timeout(secs(1), done.next()).await.is_err());
    drop(done);
    assert_batch_left_nothing(&mock, &fetcher).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_next_future_loses_no_result() {
    let mock = super::responding_after_ms(1000);
    let mut done = fetcher(&mock).as_completed(urls("a", 3));
    assert!(timeout(ms(10), done.next()).await.is_err());
    assert_eq!(mock.in_flight(), 3);
    for _ in 0..3 {
        done.next().await.unwrap().result.unwrap();
    }
    assert_eq!(mock.request_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn dropping_fetch_cancels_it_in_flight_or_queued() {
    let (mock, fetcher) = unresponsive_host_with_five_slots();
    let tasks: Vec<_> = urls("a", 8)
        .map(|url| tokio::spawn(fetcher.fetch(url)))
        .collect();
    sleep(secs(1)).await;
    assert_eq!(mock.in_flight(), 5);
    // Queued requests are aborted first, so that none starts when a slot is freed.
    for task in tasks.iter().rev() {
        task.abort();
        yield_now().await;
    }
    assert_batch_left_nothing(&mock, &fetcher).await;
}

#[tokio::test(start_paused = true)]
async fn requests_dropped_before_sending_are_never_sent() {
    let (mock, fetcher) = unresponsive_host_with_five_slots();
    // A single poll submits the requests. Their workers have not run yet.
    assert!(
        timeout(ms(0), fetcher.gather(urls("a", 100)))
            .await
            .is_err()
    );
    sleep(secs(1)).await;
    let sent = mock.request_count();
    assert!(sent == 0 || sent == 5, "{sent}");

    let (mock, fetcher) = unresponsive_host_with_five_slots();
    let mut gather = Box::pin(fetcher.gather(urls("a", 100)));
    let pending =
        std::future::poll_fn(|cx| std::task::Poll::Ready(gather.as_mut().poll(cx).is_pending()));
    assert!(pending.await);
    drop(gather);
    sleep(secs(1)).await;
    assert_eq!(
        mock.request_count(),
        0,
        "the transport is not called after the drop"
    );
}

#[tokio::test(start_paused = true)]
async fn batch_does_nothing_before_first_poll() {
    let (mock, fetcher) = unresponsive_host_with_five_slots();
    let pulled = Arc::new(AtomicUsize::new(0));
    let inputs = urls("a", 10).inspect(|_| {
        pulled.fetch_add(1, Relaxed);
    });
    let gather = fetcher.gather(inputs);
    let fetch = fetcher.fetch("http://b.example/");
    sleep(secs(1)).await;
    drop((gather, fetch));
    assert_eq!((mock.request_count(), pulled.load(Relaxed)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn try_gather_cancels_remaining_requests_on_first_error() {
    let mock = Mock::new()
        .on(
            "http://a.example/7",
            MockResponse::error(ErrorKind::Closed).delay(ms(500)),
        )
        .fallback(MockResponse::text("x").delay(secs(20)));
    let fetcher = builder(&mock)
        .concurrency(10)
        .retry(Retry::off())
        .build()
        .unwrap();
    let started = Instant::now();
    let error = fetcher
        .batch(urls("a", 1000))
        .try_gather()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.url()),
        (ErrorKind::Closed, Some("http://a.example/7"))
    );
    assert_eq!(started.elapsed(), ms(500));
    // The slot of the failed request was reused before the caller received the error.
    sleep(secs(60)).await;
    assert_eq!((mock.in_flight(), mock.request_count()), (0, 11));
}

#[tokio::test(start_paused = true)]
async fn try_gather_returns_responses_in_order_including_404() {
    let mock = Mock::new().on("http://a.example/1", 404).fallback(200);
    let responses = fetcher(&mock)
        .batch(urls("a", 3))
        .try_gather()
        .await
        .unwrap();
    let statuses: Vec<_> = responses
        .iter()
        .map(|response| response.status().as_u16())
        .collect();
    assert_eq!(statuses, [200, 404, 200]);
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_every_input_at_once() {
    let mock = super::responding_after_ms(10_000);
    let started = Instant::now();
    let batch = fetcher(&mock)
        .batch(urls("a", 5000))
        .concurrency(10)
        .deadline(secs(25));
    let results = batch.gather().await;
    assert_eq!(results.len(), 5000);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
    let errors: Vec<_> = results
        .iter()
        .flat_map(|result| result.as_ref().err())
        .collect();
    assert!(
        errors
            .iter()
            .all(|error| error.kind() == ErrorKind::Deadline && error.is_timeout())
    );
    assert_eq!(errors.iter().filter(|error| error.maybe_sent()).count(), 10);
    assert_eq!(
        errors
            .iter()
            .filter(|error| error.attempts().len() == 1)
            .count(),
        10
    );
    assert_eq!(started.elapsed(), secs(25));
    assert_eq!(mock.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_deadline_as_completed_delivers_pulled_inputs_and_pulls_no_more() {
    let mock = super::responding_after_ms(10_000);
    let pulled = Arc::new(AtomicUsize::new(0));
    let inputs = urls("a", 5000).inspect(|_| {
        pulled.fetch_add(1, Relaxed);
    });
    let started = Instant::now();
    let batch = fetcher(&mock)
        .batch(inputs)
        .concurrency(10)
        .deadline(secs(25));
    let mut done = batch.as_completed();
    let mut delivered = 0;
    while done.next().await.is_some() {
        delivered += 1;
    }
    assert_eq!(started.elapsed(), secs(25));
    drop(done);
    assert_eq!(delivered, pulled.load(Relaxed));
    assert!(delivered <= 200, "{delivered}");
}

#[tokio::test(start_paused = true)]
async fn retry_that_cannot_start_before_deadline_ends_at_once_with_last_result() {
    let mock = Mock::new()
        .on(
            "http://a.example/*",
            MockResponse::status(503).header("retry-after", "60"),
        )
        .on("http://b.example/*", ErrorKind::Closed);
    let fetcher = fetcher(&mock);
    let started = Instant::now();
    let results = fetcher
        .batch(urls("a", 3))
        .deadline(secs(30))
        .gather()
        .await;
    assert_eq!(started.elapsed(), ms(0));
    assert!(
        results
            .iter()
            .flatten()
            .all(|response| response.status() == 503 && response.attempts().len() == 1)
    );
    assert_eq!(results.len(), 3);

    // The rate delays the second attempt beyond the deadline.
    let retry = Retry::default().base_delay(ms(1));
    let rate = Rate::per_minute(1);
    let started = Instant::now();
    let results = fetcher
        .batch(urls("b", 1))
        .retry(retry)
        .rate(rate)
        .deadline(secs(30))
        .gather()
        .await;
    assert!(started.elapsed() <= ms(2));
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Closed, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn request_that_cannot_start_before_deadline_ends_at_once() {
    let mock = Mock::new().on(
        "http://a.example/*",
        MockResponse::status(503).header("retry-after", "60"),
    );
    let fetcher = builder(&mock).retry(Retry::off()).build().unwrap();
    fetcher.fetch("http://a.example/").await.unwrap();
    let started = Instant::now();
    let results = fetcher
        .batch(urls("a", 100))
        .deadline(secs(30))
        .gather()
        .await;
    assert_eq!(started.elapsed(), ms(0));
    for result in results {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts().len()),
            (ErrorKind::Deadline, 0)
        );
        assert!(!error.maybe_sent());
    }
}
