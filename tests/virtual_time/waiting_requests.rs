//! What waits holds no slot.

use std::time::Duration;

use fanout::{ErrorKind, Mock, MockResponse, Rate, Retry};
use tokio::time::Instant;

use super::{all_ok, answers_in, fetcher, ms, over, received, secs, urls};

#[tokio::test(start_paused = true)]
async fn two_hosts_one_after_the_other_in_the_inputs_are_fetched_side_by_side() {
    let mock = answers_in(100);
    let inputs = urls("a", 100).chain(urls("b", 100));
    let started = Instant::now();
    let batch = fetcher(&mock)
        .batch(inputs)
        .concurrency(10)
        .rate_per_host(Rate::per_second(20));
    assert!(all_ok(&batch.gather().await));
    // The hundredth of each starts after 99 intervals of 50 ms.
    assert_eq!(started.elapsed(), ms(99 * 50 + 100));
    assert!(started.elapsed() <= ms(5000).mul_f64(1.05));
}

/// How long 100 requests to `b` take beside 100 to `a`, of which at most 10 are on the wire at once.
async fn time_of_b(answer_of_a: MockResponse, retry: Retry) -> Duration {
    let mock = Mock::new()
        .on("http://a.example/*", answer_of_a)
        .fallback(MockResponse::text("x").delay(ms(100)));
    let fetcher = over(&mock)
        .retry(retry)
        .concurrency_per_host(5)
        .build()
        .unwrap();
    let started = Instant::now();
    let inputs = urls("a", 100).chain(urls("b", 100));
    let mut done = fetcher.batch(inputs).concurrency(10).as_completed();
    let mut of_b = 0;
    while of_b < 100 {
        let completed = done.next().await.unwrap();
        of_b += usize::from(completed.index >= 100);
    }
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_paused_backs_off_or_stalls_slows_no_other() {
    let alone = secs(2);
    let paused = MockResponse::status(503).header("retry-after", "100");
    assert_eq!(time_of_b(paused, Retry::default()).await, alone);

    let backing_off = Retry::default()
        .base_delay(secs(100))
        .max_delay(secs(100))
        .max_retries(20);
    assert_eq!(
        time_of_b(ErrorKind::Connect.into(), backing_off).await,
        alone
    );

    let stalled = MockResponse::hang();
    assert_eq!(time_of_b(stalled, Retry::default()).await, alone);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_not_in_flight() {
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
async fn a_paused_host_comes_back_at_its_own_rate() {
    let mock = Mock::new()
        .on(
            "http://a.example/0",
            MockResponse::status(503).header("retry-after", "3"),
        )
        .fallback(200);
    let fetcher = over(&mock)
        .rate_per_host(Rate::per_second(2))
        .retry(Retry::off())
        .build()
        .unwrap();
    let started = Instant::now();
    fetcher.gather(urls("a", 4)).await;
    let starts = received(&mock, "", started);
    assert_eq!(starts[..2], [0, 3000]);
    // A start may make up for two milliseconds of lateness.
    assert!(
        starts[1..].windows(2).all(|pair| pair[1] - pair[0] >= 498),
        "{starts:?}"
    );
}
