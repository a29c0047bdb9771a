//! The order of results, and how far ahead the inputs are read.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use fanout::{Body, Error, Fetcher, Mock, MockRequest, MockResponse, Request};
use futures_core::Stream;
use tokio::time::{Instant, sleep, timeout};

use super::{all_ok, answers_in, fetcher, ms, secs, urls};

/// Answers with the number in the path after so many milliseconds.
fn numbers() -> Mock {
    let number = |request: &MockRequest| {
        let millis: u64 = request.uri().path()[1..].parse().unwrap();
        MockResponse::text(millis.to_string()).delay(ms(millis))
    };
    Mock::new().on("*", MockResponse::from_fn(number))
}

/// Counts what is taken of an iterator.
fn counted<I: Iterator>(inputs: I) -> (impl Iterator<Item = I::Item>, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let inputs = inputs.inspect(move |_| {
        counter.fetch_add(1, Relaxed);
    });
    (inputs, taken)
}

#[tokio::test(start_paused = true)]
async fn gather_keeps_the_order_of_the_inputs() {
    let started = Instant::now();
    let urls = [300, 100, 200].map(|n| format!("http://a.example/{n}"));
    let results = fetcher(&numbers()).gather(&urls).await;
    let texts: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().unwrap().text())
        .collect();
    assert_eq!(texts, ["300", "100", "200"]);
    assert_eq!(started.elapsed(), ms(300));
}

#[tokio::test(start_paused = true)]
async fn as_completed_gives_the_fastest_first_with_its_tag() {
    let urls = ["http://a.example/300", "bad", "http://a.example/200"];
    let fetcher = fetcher(&numbers());
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
async fn no_inputs_are_no_results() {
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
async fn in_order_waits_for_the_slowest_within_its_window() {
    let mock = Mock::new()
        .on(
            "http://a.example/0",
            MockResponse::text("slow").delay(secs(10)),
        )
        .fallback(MockResponse::text("x").delay(ms(10)));
    let (inputs, taken) = counted(urls("a", 1000));
    let mut done = fetcher(&mock)
        .batch(inputs)
        .concurrency(10)
        .look_ahead(50)
        .in_order();
    let started = Instant::now();
    for index in 0..1000 {
        let completed = done.next().await.unwrap();
        assert_eq!(completed.index, index);
        assert!(taken.load(Relaxed) - index <= 50, "{taken:?} at {index}");
        if index == 0 {
            assert_eq!(started.elapsed(), secs(10));
            assert_eq!(mock.request_count(), 50);
        }
    }
    assert!(done.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn in_order_the_first_may_come_again_while_the_window_is_full() {
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
    let mut given = 0;
    while let Some(completed) = done.next().await {
        assert_eq!(
            (completed.index, completed.result.unwrap().status().as_u16()),
            (given, 200)
        );
        given += 1;
    }
    assert_eq!(given, 100);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_stops_reading_stops_new_starts() {
    let mock = answers_in(10);
    let mut done = fetcher(&mock)
        .batch(urls("a", 1000))
        .concurrency(4)
        .look_ahead(16)
        .as_completed();
    done.next().await.unwrap();
    sleep(secs(3600)).await;
    assert_eq!((mock.request_count(), mock.in_flight()), (16, 0));
    let mut rest = 0;
    while done.next().await.is_some() {
        rest += 1;
    }
    assert_eq!((rest, mock.request_count()), (999, 1000));
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_does_not_freeze_what_is_in_flight() {
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

/// A stream that counts how often it is asked and what it has given.
struct Asked {
    left: usize,
    asked: Arc<AtomicUsize>,
}

impl Stream for Asked {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<String>> {
        self.asked.fetch_add(1, Relaxed);
        let next = self.left.checked_sub(1);
        self.left = next.unwrap_or(0);
        Poll::Ready(next.map(|n| format!("http://a.example/{n}")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_asked_while_there_is_no_room() {
    let mock = answers_in(10_000);
    let asked = Arc::new(AtomicUsize::new(0));
    let stream = Asked {
        left: 100,
        asked: Arc::clone(&asked),
    };
    let mut done = fetcher(&mock)
        .batch_from_stream(stream)
        .concurrency(4)
        .look_ahead(8)
        .as_completed();
    for _ in 0..5 {
        assert!(timeout(secs(1), done.next()).await.is_err());
        assert_eq!(asked.load(Relaxed), 8);
    }
    let mut given = 0;
    while done.next().await.is_some() {
        given += 1;
        assert!(asked.load(Relaxed) <= given + 8);
    }
    assert_eq!(
        (given, asked.load(Relaxed)),
        (100, 101),
        "each once, and the end once"
    );
}

/// A stream that has its next item some time after it was asked.
struct Trickle(tokio::time::Interval, usize);

impl Stream for Trickle {
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
async fn inputs_that_trickle_in_start_as_they_come() {
    let mock = answers_in(10);
    let started = Instant::now();
    let stream = Trickle(tokio::time::interval(secs(1)), 5);
    let fetcher = fetcher(&mock);
    let mut done = fetcher.batch_from_stream(stream).as_completed();
    for turn in 0..5 {
        let completed = done.next().await.unwrap();
        assert_eq!((completed.index, completed.tag), (turn, 4 - turn));
        assert_eq!(started.elapsed(), secs(turn as u64) + ms(10));
    }
    assert!(done.next().await.is_none());
    let all = fetcher
        .batch_from_stream(Trickle(tokio::time::interval(secs(1)), 5))
        .gather()
        .await;
    assert!(all.len() == 5 && all_ok(&all));
}

/// The least that answers: what is measured is the engine.
#[derive(Clone)]
struct Instantly;

impl tower_service::Service<http::Request<Body>> for Instantly {
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
async fn a_million_inputs_pass_through_a_window() {
    let fetcher = Fetcher::builder().transport(Instantly).build().unwrap();
    // Parsed once, since a debug build spends a quarter of the time on it.
    let request = Request::get("http://a/");
    let (inputs, taken) = counted((0..1_000_000).map(|n| (n, request.clone())));
    let mut done = fetcher.as_completed(inputs);
    let (mut given, mut furthest) = (0, 0);
    while let Some(completed) = done.next().await {
        assert_eq!(completed.tag, completed.index);
        completed.result.unwrap();
        furthest = furthest.max(taken.load(Relaxed) - given);
        given += 1;
    }
    assert_eq!(given, 1_000_000);
    assert!(furthest <= 16 * 100, "{furthest}");
}

#[tokio::test(start_paused = true)]
async fn the_window_grows_only_for_want_of_another_host() {
    let mock = answers_in(10);
    let (inputs, taken) = counted(urls("a", 5000).chain(urls("b", 5)));
    let mut done = fetcher(&mock)
        .batch(inputs)
        .concurrency(4)
        .concurrency_per_host(2)
        .as_completed();
    done.next().await.unwrap();
    // Two slots are idle and the inputs at hand are all for one host: it reads on until it finds the other.
    sleep(ms(1)).await;
    assert_eq!(taken.load(Relaxed), 5005);

    let (inputs, taken) = counted(urls("a", 5000));
    let mut done = fetcher(&mock).batch(inputs).concurrency(4).as_completed();
    done.next().await.unwrap();
    assert!(taken.load(Relaxed) <= 64, "{taken:?}");
}
