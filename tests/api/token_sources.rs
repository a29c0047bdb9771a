//! Token sources: requests share one refresh, and hold no slot while they wait for it.

use std::error::Error as _;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use bytes::Bytes;
use fanout::{
    Body, BoxError, ErrorKind, Fetcher, FetcherBuilder, Host, Mock, MockResponse, Rate, Request,
    Response, Result, StreamingResponse,
};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};

const ORIGIN: &str = "http://a.example";

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn urls(host: &'static str, count: usize) -> impl Iterator<Item = String> + Send {
    (0..count).map(move |n| format!("http://{host}.example/{n}"))
}

/// A host with a source of `token-1`, `token-2` and so on, each after `delay`, and the number of
/// calls of the source.
fn host_with_numbered_tokens(delay: Duration) -> (Host, Arc<AtomicUsize>) {
    let source_calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&source_calls);
    let source = move || {
        let number = count.fetch_add(1, Relaxed) + 1;
        async move {
            sleep(delay).await;
            Ok(format!("token-{number}"))
        }
    };
    (Host::new().token_source(source), source_calls)
}

/// Responds with 200 to `token` and with 401 to any other, after `delay`.
fn accept_only(token: &'static str, delay: Duration) -> MockResponse {
    let mock_response = MockResponse::from_fn(move |received| {
        let sent = received.headers().get("authorization");
        if sent.is_some_and(|sent| sent.as_bytes() == format!("Bearer {token}").as_bytes()) {
            MockResponse::status(200)
        } else {
            MockResponse::status(401)
        }
    });
    mock_response.delay(delay)
}

fn builder_with_transport(mock: &Mock) -> FetcherBuilder {
    Fetcher::builder().transport(mock.clone())
}

fn statuses(results: &[Result<Response>]) -> Vec<u16> {
    let status = |result: &Result<Response>| result.as_ref().unwrap().status().as_u16();
    results.iter().map(status).collect()
}

#[tokio::test(start_paused = true)]
async fn token_source_is_called_once_and_its_token_is_kept() {
    let mock = Mock::new().fallback(accept_only("token-1", ms(10)));
    let (host, source_calls) = host_with_numbered_tokens(ms(500));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    assert_eq!(
        source_calls.load(Relaxed),
        0,
        "no request needs a token yet"
    );
    let begun = Instant::now();
    assert_eq!(statuses(&fetcher.gather(urls("a", 50)).await), [200; 50]);
    assert_eq!(begun.elapsed(), ms(510));
    assert_eq!(
        fetcher.fetch("http://a.example/x").await.unwrap().status(),
        200
    );
    assert_eq!((source_calls.load(Relaxed), mock.request_count()), (1, 51));
}

#[tokio::test(start_paused = true)]
async fn concurrent_401s_share_one_refresh_that_holds_no_slot() {
    let mock = Mock::new()
        .on("http://a.example/*", accept_only("token-2", ms(100)))
        .on(
            "http://b.example/*",
            MockResponse::status(200).delay(ms(100)),
        );
    let (host, source_calls) = host_with_numbered_tokens(ms(1_000));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .concurrency(100)
        .build()
        .unwrap();
    let begun = Instant::now();
    let results = fetcher.gather(urls("a", 100).chain(urls("b", 1_000))).await;
    // The ten rounds of host b take 1 s and fit into the two waits for a token.
    assert_eq!(begun.elapsed(), ms(1_000 + 100 + 1_000 + 100));
    assert_eq!(statuses(&results), [200; 1_100]);
    assert_eq!(source_calls.load(Relaxed), 2);
    assert_eq!(mock.request_count_to("http://a.example/*"), 200);
    assert_eq!(mock.max_in_flight_to("http://b.example/*"), 100);
    for result in &results[..100] {
        let attempts = result.as_ref().unwrap().attempts();
        assert_eq!(attempts.len(), 1, "a refresh is not a retry");
        assert_eq!(attempts[0].timings().wire(), ms(200), "two hops");
    }
}

