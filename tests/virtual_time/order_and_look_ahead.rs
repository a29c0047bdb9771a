//! The order of results and the look-ahead window of inputs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use fanout::{Body, Error, Fetcher, Mock, MockRequest, MockResponse, Rate, Request};
use futures_core::Stream;
use tokio::time::{Instant, sleep, timeout};

use super::{all_ok, fetcher, ms, responding_after_ms, secs, urls};

/// Returns a mock that responds with the number in the path after that many milliseconds.
fn responding_with_path_number() -> Mock {
    let number = |request: &MockRequest| {
        let millis: u64 = request.uri().path()[1..].parse().unwrap();
        MockResponse::text(millis.to_string()).delay(ms(millis))
    };
    Mock::new().on("*", MockResponse::from_fn(number))
}

/// Wraps an iterator so that the pulled inputs are counted.
fn count_pulled<I: Iterator>(inputs: I) -> (impl Iterator<Item = I::Item>, Arc<AtomicUsize>) {
    let pulled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pulled);
    let inputs = inputs.inspect(move |_| {
        counter.fetch_add(1, Relaxed);
    });
    (inputs, pulled)
}

#[tokio::test(start_paused = true)]
async fn gather_keeps_input_order() {
    let started = Instant::now();
    let urls = [300, 100, 200].map(|n| format!("http://a.example/{n}"));
    let results = fetcher(&responding_with_path_number()).gather(&urls).await;
    let texts: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().unwrap().text())
        .collect();
    assert_eq!(texts, ["300", "100", "200"]);
    assert_eq!(started.elapsed(), ms(300));
}

