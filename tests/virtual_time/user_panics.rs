//! Panics of the user's code stay where they belong.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use fanout::{Body, Error, ErrorKind, Fetcher, Mock, MockRequest, MockResponse, Request};
use tokio::time::sleep;

use super::{all_ok, answers_in, fetcher, ms, over, secs, urls};

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_is_its_items_error() {
    let odd = |request: &MockRequest| {
        assert!(!request.url().ends_with('3'), "no threes");
        MockResponse::text("x").delay(ms(10))
    };
    let mock = Mock::new().on("*", MockResponse::from_fn(odd));
    let fetcher = over(&mock).concurrency(1).build().unwrap();
    let results = fetcher.gather(urls("a", 10)).await;
    for (index, result) in results.iter().enumerate() {
        match (index, result) {
            (3, Err(error)) => {
                assert_eq!(
                    (error.kind(), error.attempts().len()),
                    (ErrorKind::Panicked, 1)
                );
                assert!(error.to_string().contains("no threes"), "{error}");
                assert!(error.maybe_sent());
            }
            (_, result) => assert!(result.is_ok(), "{index}: {result:?}"),
        }
    }
    assert_eq!(mock.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn limit_by_that_panics_is_its_items_error() {
    let mock = answers_in(10);
    let key = |request: &Request| -> String {
        assert!(!request.url_str().ends_with('3'), "no threes");
        "all".to_owned()
    };
    let fetcher = over(&mock).limit_by(key).build().unwrap();
    let results = fetcher.gather(urls("a", 10)).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 9);
    let error = results[3].as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.url()),
        (ErrorKind::Panicked, Some("http://a.example/3"))
    );
    assert!(error.attempts().is_empty() && !error.maybe_sent());

    let error = fetcher.fetch("http://a.example/3").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.maybe_sent()),
        (ErrorKind::Panicked, false)
    );
    assert_eq!(error.url(), Some("http://a.example/3"));
    fetcher.fetch("http://a.example/4").await.unwrap();
}

fn panics_at(place: usize) -> impl Iterator<Item = String> + Send {
    urls("a", 1000).enumerate().map(move |(index, url)| {
        assert!(index != place, "the input broke");
        url
    })
}

#[tokio::test(start_paused = true)]
async fn an_input_that_panics_unwinds_to_the_caller_and_cancels_its_batch() {
    let mock = answers_in(1000);
    let fetcher = over(&mock).concurrency(5).build().unwrap();
    for place in [0, 79, 81, 200] {
        let gather = {
            let fetcher = fetcher.clone();
            tokio::spawn(async move { fetcher.gather(panics_at(place)).await.len() })
        };
        let panic = gather.await.unwrap_err().into_panic();
        assert_eq!(*panic.downcast::<&str>().unwrap(), "the input broke");
        sleep(ms(1)).await;
        assert_eq!(mock.in_flight(), 0);
        assert!(all_ok(&fetcher.gather(urls("b", 5)).await));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_on_after_such_a_panic_sees_the_end() {
    let mock = answers_in(1000);
    let fetcher = over(&mock).concurrency(5).build().unwrap();
    let mut done = fetcher.as_completed(panics_at(100));
    let mut given = 0;
    let panicked = loop {
        let next = std::future::poll_fn(|cx| {
            let next = Pin::new(&mut done);
            match catch_unwind(AssertUnwindSafe(|| {
                futures_core::Stream::poll_next(next, cx)
            })) {
                Ok(poll) => poll.map(Ok),
                Err(_) => Poll::Ready(Err(())),
            }
        });
        match next.await {
            Ok(Some(_)) => given += 1,
            Ok(None) => break false,
            Err(()) => break true,
        }
    };
    assert!(panicked && given > 0, "{given}");
    while done.next().await.is_some() {
        given += 1;
    }
    assert!(given <= 100);
}

/// Its future panics as it is dropped.
#[derive(Clone)]
struct BadDrop;

struct BadFuture;

impl Future for BadFuture {
    type Output = Result<http::Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(http::Response::default()))
    }
}

impl Drop for BadFuture {
    fn drop(&mut self) {
        panic!("a bad end");
    }
}

impl tower_service::Service<http::Request<Body>> for BadDrop {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = BadFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> BadFuture {
        BadFuture
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_as_it_is_dropped_answers_all_the_same() {
    let fetcher = Fetcher::builder()
        .transport(BadDrop)
        .concurrency(2)
        .build()
        .unwrap();
    let results = fetcher.gather(urls("a", 10)).await;
    assert_eq!(results.len(), 10);
    for result in results {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Panicked);
    }
}

/// Its future panics as it is dropped before its end.
#[derive(Clone)]
struct BadCancel;

impl tower_service::Service<http::Request<Body>> for BadCancel {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        struct Guard(bool);
        impl Drop for Guard {
            fn drop(&mut self) {
                assert!(!self.0, "given up");
            }
        }
        Box::pin(async move {
            let mut guard = Guard(true);
            if request.uri().path() == "/0" {
                sleep(secs(1000)).await;
            }
            guard.0 = false;
            Ok(http::Response::default())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_as_it_times_out_costs_only_its_own_item() {
    let fetcher = Fetcher::builder()
        .transport(BadCancel)
        .concurrency(1)
        .build()
        .unwrap();
    let results = fetcher.gather(urls("a", 10)).await;
    assert!(all_ok(&results[1..]));
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Panicked);
    assert!(all_ok(
        &super::fetcher(&Mock::new().fallback(200))
            .gather(urls("a", 1))
            .await
    ));
    assert!(fetcher.fetch("http://a.example/1").await.is_ok());
    let _ = fetcher;
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_is_usable_after_every_kind_of_panic() {
    let mock = Mock::new()
        .on("http://a.example/*", ErrorKind::Panicked)
        .fallback(200);
    let fetcher = fetcher(&mock);
    let results = fetcher.gather(urls("a", 300)).await;
    assert!(results.iter().all(|result| {
        result
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Panicked)
    }));
    assert!(all_ok(&fetcher.gather(urls("b", 300)).await));
}