#[tokio::test(start_paused = true)]
async fn late_401_does_not_start_another_refresh() {
    let mock = Mock::new()
        .on("http://a.example/slow", accept_only("token-2", ms(5_000)))
        .on("http://a.example/*", accept_only("token-2", ms(100)));
    let (host, source_calls) = host_with_numbered_tokens(ms(10));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    let results = fetcher
        .gather(["http://a.example/slow", "http://a.example/1"])
        .await;
    assert_eq!(statuses(&results), [200, 200]);
    assert_eq!((source_calls.load(Relaxed), mock.request_count()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn second_401_is_returned_and_a_post_is_repeated_once() {
    let mock = Mock::new().fallback(401);
    let (host, source_calls) = host_with_numbered_tokens(ms(10));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    let post = Request::post("http://a.example/").body("whole");
    let response = fetcher.fetch(post).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(
        (source_calls.load(Relaxed), response.attempts().len()),
        (2, 1)
    );
    let bodies: Vec<_> = mock
        .requests()
        .iter()
        .map(|sent| sent.text().into_owned())
        .collect();
    assert_eq!(bodies, ["whole", "whole"]);
}

/// The status of each response that a handler received.
type ReceivedStatuses = Arc<Mutex<Vec<u16>>>;

/// A handler that records the status and reads the body.
fn recording_handler(
    seen: &ReceivedStatuses,
) -> impl Fn(StreamingResponse) -> HandlerFuture + Send + Sync + 'static {
    let seen = Arc::clone(seen);
    move |mut body| {
        let seen = Arc::clone(&seen);
        Box::pin(async move {
            seen.lock().unwrap().push(body.status().as_u16());
            while let Some(piece) = body.next().await {
                piece?;
            }
            Ok(body.status().as_u16())
        })
    }
}

type HandlerFuture = Pin<Box<dyn Future<Output = Result<u16, BoxError>> + Send>>;

#[tokio::test(start_paused = true)]
async fn handler_does_not_receive_a_401_before_a_refresh() {
    let mock = Mock::new().fallback(accept_only("token-2", ms(100)));
    for ending in ["gather", "as_completed", "in_order", "fetch"] {
        let (host, source_calls) = host_with_numbered_tokens(ms(10));
        let fetcher = builder_with_transport(&mock)
            .host(ORIGIN, host)
            .build()
            .unwrap();
        let seen = ReceivedStatuses::default();
        let batch = || {
            fetcher
                .batch(urls("a", 20))
                .read_with(recording_handler(&seen))
        };
        let statuses: Vec<u16> = match ending {
            "gather" => (batch().gather().await.into_iter())
                .map(Result::unwrap)
                .collect(),
            "as_completed" => {
                let (mut done, mut statuses) = (batch().as_completed(), Vec::new());
                while let Some(completed) = done.next().await {
                    statuses.push(completed.result.unwrap());
                }
                statuses
            }
            "in_order" => {
                let (mut done, mut statuses) = (batch().in_order(), Vec::new());
                while let Some(completed) = done.next().await {
                    statuses.push(completed.result.unwrap());
                }
                statuses
            }
            _ => {
                let fetch = fetcher.fetch("http://a.example/1");
                vec![fetch.read_with(recording_handler(&seen)).await.unwrap(); 20]
            }
        };
        assert_eq!(statuses, [200; 20], "{ending}");
        let count = if ending == "fetch" { 1 } else { 20 };
        assert_eq!(*seen.lock().unwrap(), vec![200; count], "{ending}");
        assert_eq!(source_calls.load(Relaxed), 2, "{ending}");
    }
}

#[tokio::test(start_paused = true)]
async fn handler_receives_a_final_401_once() {
    let mock = Mock::new().fallback(401);
    let (host, _) = host_with_numbered_tokens(ms(10));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    let seen = ReceivedStatuses::default();
    let fetch = fetcher
        .fetch("http://a.example/1")
        .read_with(recording_handler(&seen));
    assert_eq!(fetch.await.unwrap(), 401);
    // The body is consumed, so the request cannot be repeated.
    let single_use_body = Body::stream(SingleUseBody(Some(Bytes::from_static(b"once"))));
    let post = Request::post("http://a.example/2").body(single_use_body);
    let fetch = fetcher.fetch(post).read_with(recording_handler(&seen));
    assert_eq!(fetch.await.unwrap(), 401);
    assert_eq!(*seen.lock().unwrap(), [401, 401]);
    assert_eq!(mock.request_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn save_to_skips_a_401_before_a_refresh() {
    let mock_response = MockResponse::from_fn(|received| {
        let is_new = received.headers()["authorization"] == "Bearer token-2";
        MockResponse::status(if is_new { 200 } else { 401 }).body(if is_new {
            "new"
        } else {
            "old"
        })
    });
    let mock = Mock::new().fallback(mock_response);
    let (host, _) = host_with_numbered_tokens(ms(10));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    let path = std::env::temp_dir().join(format!("fanout-token-{}", std::process::id()));
    let request = Request::get("http://a.example/1").save_to(&path);
    let response = fetcher.fetch(request).await.unwrap();
    let saved = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((response.status().as_u16(), &*saved), (200, "new"));
}

/// A body that can be sent only once.
struct SingleUseBody(Option<Bytes>);

impl futures_core::Stream for SingleUseBody {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}

#[tokio::test(start_paused = true)]
async fn two_batches_and_a_fetch_share_one_refresh() {
    let mock = Mock::new().fallback(accept_only("token-2", ms(10)));
    let (host, source_calls) = host_with_numbered_tokens(ms(300));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    let (one, two, three) = tokio::join!(
        fetcher.gather(urls("a", 20)),
        fetcher.batch(urls("a", 20)).concurrency(3).gather(),
        fetcher.fetch("http://a.example/x"),
    );
    assert_eq!(
        (statuses(&one), statuses(&two)),
        (vec![200; 20], vec![200; 20])
    );
    assert_eq!(three.unwrap().status(), 200);
    assert_eq!(source_calls.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn authorization_of_the_request_overrides_the_token_source() {
    let mock = Mock::new().fallback(401);
    let (host, source_calls) = host_with_numbered_tokens(ms(10));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    let response = fetcher
        .fetch(Request::get(ORIGIN).bearer_auth("mine"))
        .await
        .unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!((source_calls.load(Relaxed), mock.request_count()), (0, 1));
    assert_eq!(mock.requests()[0].headers()["authorization"], "Bearer mine");
}

#[tokio::test(start_paused = true)]
async fn token_source_error_fails_waiting_requests_and_the_next_one_refreshes() {
    let source_calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&source_calls);
    let source = move || {
        let number = count.fetch_add(1, Relaxed);
        async move {
            sleep(ms(100)).await;
            if number == 0 {
                Err("login unavailable".into())
            } else {
                Ok("token-2".to_owned())
            }
        }
    };
    let mock = Mock::new().fallback(accept_only("token-2", ms(10)));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, Host::new().token_source(source))
        .build()
        .unwrap();
    for result in fetcher.gather(urls("a", 30)).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Token);
        assert_eq!(error.source().unwrap().to_string(), "login unavailable");
        assert!(!error.maybe_sent() && error.attempts().is_empty());
        assert!(error.url().unwrap().starts_with(ORIGIN));
    }
    assert_eq!(mock.request_count(), 0);
    assert_eq!(statuses(&fetcher.gather(urls("a", 30)).await), [200; 30]);
    assert_eq!(source_calls.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn token_source_error_after_a_401_keeps_the_attempts() {
    let source_calls = AtomicUsize::new(0);
    let source = move || {
        let first = source_calls.fetch_add(1, Relaxed) == 0;
        async move {
            if first {
                Ok("old".to_owned())
            } else {
                Err("gone".into())
            }
        }
    };
    let mock = Mock::new().fallback(MockResponse::status(401).delay(ms(50)));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, Host::new().token_source(source))
        .build()
        .unwrap();
    let error = fetcher.fetch(ORIGIN).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Token);
    assert!(error.maybe_sent());
    assert_eq!(
        (error.attempts().len(), error.timings().wire()),
        (1, ms(50))
    );
}

#[tokio::test(start_paused = true)]
async fn token_source_panic_fails_waiting_requests_only() {
    type Source = fn() -> std::future::Ready<Result<String, BoxError>>;
    let panics_when_called: Source = || panic!("s3cr3t");
    let hosts = [
        Host::new().token_source(panics_when_called),
        Host::new().token_source(|| async {
            if true {
                panic!("s3cr3t")
            } else {
                Err("".into())
            }
        }),
    ];
    for host in hosts {
        let mock = Mock::new().fallback(200);
        let fetcher = builder_with_transport(&mock)
            .host(ORIGIN, host)
            .build()
            .unwrap();
        for result in fetcher.gather(urls("a", 3)).await {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Panicked);
            assert!(!format!("{error} {error:?}").contains("s3cr3t"));
        }
        assert_eq!(statuses(&fetcher.gather(urls("b", 3)).await), [200; 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_token_is_rejected_and_not_shown() {
    let source = || async { Ok("s3cr3t token".to_owned()) };
    let mock = Mock::new().fallback(200);
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, Host::new().token_source(source))
        .build()
        .unwrap();
    let error = fetcher.fetch(ORIGIN).await.unwrap_err();
    assert_eq!((error.kind(), mock.request_count()), (ErrorKind::Token, 0));
    assert!(!format!("{error} {error:?} {:?}", error.source()).contains("s3cr3t"));
}

#[tokio::test(start_paused = true)]
async fn pending_token_source_fails_after_the_total_timeout() {
    let source = pending;
    let mock = Mock::new().fallback(200);
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, Host::new().token_source(source))
        .build()
        .unwrap();
    let begun = Instant::now();
    let error = fetcher.fetch(ORIGIN).await.unwrap_err();
    assert_eq!(
        (error.kind(), begun.elapsed()),
        (ErrorKind::Token, ms(120_000))
    );
    let batch = fetcher.batch(urls("a", 5)).deadline(ms(1_000));
    for result in batch.gather().await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Deadline);
    }
    assert_eq!(begun.elapsed(), ms(121_000));
}

#[tokio::test(start_paused = true)]
async fn redirects_send_the_token_to_its_origin_only() {
    let to = |url| MockResponse::status(302).header("location", url);
    let mock = Mock::new()
        .on("http://a.example/in", accept_only("token-1", ms(0)))
        .on("http://a.example/out", to("http://c.example/"))
        .on("http://b.example/", to("http://a.example/in"))
        .fallback(200);
    let (host, source_calls) = host_with_numbered_tokens(ms(10));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    let results = fetcher
        .gather(["http://b.example/", "http://a.example/out"])
        .await;
    assert_eq!(statuses(&results), [200, 200]);
    for sent in mock.requests() {
        let has_token = sent.headers().contains_key("authorization");
        assert_eq!(has_token, sent.url().starts_with(ORIGIN), "{}", sent.url());
    }
    assert_eq!(source_calls.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_token_does_not_consume_the_rate() {
    let mock = Mock::new().fallback(accept_only("token-1", ms(0)));
    let (host, _) = host_with_numbered_tokens(ms(10));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host.rate(Rate::per_minute(1)))
        .build()
        .unwrap();
    let begun = Instant::now();
    fetcher.fetch(ORIGIN).await.unwrap();
    assert_eq!(begun.elapsed(), ms(10));
}

#[tokio::test(start_paused = true)]
async fn refresh_continues_after_a_waiting_batch_is_dropped() {
    let mock = Mock::new().fallback(accept_only("token-1", ms(0)));
    let (host, source_calls) = host_with_numbered_tokens(ms(1_000));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    assert!(
        timeout(ms(500), fetcher.gather(urls("a", 10)))
            .await
            .is_err()
    );
    assert_eq!(statuses(&fetcher.gather(urls("a", 10)).await), [200; 10]);
    assert_eq!((source_calls.load(Relaxed), mock.request_count()), (1, 10));
}

#[test]
fn waiting_request_restarts_the_refresh_of_an_ended_runtime() {
    let mock = Mock::new().fallback(accept_only("token", ms(0)));
    let source_calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&source_calls);
    let source = move || {
        let first = count.fetch_add(1, Relaxed) == 0;
        async move {
            if first {
                pending::<()>().await;
            }
            Ok("token".to_owned())
        }
    };
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, Host::new().token_source(source))
        .build()
        .unwrap();
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let cancelled_fetch = first.spawn(fetcher.fetch(ORIGIN));
    first.block_on(async {
        while source_calls.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    });
    second.block_on(async {
        let mut waiting_fetch = pin!(fetcher.fetch(ORIGIN));
        assert!(timeout(ms(1), &mut waiting_fetch).await.is_err());
        assert_eq!(
            source_calls.load(Relaxed),
            1,
            "both requests share one refresh"
        );
        tokio::task::spawn_blocking(move || drop(first))
            .await
            .unwrap();
        assert_eq!(waiting_fetch.await.unwrap().status(), 200);
        assert!(cancelled_fetch.await.unwrap_err().is_cancelled());
    });
    assert_eq!(source_calls.load(Relaxed), 2);
    // Without a waiting request, the next request uses the token.
    let third = runtime();
    third.block_on(async { assert_eq!(fetcher.fetch(ORIGIN).await.unwrap().status(), 200) });
}

