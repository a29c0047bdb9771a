//! Hosts that cannot be reached.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use fanout::{Body, Breaker, Error, ErrorKind, Fetcher, Host, Mock, MockResponse, Outcome, Retry};
use tokio::time::{Instant, sleep};

use super::{fetcher, ms, over, received, secs, urls};

const A: &str = "http://a.example/*";
const URL: &str = "http://a.example/";

fn once(mock: &Mock) -> fanout::FetcherBuilder {
    over(mock).retry(Retry::off())
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_among_live_ones_costs_five_requests_and_a_probe() {
    let mock = Mock::new()
        .on(A, ErrorKind::Connect)
        .fallback(MockResponse::text("x").delay(ms(100)));
    let fetcher = once(&mock).build().unwrap();
    let started = Instant::now();
    let both = urls("a", 10_000).zip(urls("b", 10_000));
    let inputs = both.flat_map(|(dead, live)| [dead, live]);
    let results = fetcher.gather(inputs).await;
    assert_eq!(results.len(), 20_000);
    let mut kinds: HashMap<ErrorKind, usize> = HashMap::new();
    for (index, result) in results.iter().enumerate() {
        match result {
            Ok(response) => assert!(index % 2 == 1 && response.status() == 200),
            Err(error) => {
                assert!(index % 2 == 0 && !error.maybe_sent() && error.is_connect());
                *kinds.entry(error.kind()).or_default() += 1;
            }
        }
    }
    assert_eq!(kinds.values().sum::<usize>(), 10_000);
    let refused = kinds[&ErrorKind::HostDown];
    assert!(refused >= 9_900, "{kinds:?}");
    assert_eq!(
        started.elapsed(),
        secs(15),
        "the cooldown, and not a timeout each"
    );
}

/// Connects at once, but to host `a` never.
#[derive(Clone)]
struct BlackHole(Arc<Mutex<usize>>);

#[derive(Clone)]
struct Connecting(BlackHole);

impl tower_service::Service<http::Request<Body>> for Connecting {
    type Response = http::Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        *self.0.0.lock().unwrap() += 1;
        Poll::Pending
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(http::Response::new(String::new())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_costs_one_round_of_timeouts_and_one_more() {
    let polls = Arc::default();
    let fetcher = Fetcher::builder()
        .transport(Connecting(BlackHole(Arc::clone(&polls))))
        .retry(Retry::off())
        .build()
        .unwrap();
    let started = Instant::now();
    let results = fetcher.gather(urls("a", 10_000)).await;
    let count = |kind| {
        let of = |result: &&fanout::Result<_>| result.as_ref().is_err_and(|e| e.kind() == kind);
        results.iter().filter(of).count()
    };
    assert_eq!(
        count(ErrorKind::ConnectTimeout),
        105,
        "a full house, four in the place of the first to fail, and the probe"
    );
    assert_eq!(count(ErrorKind::HostDown), 10_000 - 105);
    assert_eq!(started.elapsed(), secs(10 + 15 + 10));
    assert!(*polls.lock().unwrap() >= 105);
}

#[tokio::test(start_paused = true)]
async fn what_had_an_attempt_ends_with_what_that_came_to() {
    let mock = Mock::new().on(A, ErrorKind::Connect);
    let fetcher = over(&mock)
        .breaker(Breaker::default().failure_threshold(2).max_wait(ms(0)))
        .build()
        .unwrap();
    let error = fetcher.fetch(URL).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Connect, 2)
    );
    let error = fetcher.fetch(URL).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::HostDown, 0)
    );
    assert!(!error.maybe_sent());
    assert_eq!(error.url(), Some(URL));
    assert_eq!(error.to_string(), format!("host is down for {URL}"));
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_host_that_comes_back_and_hold_nothing_meanwhile() {
    let mock = Mock::new()
        .on("http://a.example/down", ErrorKind::Connect)
        .fallback(MockResponse::text("x").delay(ms(10)));
    let fetcher = once(&mock).concurrency(1).build().unwrap();
    let started = Instant::now();
    fetcher.gather(["http://a.example/down"; 5]).await;
    let waiting = tokio::spawn(fetcher.batch(urls("a", 3)).gather());
    fetcher.gather(urls("b", 10)).await;
    assert_eq!(
        started.elapsed(),
        ms(100),
        "the other host has the only slot"
    );
    let snapshot = fetcher.snapshot();
    assert_eq!(snapshot.progress().waiting().breaker(), 3);
    assert!(super::all_ok(&waiting.await.unwrap()));
    assert_eq!(received(&mock, "http://a.example/0", started), [15_000]);
    assert_eq!(received(&mock, "http://a.example/2", started), [15_020]);
}

