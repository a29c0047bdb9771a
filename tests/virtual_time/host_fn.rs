//! `FetcherBuilder::host_fn`: per-host settings from a callback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{ErrorKind, Host, Mock, MockResponse, Request};

use super::{builder, ms, responding_after_ms, urls};

const A: &str = "http://a.example/*";
const B: &str = "http://b.example/*";

fn header(request: &fanout::MockRequest, name: &str) -> Option<String> {
    let value = request.headers().get(name)?;
    Some(value.to_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn host_fn_configures_each_host_and_is_called_once_per_host() {
    let mock = responding_after_ms(100).max_recorded_requests(100);
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let fetcher = builder(&mock)
        .concurrency_per_host(5)
        .host_fn(move |origin| {
            counter.fetch_add(1, Relaxed);
            let host = Host::new().concurrency(2).bearer_auth("of-a");
            (origin == "http://a.example").then_some(host)
        })
        .build()
        .unwrap();
    fetcher.gather(urls("a", 20).chain(urls("b", 20))).await;
    fetcher.gather(urls("a", 20)).await;
    assert_eq!((mock.max_in_flight_to(A), mock.max_in_flight_to(B)), (2, 5));
    assert_eq!(calls.load(Relaxed), 2);
    for request in mock.requests() {
        let is_a = request.uri().host() == Some("a.example");
        let sent = header(&request, "authorization");
        assert_eq!(sent.as_deref(), is_a.then_some("Bearer of-a"));
    }
}

#[tokio::test(start_paused = true)]
async fn explicit_host_overrides_host_fn() {
    let mock = responding_after_ms(100).max_recorded_requests(100);
    let fetcher = builder(&mock)
        .host("http://a.example", Host::new().concurrency(3))
        .host_fn(|origin| {
            assert_ne!(origin, "http://a.example");
            Some(Host::new().concurrency(1).header("x-from-host-fn", "yes"))
        })
        .build()
        .unwrap();
    fetcher.gather(urls("a", 20).chain(urls("b", 5))).await;
    assert_eq!((mock.max_in_flight_to(A), mock.max_in_flight_to(B)), (3, 1));
    let is_from_host_fn =
        |request: &&fanout::MockRequest| header(request, "x-from-host-fn").is_some();
    assert_eq!(mock.requests().iter().filter(is_from_host_fn).count(), 5);
}

#[tokio::test(start_paused = true)]
async fn host_fn_is_called_for_redirect_target() {
    let mock = Mock::new()
        .on(
            A,
            MockResponse::status(302).header("location", "http://b.example/"),
        )
        .fallback(MockResponse::text("x").delay(ms(100)))
        .max_recorded_requests(100);
    let host_settings = |origin: &str| {
        let host = Host::new().concurrency(1).header("x-for", origin);
        Some(host)
    };
    let fetcher = builder(&mock).host_fn(host_settings).build().unwrap();
    for result in fetcher.gather(urls("a", 10)).await {
        assert_eq!(result.unwrap().status(), 200);
    }
    assert_eq!(mock.max_in_flight_to(B), 1);
    for request in mock.requests() {
        let host = request.uri().host().unwrap();
        let expected = format!("http://{host}");
        assert_eq!(header(&request, "x-for"), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn host_fn_panic_or_invalid_host_fails_only_its_request() {
    let mock = responding_after_ms(10);
    let host_settings = |origin: &str| match origin {
        "http://panics.example" => panic!("host_fn panicked"),
        "http://wrong.example" => Some(Host::new().header("x", "a\nb")),
        "http://tokens.example" => Some(Host::new().token_source(|| async { Ok("t".to_owned()) })),
        _ => None,
    };
    let fetcher = builder(&mock).host_fn(host_settings).build().unwrap();
    let urls = ["panics", "wrong", "tokens", "well"].map(|host| format!("http://{host}.example/"));
    let kinds: Vec<_> = fetcher
        .gather(&urls)
        .await
        .into_iter()
        .map(|result| result.err().map(|error| error.kind()))
        .collect();
    let invalid = Some(ErrorKind::InvalidRequest);
    assert_eq!(kinds, [Some(ErrorKind::Panicked), invalid, invalid, None]);
    assert_eq!(mock.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn host_fn_configures_ten_thousand_hosts() {
    let mock = responding_after_ms(1);
    let host_settings = |_: &str| Some(Host::new().concurrency(1).header("x-own", "1"));
    let fetcher = builder(&mock).host_fn(host_settings).build().unwrap();
    let urls = (0..20_000).map(|n| Request::get(format!("http://h{}.example/{n}", n % 10_000)));
    let results = fetcher.gather(urls).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(mock.max_in_flight_to("http://h7.example/*"), 1);
}

#[tokio::test(start_paused = true)]
async fn derived_fetcher_inherits_host_fn_and_cannot_replace_it() {
    let mock = responding_after_ms(10).max_recorded_requests(10);
    let parent = builder(&mock)
        .host_fn(|_| Some(Host::new().header("x-own", "1")))
        .build()
        .unwrap();
    let sibling = parent.to_builder().build().unwrap();
    sibling.fetch("http://a.example/").await.unwrap();
    assert_eq!(header(&mock.requests()[0], "x-own").as_deref(), Some("1"));
    assert!(parent.to_builder().host_fn(|_| None).build().is_err());
}