#[tokio::test(start_paused = true)]
async fn as_completed_delivers_fastest_first_with_its_tag() {
    let urls = ["http://a.example/300", "bad", "http://a.example/200"];
    let fetcher = fetcher(&responding_with_path_number());
    let mut done = fetcher.as_completed(urls.iter().enumerate().map(|(n, url)| (n * 10, *url)));
    let mut order = vec![];
    while let Some(completed) = done.next().await {
        assert_eq!(completed.tag, completed.index * 10);
        assert_eq!(completed.request.url_str(), urls[completed.index]);
        order.push(completed.index);
    }
    assert_eq!(order, [1, 2, 0]);
    assert!(done.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn empty_batch_has_no_results() {
    let fetcher = fetcher(&Mock::new());
    assert!(fetcher.gather(Vec::<String>::new()).await.is_empty());
    assert!(
        fetcher
            .batch(Vec::<String>::new())
            .try_gather()
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        fetcher
            .as_completed(Vec::<String>::new())
            .next()
            .await
            .is_none()
    );
    assert!(
        fetcher
            .batch(Vec::<String>::new())
            .in_order()
            .next()
            .await
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn in_order_pulls_no_further_than_look_ahead() {
    let mock = Mock::new()
        .on(
            "http://a.example/0",
            MockResponse::text("slow").delay(secs(10)),
        )
        .fallback(MockResponse::text("x").delay(ms(10)));
    let (inputs, pulled) = count_pulled(urls("a", 1000));
    let mut done = fetcher(&mock)
        .batch(inputs)
        .concurrency(10)
        .look_ahead(50)
        .in_order();
    let started = Instant::now();
    for index in 0..1000 {
        let completed = done.next().await.unwrap();
        assert_eq!(completed.index, index);
        assert!(pulled.load(Relaxed) - index <= 50, "{pulled:?} at {index}");
        if index == 0 {
            assert_eq!(started.elapsed(), secs(10));
            assert_eq!(mock.request_count(), 50);
        }
    }
    assert!(done.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn in_order_retries_first_request_while_window_is_full() {
    let mock = Mock::new()
        .on(
            "http://a.example/0",
            MockResponse::status(503).header("retry-after", "60"),
        )
        .then(200)
        .fallback(200);
    let mut done = fetcher(&mock)
        .batch(urls("a", 100))
        .concurrency(2)
        .look_ahead(4)
        .in_order();
    let mut delivered = 0;
    while let Some(completed) = done.next().await {
        assert_eq!(
            (completed.index, completed.result.unwrap().status().as_u16()),
            (delivered, 200)
        );
        delivered += 1;
    }
    assert_eq!(delivered, 100);
}

#[tokio::test(start_paused = true)]
async fn stopped_consumer_stops_new_starts() {
    let mock = responding_after_ms(10);
    let mut done = fetcher(&mock)
        .batch(urls("a", 1000))
        .concurrency(4)
        .look_ahead(16)
        .as_completed();
    done.next().await.unwrap();
    sleep(secs(3600)).await;
    assert_eq!((mock.request_count(), mock.in_flight()), (16, 0));
    let mut remaining = 0;
    while done.next().await.is_some() {
        remaining += 1;
    }
    assert_eq!((remaining, mock.request_count()), (999, 1000));
}

#[tokio::test(start_paused = true)]
async fn slow_consumer_does_not_delay_requests_in_flight() {
    let mock = Mock::new().fallback(MockResponse::text("x").delay(ms(10)).body_delay(ms(10)));
    let mut done = fetcher(&mock)
        .batch(urls("a", 8))
        .concurrency(8)
        .as_completed();
    while let Some(completed) = done.next().await {
        assert_eq!(completed.timings().wire(), ms(20));
        sleep(secs(100)).await;
    }
}

/// A stream that counts how often it is polled.
struct PollCounting {
    left: usize,
    polls: Arc<AtomicUsize>,
}

impl Stream for PollCounting {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<String>> {
        self.polls.fetch_add(1, Relaxed);
        let next = self.left.checked_sub(1);
        self.left = next.unwrap_or(0);
        Poll::Ready(next.map(|n| format!("http://a.example/{n}")))
    }
}

#[tokio::test(start_paused = true)]
async fn input_stream_is_not_polled_while_window_is_full() {
    let mock = responding_after_ms(10_000);
    let polls = Arc::new(AtomicUsize::new(0));
    let stream = PollCounting {
        left: 100,
        polls: Arc::clone(&polls),
    };
    let mut done = fetcher(&mock)
        .batch_from_stream(stream)
        .concurrency(4)
        .look_ahead(8)
        .as_completed();
    for _ in 0..5 {
        assert!(timeout(secs(1), done.next()).await.is_err());
        assert_eq!(polls.load(Relaxed), 8);
    }
    let mut delivered = 0;
    while done.next().await.is_some() {
        delivered += 1;
        assert!(polls.load(Relaxed) <= delivered + 8);
    }
    assert_eq!(
        (delivered, polls.load(Relaxed)),
        (100, 101),
        "the stream is polled once per input and once at its end"
    );
}

/// A stream that yields one input per interval.
struct OnePerInterval(tokio::time::Interval, usize);

impl Stream for OnePerInterval {
    type Item = (usize, String);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<(usize, String)>> {
        if self.1 == 0 {
            return Poll::Ready(None);
        }
        self.0.poll_tick(cx).map(|_| {
            self.1 -= 1;
            Some((self.1, format!("http://a.example/{}", self.1)))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn stream_inputs_start_as_they_arrive() {
    let mock = responding_after_ms(10);
    let started = Instant::now();
    let stream = OnePerInterval(tokio::time::interval(secs(1)), 5);
    let fetcher = fetcher(&mock);
    let mut done = fetcher.batch_from_stream(stream).as_completed();
    for turn in 0..5 {
        let completed = done.next().await.unwrap();
        assert_eq!((completed.index, completed.tag), (turn, 4 - turn));
        assert_eq!(started.elapsed(), secs(turn as u64) + ms(10));
    }
    assert!(done.next().await.is_none());
    let all = fetcher
        .batch_from_stream(OnePerInterval(tokio::time::interval(secs(1)), 5))
        .gather()
        .await;
    assert!(all.len() == 5 && all_ok(&all));
}

/// A transport that responds at once, so that a test measures only the engine.
#[derive(Clone)]
struct Immediate;

impl tower_service::Service<http::Request<Body>> for Immediate {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = std::future::Ready<Result<http::Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::ready(Ok(http::Response::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_million_inputs_pass_through_bounded_window() {
    let fetcher = Fetcher::builder().transport(Immediate).build().unwrap();
    // Parsing the URL for each input would take a quarter of the time in a debug build.
    let request = Request::get("http://a/");
    let (inputs, pulled) = count_pulled((0..1_000_000).map(|n| (n, request.clone())));
    let mut done = fetcher.as_completed(inputs);
    let (mut delivered, mut max_ahead) = (0, 0);
    while let Some(completed) = done.next().await {
        assert_eq!(completed.tag, completed.index);
        completed.result.unwrap();
        max_ahead = max_ahead.max(pulled.load(Relaxed) - delivered);
        delivered += 1;
    }
    assert_eq!(delivered, 1_000_000);
    assert!(max_ahead <= 16 * 100, "{max_ahead}");
}

#[tokio::test(start_paused = true)]
async fn look_ahead_window_grows_only_to_find_another_host() {
    let mock = responding_after_ms(10);
    let (inputs, pulled) = count_pulled(urls("a", 5000).chain(urls("b", 5)));
    let mut done = fetcher(&mock)
        .batch(inputs)
        .concurrency(4)
        .concurrency_per_host(2)
        .as_completed();
    done.next().await.unwrap();
    // Two slots are idle and all pulled inputs are for one host, so the window grows until it
    // contains another host.
    sleep(ms(1)).await;
    assert_eq!(pulled.load(Relaxed), 5005);

    let (inputs, pulled) = count_pulled(urls("a", 5000));
    let mut done = fetcher(&mock).batch(inputs).concurrency(4).as_completed();
    done.next().await.unwrap();
    assert!(pulled.load(Relaxed) <= 64, "{pulled:?}");
}

/// Runs a batch of 20,000 lazily built uploads to one host at 20/s for three seconds. Returns the
/// number of inputs pulled ahead of the results.
async fn pulled_ahead_of_uploads(body_len: usize) -> usize {
    let mock = responding_after_ms(10);
    let (inputs, pulled) = count_pulled(
        (0..20_000).map(|n| Request::put(format!("http://a.example/{n}")).body(vec![0; body_len])),
    );
    let fetcher = fetcher(&mock);
    let mut results = fetcher
        .batch(inputs)
        .rate_per_host(Rate::per_second(20))
        .as_completed();
    let mut delivered = 0;
    let take_all = async {
        while let Some(completed) = results.next().await {
            completed.result.unwrap();
            delivered += 1;
        }
    };
    assert!(timeout(secs(3), take_all).await.is_err());
    assert_eq!(delivered, 60);
    pulled.load(Relaxed) - delivered
}

#[tokio::test(start_paused = true)]
async fn uploads_to_one_host_do_not_grow_the_window() {
    assert!(pulled_ahead_of_uploads(1).await <= 16 * 100);
}

#[tokio::test(start_paused = true)]
async fn window_is_bounded_by_the_bytes_of_request_bodies() {
    assert!(pulled_ahead_of_uploads(50_000).await <= (64 << 20) / 50_000 + 1);
}