#[tokio::test(start_paused = true)]
async fn only_failures_without_a_connection_open_it() {
    let counted = [
        ErrorKind::Dns,
        ErrorKind::Connect,
        ErrorKind::Proxy,
        ErrorKind::ConnectTimeout,
    ];
    let others = [
        ErrorKind::HostNotFound,
        ErrorKind::ProxyRefused,
        ErrorKind::Tls,
        ErrorKind::Closed,
        ErrorKind::Truncated,
        ErrorKind::ResponseHeadTimeout,
        ErrorKind::RequestTimeout,
        ErrorKind::Protocol,
        ErrorKind::NotAllowed,
    ];
    for (kind, opens) in counted
        .map(|kind| (kind, true))
        .into_iter()
        .chain(others.map(|kind| (kind, false)))
    {
        let mock = Mock::new().on(URL, kind);
        let fetcher = once(&mock).build().unwrap();
        let started = Instant::now();
        for _ in 0..6 {
            let _ = fetcher.fetch(URL).await;
        }
        assert_eq!(started.elapsed() == secs(15), opens, "{kind}");
    }
    let mock = Mock::new().on(URL, 500);
    let fetcher = once(&mock).build().unwrap();
    for _ in 0..6 {
        fetcher.fetch(URL).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempts_own_clock_that_runs_out_while_connecting_counts() {
    let mock = Mock::new().connect_delay(secs(3)).fallback(200);
    let fetcher = once(&mock)
        .breaker(Breaker::default().max_wait(ms(0)))
        .build()
        .unwrap();
    let request = fanout::Request::get(URL).timeout(secs(1));
    for _ in 0..5 {
        let error = fetcher.fetch(request.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestTimeout);
    }
    let error = fetcher.fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostDown);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_off_for_all_or_for_one_and_is_where_lanes_are_no_origins() {
    let count = |mock: &Mock| mock.request_count();
    let mock = Mock::new().fallback(ErrorKind::Connect);
    let hasty = Breaker::default().max_wait(ms(0));
    let off = once(&mock).breaker(Breaker::off()).build().unwrap();
    off.batch(urls("a", 50)).concurrency(1).gather().await;
    assert_eq!(count(&mock), 50);

    let mock = Mock::new().fallback(ErrorKind::Connect);
    let one = once(&mock)
        .breaker(hasty)
        .host("http://a.example", Host::new().breaker(Breaker::off()))
        .build()
        .unwrap();
    one.batch(urls("a", 50)).concurrency(1).gather().await;
    one.batch(urls("b", 50)).concurrency(1).gather().await;
    assert_eq!(count(&mock), 50 + 5);

    let mock = Mock::new().fallback(ErrorKind::Connect);
    let by_all = once(&mock).breaker(hasty).limit_by(|_: &_| "all");
    let by_all = by_all.build().unwrap();
    by_all.batch(urls("a", 50)).concurrency(1).gather().await;
    assert_eq!(count(&mock), 50);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_leaves_the_host_to_another() {
    let mock = Mock::new()
        .on("http://a.example/down", ErrorKind::Connect)
        .on(
            "http://a.example/slow",
            MockResponse::text("x").delay(secs(60)),
        )
        .fallback(200);
    let fetcher = once(&mock).build().unwrap();
    let started = Instant::now();
    fetcher.gather(["http://a.example/down"; 5]).await;
    let probe = tokio::spawn(fetcher.fetch("http://a.example/slow"));
    sleep(ms(1)).await;
    let next = tokio::spawn(fetcher.fetch("http://a.example/next"));
    sleep(secs(20)).await;
    assert_eq!(received(&mock, "http://a.example/next", started).len(), 0);
    probe.abort();
    assert_eq!(next.await.unwrap().unwrap().status(), 200);
    assert_eq!(received(&mock, "http://a.example/next", started), [20_001]);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_to_a_host_that_is_down_ends_as_that() {
    let mock = Mock::new()
        .on("http://a.example/down", ErrorKind::Connect)
        .on(
            "http://b.example/",
            MockResponse::status(302)
                .header("location", URL)
                .delay(ms(1)),
        );
    let fetcher = once(&mock)
        .breaker(Breaker::default().max_wait(ms(0)))
        .build()
        .unwrap();
    fetcher.gather(["http://a.example/down"; 5]).await;
    let error = fetcher.fetch("http://b.example/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostDown);
    assert!(error.maybe_sent(), "to the first host");
    assert_eq!(error.redirects().len(), 1);
    let outcome = error.attempts()[0].outcome();
    assert_eq!(outcome, Outcome::Error(ErrorKind::HostDown));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_got_its_body_is_told_why() {
    let mock = Mock::new()
        .on(URL, MockResponse::status(503).header("retry-after", "10"))
        .fallback(MockResponse::error(ErrorKind::Connect).delay(ms(1)));
    let fetcher = over(&mock)
        .breaker(Breaker::default().max_wait(ms(0)))
        .build()
        .unwrap();
    let handled = fetcher
        .batch([URL])
        .read_with(|_body| async { Ok::<_, Error>(()) });
    let down = fetcher.batch(urls("a", 5)).retry(Retry::off());
    let (results, _) = tokio::join!(handled.gather(), down.gather());
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostDown);
    assert!(error.maybe_sent());
    assert_eq!(error.response().unwrap().status(), 503);
}

#[tokio::test(start_paused = true)]
async fn by_default_a_quiet_fetcher_notices_nothing_of_it() {
    let mock = Mock::new()
        .on(URL, ErrorKind::Connect)
        .then(ErrorKind::Connect)
        .then(200);
    let response = fetcher(&mock).fetch(URL).await.unwrap();
    assert_eq!(response.attempts().len(), 3);
}
