//! Panics of user code fail only the affected requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use fanout::{Body, Error, ErrorKind, Fetcher, Mock, MockRequest, MockResponse, Request};
use tokio::time::sleep;

use super::{all_ok, builder, fetcher, ms, responding_after_ms, secs, urls};

#[tokio::test(start_paused = true)]
async fn transport_panic_fails_only_its_request() {
    let panicking_handler = |request: &MockRequest| {
        assert!(!request.url().ends_with('3'), "transport panic");
        MockResponse::text("x").delay(ms(10))
    };
    let mock = Mock::new().on("*", MockResponse::from_fn(panicking_handler));
    let fetcher = builder(&mock).concurrency(1).build().unwrap();
    let results = fetcher.gather(urls("a", 10)).await;
    for (index, result) in results.iter().enumerate() {
        match (index, result) {
            (3, Err(error)) => {
                assert_eq!(
                    (error.kind(), error.attempts().len()),
                    (ErrorKind::Panicked, 1)
                );
                assert!(error.to_string().contains("transport panic"), "{error}");
                assert!(error.maybe_sent());
            }
            (_, result) => assert!(result.is_ok(), "{index}: {result:?}"),
        }
    }
    assert_eq!(mock.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn limit_by_panic_fails_only_its_request() {
    let mock = responding_after_ms(10);
    let key = |request: &Request| -> String {
        assert!(!request.url_str().ends_with('3'), "limit_by panic");
        "all".to_owned()
    };
    let fetcher = builder(&mock).limit_by(key).build().unwrap();
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

fn urls_panicking_at(panic_index: usize) -> impl Iterator<Item = String> + Send {
    urls("a", 1000).enumerate().map(move |(index, url)| {
        assert!(index != panic_index, "input panic");
        url
    })
}

#[tokio::test(start_paused = true)]
async fn input_panic_unwinds_to_caller_and_cancels_batch() {
    let mock = responding_after_ms(1000);
    let fetcher = builder(&mock).concurrency(5).build().unwrap();
    for panic_index in [0, 79, 81, 200] {
        let gather = {
            let fetcher = fetcher.clone();
            tokio::spawn(async move { fetcher.gather(urls_panicking_at(panic_index)).await.len() })
        };
        let panic = gather.await.unwrap_err().into_panic();
        assert_eq!(*panic.downcast::<&str>().unwrap(), "input panic");
        sleep(ms(1)).await;
        assert_eq!(mock.in_flight(), 0);
        assert!(all_ok(&fetcher.gather(urls("b", 5)).await));
    }
}

#[tokio::test(start_paused = true)]
async fn stream_ends_after_input_panic() {
    let mock = responding_after_ms(1000);
    let fetcher = builder(&mock).concurrency(5).build().unwrap();
    let mut done = fetcher.as_completed(urls_panicking_at(100));
    let mut delivered = 0;
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
            Ok(Some(_)) => delivered += 1,
            Ok(None) => break false,
            Err(()) => break true,
        }
    };
    assert!(panicked && delivered > 0, "{delivered}");
    while done.next().await.is_some() {
        delivered += 1;
    }
    assert!(delivered <= 100);
}

/// A transport whose futures panic when dropped.
#[derive(Clone)]
struct PanicOnDrop;

struct PanicOnDropFuture;

impl Future for PanicOnDropFuture {
    type Output = Result<http::Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(http::Response::default()))
    }
}

impl Drop for PanicOnDropFuture {
    fn drop(&mut self) {
        panic!("panic in drop");
    }
}

impl tower_service::Service<http::Request<Body>> for PanicOnDrop {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = PanicOnDropFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> PanicOnDropFuture {
        PanicOnDropFuture
    }
}

#[tokio::test(start_paused = true)]
async fn transport_panic_in_drop_fails_each_request() {
    let fetcher = Fetcher::builder()
        .transport(PanicOnDrop)
        .concurrency(2)
        .build()
        .unwrap();
    let results = fetcher.gather(urls("a", 10)).await;
    assert_eq!(results.len(), 10);
    for result in results {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Panicked);
    }
}

/// A transport whose futures panic when dropped before completion.
#[derive(Clone)]
struct PanicOnCancel;

impl tower_service::Service<http::Request<Body>> for PanicOnCancel {
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
                assert!(!self.0, "panic in drop");
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
async fn transport_panic_on_timeout_fails_only_its_request() {
    let fetcher = Fetcher::builder()
        .transport(PanicOnCancel)
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
async fn fetcher_is_usable_after_panics() {
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
