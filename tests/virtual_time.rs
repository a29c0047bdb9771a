//! The engine over a service in this process, on tokio's paused clock: exact times, no sockets.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fanout::{Body, Error, ErrorKind, Fetcher, FetcherBuilder, Rate, Request, Retry};
use tokio::time::{Instant, sleep};

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Error>> + Send>>;

/// A service made of a function.
struct Service<F>(Arc<F>);

impl<F> Clone for Service<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F, A> tower_service::Service<http::Request<Body>> for Service<F>
where
    F: Fn(http::Request<Body>) -> A + Send + Sync + 'static,
    A: Future<Output = Result<http::Response<Body>, Error>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        Box::pin((self.0)(request))
    }
}

fn fetcher<F, A>(answer: F) -> FetcherBuilder
where
    F: Fn(http::Request<Body>) -> A + Send + Sync + 'static,
    A: Future<Output = Result<http::Response<Body>, Error>> + Send + 'static,
{
    Fetcher::builder().transport(Service(Arc::new(answer)))
}

fn ok(text: impl Into<Bytes>) -> Result<http::Response<Body>, Error> {
    Ok(http::Response::new(Body::from(text.into())))
}

#[tokio::test(start_paused = true)]
async fn gather_keeps_the_order_of_the_inputs() {
    let fetcher = fetcher(|request| async move {
        let millis: u64 = request.uri().path()[1..].parse().unwrap();
        sleep(Duration::from_millis(millis)).await;
        ok(millis.to_string())
    });
    let fetcher = fetcher.build().unwrap();
    let started = Instant::now();
    let urls: Vec<String> = [300, 100, 200]
        .iter()
        .map(|n| format!("http://a.example/{n}"))
        .collect();
    let results = fetcher.gather(&urls).await;
    let texts: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().unwrap().text().into_owned())
        .collect();
    assert_eq!(texts, ["300", "100", "200"]);
    assert_eq!(started.elapsed().as_millis(), 300);
}

#[tokio::test(start_paused = true)]
async fn as_completed_gives_the_fastest_first() {
    let fetcher = fetcher(|request| async move {
        let millis: u64 = request.uri().path()[1..].parse().unwrap();
        sleep(Duration::from_millis(millis)).await;
        ok(millis.to_string())
    });
    let fetcher = fetcher.build().unwrap();
    let urls = ["http://a.example/300", "bad", "http://a.example/200"];
    let mut done = fetcher.as_completed(urls.iter().enumerate().map(|(n, url)| (n * 10, *url)));
    let mut order = vec![];
    while let Some(completed) = done.next().await {
        assert_eq!(completed.tag, completed.index * 10);
        order.push(completed.index);
    }
    assert_eq!(order, [1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_spreads_the_starts_and_a_million_fit() {
    let fetcher = fetcher(|_| async { ok("x") }).build().unwrap();
    let started = Instant::now();
    let urls = (0..201).map(|n| format!("http://a.example/{n}"));
    let results = fetcher
        .batch(urls)
        .rate(Rate::per_second(20))
        .gather()
        .await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(started.elapsed().as_millis() / 10, 1000);
    let mut done = fetcher.as_completed((0..100_000).map(|n| format!("http://a.example/{n}")));
    let mut count = 0;
    while let Some(completed) = done.next().await {
        completed.result.unwrap();
        count += 1;
    }
    assert_eq!(count, 100_000);
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_tried_again() {
    let fetcher = fetcher(|_| async { Err(Error::new(ErrorKind::Closed, "gone")) })
        .build()
        .unwrap();
    let error = fetcher
        .fetch(Request::get("http://a.example/"))
        .await
        .unwrap_err();
    assert_eq!(error.attempts().len(), 3);
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.maybe_sent());
    let results = fetcher
        .batch(["http://a.example/"])
        .retry(Retry::off())
        .gather()
        .await;
    assert_eq!(results[0].as_ref().unwrap_err().attempts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_answers_every_input() {
    let fetcher = fetcher(|_| async {
        sleep(Duration::from_secs(10)).await;
        ok("x")
    });
    let fetcher = fetcher.build().unwrap();
    let started = Instant::now();
    let urls = (0..5000).map(|n| format!("http://a.example/{n}"));
    let results = fetcher
        .batch(urls)
        .concurrency(10)
        .deadline(Duration::from_secs(25))
        .gather()
        .await;
    assert_eq!(results.len(), 5000);
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 20);
    assert!(
        results
            .iter()
            .flat_map(|r| r.as_ref().err())
            .all(|e| e.kind() == ErrorKind::Deadline)
    );
    assert_eq!(started.elapsed().as_secs(), 25);
}
