//! Edge cases: endless inputs, unlimited timeouts, dropped fetches and tasks that are always ready.

use std::iter::repeat;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fanout::{ErrorKind, Fetcher, Host, Mock, MockResponse, Rate, Request, Timeouts};
use futures_core::Stream;
use tokio::time::{Instant, timeout};

use super::{all_ok, builder, fetcher, ms, responding_after_ms, secs, urls};

const URL: &str = "http://a.example/";

/// A stream that is always ready and never ends.
struct Endless;

impl Stream for Endless {
    type Item = &'static str;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<&'static str>> {
        Poll::Ready(Some(URL))
    }
}

/// A stream that yields three inputs and then stays pending.
struct PendingAfterThree(usize);

impl Stream for PendingAfterThree {
    type Item = &'static str;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<&'static str>> {
        if self.0 == 3 {
            return Poll::Pending;
        }
        self.0 += 1;
        Poll::Ready(Some(URL))
    }
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_batch_with_endless_inputs() {
    let mock = responding_after_ms(10);
    let fetcher = fetcher(&mock);
    let started = Instant::now();
    let batch = fetcher.batch(repeat(URL)).concurrency(4);
    let mut done = batch.deadline(ms(200)).as_completed();
    let mut last_index = 0;
    while let Some(completed) = done.next().await {
        last_index = completed.index;
    }
    assert_eq!(started.elapsed(), ms(200));
    assert!(last_index < 200, "{last_index} inputs were pulled");
    let batch = fetcher.batch_from_stream(Endless).concurrency(4);
    let results = batch.deadline(ms(200)).gather().await;
    assert_eq!(started.elapsed(), ms(400));
    assert!(results.len() < 200);
}

#[tokio::test(start_paused = true)]
async fn try_gather_fails_if_deadline_passes_before_inputs_end() {
    let fetcher = fetcher(&responding_after_ms(10));
    let batch = fetcher
        .batch_from_stream(PendingAfterThree(0))
        .deadline(ms(300));
    let error = batch.try_gather().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadline);
}

#[tokio::test(start_paused = true)]
async fn try_gather_of_endless_inputs_ends_on_first_error() {
    let fetcher = fetcher(&responding_after_ms(10));
    let error = fetcher
        .batch(repeat("no URL"))
        .try_gather()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[tokio::test(start_paused = true)]
async fn duration_beyond_clock_range_never_elapses() {
    let mock = responding_after_ms(10);
    let timeouts = Timeouts::default()
        .connect(Duration::MAX)
        .response_head(Duration::MAX)
        .body_idle(Duration::MAX)
        .total(Duration::MAX);
    let fetcher = builder(&mock).timeouts(timeouts).build().unwrap();
    let unlimited = Request::get(URL).timeout(Duration::MAX);
    let requests = [Request::get(URL), unlimited, Request::get(URL)];
    let batch = fetcher.batch(&requests).deadline(Duration::MAX);
    assert!(all_ok(&batch.concurrency(1).gather().await));
}

#[tokio::test(start_paused = true)]
async fn slot_freed_by_another_batch_starts_any_ready_host() {
    let mock = responding_after_ms(300);
    let slow_host = Host::new().rate(Rate::new(1, secs(60)));
    let fetcher = builder(&mock)
        .concurrency(2)
        .host("http://x.example", slow_host)
        .build()
        .unwrap();
    fetcher.fetch("http://x.example/warm").await.unwrap();
    let fetcher_clone = fetcher.clone();
    let occupying_batch =
        tokio::spawn(async move { fetcher_clone.gather(urls("held", 2)).await.len() });
    tokio::time::sleep(ms(50)).await;
    let started = Instant::now();
    let inputs: Vec<String> = urls("x", 33).chain(urls("y", 5)).collect();
    let mut done = fetcher.as_completed(inputs);
    let first = done.next().await.unwrap();
    assert!(
        first.request.url_str().starts_with("http://y."),
        "{:?}",
        first.request
    );
    assert_eq!(started.elapsed(), ms(250 + 300));
    assert_eq!(occupying_batch.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn look_ahead_equal_to_concurrency_leaves_no_slot_idle() {
    let mock = responding_after_ms(100);
    let fetcher = fetcher(&mock);
    let started = Instant::now();
    let batch = fetcher.batch(urls("a", 100)).concurrency(10).look_ahead(10);
    assert!(all_ok(&batch.gather().await));
    assert_eq!((started.elapsed(), mock.max_in_flight()), (secs(1), 10));
}

#[tokio::test]
async fn batch_that_is_always_ready_yields_to_runtime() {
    let fetcher = fetcher(&Mock::new().fallback("x"));
    let invalid = fetcher.gather(std::iter::repeat_n("no URL", 3_000_000));
    assert!(timeout(ms(50), invalid).await.is_err());
    let ready = fetcher.gather(std::iter::repeat_n(URL, 3_000_000));
    assert!(timeout(ms(50), ready).await.is_err());
}

/// A request body that holds a reference until it is dropped.
struct CountedBody {
    _reference: Arc<()>,
}

impl AsRef<[u8]> for CountedBody {
    fn as_ref(&self) -> &[u8] {
        b"body"
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_fetches_leave_queue_of_waiting_host() {
    let mock = Mock::new().fallback("x");
    let hourly_host = Host::new().rate(Rate::per_hour(1));
    let fetcher = builder(&mock).host(URL, hourly_host).build().unwrap();
    fetcher.fetch(URL).await.unwrap();
    let waiting_fetch = tokio::spawn(fetcher.fetch(URL));
    tokio::time::sleep(ms(1)).await;
    let live_bodies = Arc::new(());
    for _ in 0..2_000 {
        let body = CountedBody {
            _reference: Arc::clone(&live_bodies),
        };
        let request = Request::put(URL).body(bytes::Bytes::from_owner(body));
        assert!(timeout(ms(1), fetcher.fetch(request)).await.is_err());
    }
    let live_bodies = Arc::strong_count(&live_bodies) - 1;
    assert!(live_bodies < 1_000, "{live_bodies}");
    assert!(waiting_fetch.await.unwrap().is_ok());
    assert_eq!(mock.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn cross_origin_redirect_drops_host_and_api_key_headers() {
    let redirect = MockResponse::status(307).header("location", "http://b.example/");
    let mock = Mock::new().on(URL, redirect).fallback("there");
    let request = Request::post(URL)
        .header("host", "www.a.example")
        .header("x-api-key", "s3cr3t")
        .header("idempotency-key", "7")
        .header("x-plain", "stays");
    fetcher(&mock).fetch(request).await.unwrap();
    let requests = mock.requests();
    let header = |hop: usize, name: &str| {
        let values = requests[hop].headers().get_all(name);
        values
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(header(0, "host"), ["www.a.example"]);
    assert_eq!(header(1, "host"), ["b.example"]);
    assert_eq!(header(0, "x-api-key"), ["s3cr3t"]);
    assert!(header(1, "x-api-key").is_empty());
    assert_eq!(
        (header(1, "idempotency-key"), header(1, "x-plain")),
        (vec!["7".into()], vec!["stays".into()])
    );
}

#[tokio::test(start_paused = true)]
async fn mock_is_not_limited_by_descriptor_budget() {
    let mock = responding_after_ms(1000);
    let fetcher: Fetcher = fetcher(&mock);
    let batch = fetcher.batch(urls("a", 30_000)).concurrency(30_000);
    assert!(all_ok(&batch.gather().await));
    assert_eq!(mock.max_in_flight(), 30_000);
}