#[test]
fn refresh_restarts_after_its_runtime_ends_without_waiters() {
    let mock = Mock::new().fallback(accept_only("token-2", ms(0)));
    let (host, source_calls) = host_with_numbered_tokens(ms(3_600_000));
    let fetcher = builder_with_transport(&mock)
        .host(ORIGIN, host)
        .build()
        .unwrap();
    for turn in 1..=3 {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let waiting_fetch = runtime.spawn(fetcher.fetch(ORIGIN));
        runtime.block_on(async {
            while source_calls.load(Relaxed) < turn {
                tokio::task::yield_now().await;
            }
        });
        drop(runtime);
        drop(waiting_fetch);
    }
}

#[test]
fn bearer_auth_with_a_token_source_is_rejected() {
    let host = host_with_numbered_tokens(ms(0)).0.bearer_auth("s3cr3t");
    let shown = format!("{host:?}");
    assert!(shown.contains("token_source: true") && !shown.contains("s3cr3t"));
    let error = Fetcher::builder().host(ORIGIN, host).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(!error.to_string().contains("s3cr3t"));
}

#[tokio::test]
async fn concurrent_401s_over_sockets_share_one_refresh() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let page = get(move |headers: HeaderMap| async move {
        count.fetch_add(1, Relaxed);
        match headers.get("authorization") {
            Some(value) if value == "Bearer token-2" => StatusCode::OK,
            _ => StatusCode::UNAUTHORIZED,
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/{n}", page);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let (host, source_calls) = host_with_numbered_tokens(ms(5));
    let fetcher = Fetcher::builder().host(&origin, host).build().unwrap();
    let results = fetcher
        .gather((0..100).map(|n| format!("{origin}/{n}")))
        .await;
    assert_eq!(statuses(&results), [200; 100]);
    assert_eq!(source_calls.load(Relaxed), 2);
    let seen = seen.load(Relaxed);
    assert!(
        (101..=200).contains(&seen),
        "{seen} requests: each is repeated at most once"
    );
    server.abort();
}
