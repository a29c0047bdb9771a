//! Hosts whose particulars a function gives as they are met.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fanout::{ErrorKind, Host, Mock, MockResponse, Request};

use super::{answers_in, ms, over, urls};

const A: &str = "http://a.example/*";
const B: &str = "http://b.example/*";

fn header(request: &fanout::MockRequest, name: &str) -> Option<String> {
    let value = request.headers().get(name)?;
    Some(value.to_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn each_host_gets_what_the_function_says_and_it_is_asked_once() {
    let mock = answers_in(100).max_recorded_requests(100);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let fetcher = over(&mock)
        .concurrency_per_host(5)
        .host_fn(move |origin| {
            counted.fetch_add(1, Relaxed);
            let host = Host::new().concurrency(2).bearer_auth("of-a");
            (origin == "http://a.example").then_some(host)
        })
        .build()
        .unwrap();
    fetcher.gather(urls("a", 20).chain(urls("b", 20))).await;
    fetcher.gather(urls("a", 20)).await;
    assert_eq!((mock.max_in_flight_to(A), mock.max_in_flight_to(B)), (2, 5));
    assert_eq!(asked.load(Relaxed), 2);
    for request in mock.requests() {
        let is_a = request.uri().host() == Some("a.example");
        let sent = header(&request, "authorization");
        assert_eq!(sent.as_deref(), is_a.then_some("Bearer of-a"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_set_for_an_origin_wins_and_is_not_asked_for() {
    let mock = answers_in(100).max_recorded_requests(100);
    let fetcher = over(&mock)
        .host("http://a.example", Host::new().concurrency(3))
        .host_fn(|origin| {
            assert_ne!(origin, "http://a.example");
            Some(Host::new().concurrency(1).header("x-asked", "yes"))
        })
        .build()
        .unwrap();
    fetcher.gather(urls("a", 20).chain(urls("b", 5))).await;
    assert_eq!((mock.max_in_flight_to(A), mock.max_in_flight_to(B)), (3, 1));
    let asked = |request: &&fanout::MockRequest| header(request, "x-asked").is_some();
    assert_eq!(mock.requests().iter().filter(asked).count(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_a_redirect_leads_to_is_asked_for_too() {
    let mock = Mock::new()
        .on(
            A,
            MockResponse::status(302).header("location", "http://b.example/"),
        )
        .fallback(MockResponse::text("x").delay(ms(100)))
        .max_recorded_requests(100);
    let by = |origin: &str| {
        let host = Host::new().concurrency(1).header("x-for", origin);
        Some(host)
    };
    let fetcher = over(&mock).host_fn(by).build().unwrap();
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
async fn what_it_panics_for_or_gives_wrongly_is_the_result_of_its_own_request() {
    let mock = answers_in(10);
    let by = |origin: &str| match origin {
        "http://panics.example" => panic!("a function of the user's"),
        "http://wrong.example" => Some(Host::new().header("x", "a\nb")),
        "http://tokens.example" => {
            Some(Host::new().token_source(|| async { Ok::<_, fanout::Error>("t".to_owned()) }))
        }
        _ => None,
    };
    let fetcher = over(&mock).host_fn(by).build().unwrap();
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
async fn ten_thousand_hosts_each_get_their_own() {
    let mock = answers_in(1);
    let by = |_: &str| Some(Host::new().concurrency(1).header("x-own", "1"));
    let fetcher = over(&mock).host_fn(by).build().unwrap();
    let urls = (0..20_000).map(|n| Request::get(format!("http://h{}.example/{n}", n % 10_000)));
    let results = fetcher.gather(urls).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(mock.max_in_flight_to("http://h7.example/*"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sibling_has_it_and_cannot_change_it() {
    let mock = answers_in(10).max_recorded_requests(10);
    let parent = over(&mock)
        .host_fn(|_| Some(Host::new().header("x-own", "1")))
        .build()
        .unwrap();
    let sibling = parent.to_builder().build().unwrap();
    sibling.fetch("http://a.example/").await.unwrap();
    assert_eq!(header(&mock.requests()[0], "x-own").as_deref(), Some("1"));
    assert!(parent.to_builder().host_fn(|_| None).build().is_err());
}
