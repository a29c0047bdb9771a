//! Waiting requests hold no slot.

use std::time::Duration;

use fanout::{ErrorKind, Mock, MockResponse, Rate, Retry};
use tokio::time::Instant;

use super::{all_ok, builder, fetcher, ms, received_at_ms, responding_after_ms, secs, urls};

#[tokio::test(start_paused = true)]
async fn consecutive_hosts_in_inputs_are_fetched_concurrently() {
    let mock = responding_after_ms(100);
    let inputs = urls("a", 100).chain(urls("b", 100));
    let started = Instant::now();
    let batch = fetcher(&mock)
        .batch(inputs)
        .concurrency(10)
        .rate_per_host(Rate::per_second(20));
    assert!(all_ok(&batch.gather().await));
    // The hundredth request of each host starts after 99 intervals of 50 ms.
    assert_eq!(started.elapsed(), ms(99 * 50 + 100));
    assert!(started.elapsed() <= ms(5000).mul_f64(1.05));
}

/// Returns the time that 100 requests to host `b` take next to 100 requests to host `a`, with
/// concurrency 10.
async fn elapsed_of_b(response_of_a: MockResponse, retry: Retry) -> Duration {
    let mock = Mock::new()
        .on("http://a.example/*", response_of_a)
        .fallback(MockResponse::text("x").delay(ms(100)));
    let fetcher = builder(&mock)
        .retry(retry)
        .concurrency_per_host(5)
        .build()
        .unwrap();
    let started = Instant::now();
    let inputs = urls("a", 100).chain(urls("b", 100));
    let mut done = fetcher.batch(inputs).concurrency(10).as_completed();
    let mut completed_of_b = 0;
    while completed_of_b < 100 {
        let completed = done.next().await.unwrap();
        completed_of_b += usize::from(completed.index >= 100);
    }
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn paused_or_stalled_host_delays_no_other() {
    let time_without_a = secs(2);
    let paused = MockResponse::status(503).header("retry-after", "100");
    assert_eq!(elapsed_of_b(paused, Retry::default()).await, time_without_a);

    let backing_off = Retry::default()
        .base_delay(secs(100))
        .max_delay(secs(100))
        .max_retries(20);
    assert_eq!(
        elapsed_of_b(ErrorKind::Connect.into(), backing_off).await,
        time_without_a
    );

    let stalled = MockResponse::hang();
    assert_eq!(
        elapsed_of_b(stalled, Retry::default()).await,
        time_without_a
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_request_is_not_in_flight() {
    let mock = Mock::new()
        .on(
            "http://a.example/*",
            MockResponse::status(429).header("retry-after", "50"),
        )
        .then(200);
    let fetcher = fetcher(&mock);
    let batch = tokio::spawn(async move {
        fetcher
            .batch(urls("a", 20))
            .concurrency(1)
            .gather()
            .await
            .len()
    });
    tokio::time::sleep(secs(25)).await;
    assert_eq!((mock.request_count(), mock.in_flight()), (1, 0));
    assert_eq!(batch.await.unwrap(), 20);
    assert_eq!(mock.request_count(), 21);
}

#[tokio::test(start_paused = true)]
async fn rate_applies_after_host_pause() {
    let mock = Mock::new()
        .on(
            "http://a.example/0",
            MockResponse::status(503).header("retry-after", "3"),
        )
        .fallback(200);
    let fetcher = builder(&mock)
        .rate_per_host(Rate::per_second(2))
        .retry(Retry::off())
        .build()
        .unwrap();
    let started = Instant::now();
    fetcher.gather(urls("a", 4)).await;
    let starts = received_at_ms(&mock, "", started);
    assert_eq!(starts[..2], [0, 3000]);
    // The rate lets a start catch up on 2 ms of timer delay.
    assert!(
        starts[1..].windows(2).all(|pair| pair[1] - pair[0] >= 498),
        "{starts:?}"
    );
}
