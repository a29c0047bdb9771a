//! Requests wait for budgets, and fail if a budget can never cover their cost.

use std::time::Duration;

use fanout::{
    Budget, ErrorKind, Fetcher, Host, Mock, MockResponse, Request, Response, Result, Retry,
    Timeouts, WaitReason,
};
use tokio::time::{Instant, sleep};

use super::{
    all_ok, budget_level, builder, ms, one_per_second, received_at_ms, requests_with_cost,
    responding_after_ms, secs, urls,
};

const HOST: &str = "http://a.example";

/// Returns a Fetcher whose host `a` has these budgets.
fn fetcher_with_budgets<const N: usize>(mock: &Mock, budgets: [Budget; N]) -> Fetcher {
    let host = budgets.into_iter().fold(Host::new(), Host::budget);
    builder(mock).host(HOST, host).build().unwrap()
}

/// Returns the kinds of the errors, sorted.
fn error_kinds(results: &[Result<Response>]) -> Vec<ErrorKind> {
    let errors = results.iter().filter_map(|result| result.as_ref().err());
    let mut kinds: Vec<ErrorKind> = errors.map(fanout::Error::kind).collect();
    kinds.sort();
    kinds
}

#[tokio::test(start_paused = true)]
async fn requests_start_when_the_budget_covers_their_cost() {
    let mock = responding_after_ms(1);
    let fetcher = fetcher_with_budgets(&mock, [one_per_second("tokens")]);
    let started = Instant::now();
    let results = fetcher
        .gather(requests_with_cost("a", 6, "tokens", 4))
        .await;
    assert!(all_ok(&results));
    // The capacity of 10 covers two requests. One unit is refilled per second.
    assert_eq!(
        received_at_ms(&mock, HOST, started),
        [0, 0, 2_000, 6_000, 10_000, 14_000]
    );
}

#[tokio::test(start_paused = true)]
async fn request_costs_one_of_requests_and_nothing_of_other_budgets() {
    let mock = responding_after_ms(1);
    let budgets = [
        one_per_second("requests"),
        one_per_second("tokens"),
        one_per_second("points").default_cost(5),
    ];
    let fetcher = fetcher_with_budgets(&mock, budgets);
    fetcher.fetch(HOST).await.unwrap();
    fetcher
        .fetch(Request::get(HOST).cost("requests", 3).cost("points", 0))
        .await
        .unwrap();
    let level = |name| budget_level(&fetcher, name);
    assert_eq!(
        (level("requests"), level("tokens"), level("points")),
        (6, 10, 5)
    );
}

/// Returns how many of `units` a window of one period admits at most, for requests received at
/// `starts` (in nanoseconds).
fn max_cost_in_window(starts: &[(u128, u64)], period: Duration) -> u64 {
    let in_window = |first: &(u128, u64)| {
        let end = first.0 + period.as_nanos();
        let window = starts.iter().filter(|(at, _)| (first.0..end).contains(at));
        window.map(|(_, cost)| cost).sum()
    };
    starts.iter().map(in_window).max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_period_admits_more_than_the_units_and_96_percent_are_used() {
    let mock = responding_after_ms(5);
    let units = 6_000;
    let fetcher = fetcher_with_budgets(&mock, [Budget::per_minute("tokens", units)]);
    let costs: Vec<u64> = (0..400).map(|n| 1 + (n * 7_919) % 150).collect();
    let requests = costs.iter().enumerate().map(|(n, &cost)| {
        // The first path segment is the cost.
        Request::get(format!("{HOST}/{cost}/{n}")).cost("tokens", cost)
    });
    let started = Instant::now();
    assert!(all_ok(&fetcher.gather(requests).await));
    let starts: Vec<(u128, u64)> = mock
        .requests()
        .iter()
        .map(|request| {
            let cost = request.uri().path().split('/').nth(1).unwrap();
            let at = request.received_at() - started;
            (at.as_nanos(), cost.parse().unwrap())
        })
        .collect();
    assert!(max_cost_in_window(&starts, secs(60)) <= units);
    let total: u64 = costs.iter().sum();
    let permitted = started.elapsed().as_secs_f64() * units as f64 / 60.0;
    assert!(total as f64 >= 0.96 * permitted, "{total} of {permitted}");
}

#[tokio::test(start_paused = true)]
async fn all_budgets_are_charged_together_or_none() {
    let mock = responding_after_ms(1);
    let fetcher = fetcher_with_budgets(
        &mock,
        [one_per_second("requests"), one_per_second("tokens")],
    );
    let first = fetcher.fetch(Request::get(HOST).cost("tokens", 10));
    first.await.unwrap();
    let waiting = tokio::spawn(fetcher.fetch(Request::get(HOST).cost("tokens", 5)));
    sleep(secs(4)).await;
    // The waiting request has not been charged on `requests`, which is full again.
    assert_eq!(budget_level(&fetcher, "requests"), 10);
    assert_eq!(mock.request_count(), 1);
    waiting.await.unwrap().unwrap();
    assert_eq!(budget_level(&fetcher, "requests"), 9);
}

#[tokio::test(start_paused = true)]
async fn waiting_request_holds_no_slot_and_no_timeout_runs() {
    let mock = responding_after_ms(100);
    let host = Host::new().budget(one_per_second("tokens"));
    let timeouts = Timeouts::default().total(ms(500)).response_head(ms(500));
    let fetcher = builder(&mock)
        .concurrency(1)
        .timeouts(timeouts)
        .host(HOST, host)
        .build()
        .unwrap();
    let of_a = requests_with_cost("a", 4, "tokens", 10);
    let of_b = urls("b", 50).map(Request::get);
    let started = Instant::now();
    let results = fetcher.gather(of_a.chain(of_b)).await;
    assert!(all_ok(&results));
    assert_eq!(
        received_at_ms(&mock, HOST, started),
        [0, 10_000, 20_000, 30_000]
    );
    // The only slot was never idle while requests to the other host were queued.
    let last_of_b = received_at_ms(&mock, "http://b.example", started).pop();
    assert_eq!(last_of_b, Some(50 * 100));
}

#[tokio::test(start_paused = true)]
async fn large_request_is_not_overtaken_forever_by_small_requests() {
    let mock = responding_after_ms(1);
    let fetcher = fetcher_with_budgets(&mock, [one_per_second("tokens")]);
    let started = Instant::now();
    let small = || {
        fetcher
            .batch(requests_with_cost("a", 60, "tokens", 1))
            .gather()
    };
    let large = async {
        sleep(secs(5)).await;
        fetcher
            .fetch(Request::get("http://a.example/large").cost("tokens", 10))
            .await
            .unwrap();
        started.elapsed()
    };
    let (of_small, large_end, of_others) = tokio::join!(small(), large, small());
    assert!(all_ok(&of_small) && all_ok(&of_others));
    assert!(large_end < secs(20), "{large_end:?}");
}

#[tokio::test(start_paused = true)]
async fn cost_above_the_capacity_fails_only_its_request() {
    let mock = responding_after_ms(1);
    let fetcher = fetcher_with_budgets(&mock, [one_per_second("tokens")]);
    let requests = [5, 11, 5].map(|cost| Request::get(HOST).cost("tokens", cost));
    let started = Instant::now();
    let results = fetcher
        .batch(requests)
        .retry(Retry::default().max_retries(3))
        .gather()
        .await;
    assert_eq!(started.elapsed(), ms(1));
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.maybe_sent()),
        (ErrorKind::Budget, false)
    );
    assert!(error.attempts().is_empty());
    assert_eq!(
        error.to_string(),
        "cost exceeds a budget for http://a.example/: the request costs 11 of the budget `tokens`, \
         whose capacity is 10; `Budget::burst` sets the capacity"
    );
    assert_eq!(mock.request_count(), 2);
    let error = fetcher
        .fetch(Request::get(HOST).cost("tokens", 11))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Budget);
}

#[tokio::test(start_paused = true)]
async fn exhausted_total_ends_all_waiting_requests_unsent() {
    let mock = responding_after_ms(100);
    let fetcher = fetcher_with_budgets(&mock, [Budget::total("cents", 5)]);
    let started = Instant::now();
    let results = fetcher
        .batch(requests_with_cost("a", 100, "cents", 2))
        .gather()
        .await;
    // The third request waits for the first two, whose costs may be refunded.
    assert_eq!(started.elapsed(), ms(100));
    assert_eq!(error_kinds(&results), [ErrorKind::Budget; 98]);
    assert_eq!(mock.request_count(), 2);
    let error = results[99].as_ref().unwrap_err();
    assert!(!error.maybe_sent());
    assert!(
        error
            .to_string()
            .ends_with("the request costs 2 of the budget `cents`, which has 1 left"),
        "{error}"
    );
    // The rest covers a smaller request, and requests without a cost.
    fetcher
        .fetch(Request::get(HOST).cost("cents", 1))
        .await
        .unwrap();
    fetcher.fetch(HOST).await.unwrap();
    assert_eq!(budget_level(&fetcher, "cents"), 0);
}

#[tokio::test(start_paused = true)]
async fn total_is_never_refilled() {
    let mock = responding_after_ms(1);
    let fetcher = fetcher_with_budgets(&mock, [Budget::total("cents", 5)]);
    fetcher
        .fetch(Request::get(HOST).cost("cents", 5))
        .await
        .unwrap();
    // Requests to other hosts make the schedule evict idle hosts.
    assert!(all_ok(
        &fetcher
            .gather((0..100).map(|n| format!("http://b{n}.example/")))
            .await
    ));
    sleep(secs(86_400)).await;
    assert!(all_ok(
        &fetcher
            .gather((0..100).map(|n| format!("http://c{n}.example/")))
            .await
    ));
    let error = fetcher
        .fetch(Request::get(HOST).cost("cents", 1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Budget);
}

#[tokio::test(start_paused = true)]
async fn request_waiting_for_its_retry_keeps_its_outcome_when_the_total_is_exhausted() {
    let mock = Mock::new().fallback(MockResponse::status(503));
    let fetcher = fetcher_with_budgets(&mock, [Budget::total("cents", 5)]);
    let response = fetcher
        .fetch(Request::get(HOST).cost("cents", 3))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (503, 1)
    );
    assert_eq!(mock.request_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn stop_when_drain_and_cancel_end_waiting_requests() {
    let mock = responding_after_ms(100);
    let fetcher = fetcher_with_budgets(&mock, [one_per_second("tokens")]);
    let started = Instant::now();
    let batch = fetcher.batch(requests_with_cost("a", 20, "tokens", 10));
    let results = batch.stop_when(Result::is_ok).gather().await;
    assert_eq!(error_kinds(&results), [ErrorKind::Cancelled; 19]);
    assert_eq!(started.elapsed(), ms(100));

    let batch = fetcher.batch(requests_with_cost("a", 20, "tokens", 10));
    let handle = batch.handle();
    let cancel = async {
        sleep(secs(15)).await;
        assert_eq!(handle.progress().waiting().for_budget(), 19);
        handle.cancel();
    };
    let (results, ()) = tokio::join!(batch.gather(), cancel);
    assert_eq!(error_kinds(&results), [ErrorKind::Cancelled; 19]);
    assert_eq!(started.elapsed(), ms(100) + secs(15));
    // The cancelled requests have not been charged.
    sleep(secs(20)).await;
    assert_eq!(budget_level(&fetcher, "tokens"), 10);
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_waiting_requests() {
    let mock = responding_after_ms(100);
    let fetcher = fetcher_with_budgets(&mock, [one_per_second("tokens")]);
    let started = Instant::now();
    let batch = fetcher.batch(requests_with_cost("a", 5, "tokens", 10));
    let results = batch.deadline(secs(15)).gather().await;
    assert_eq!(error_kinds(&results), [ErrorKind::Deadline; 3]);
    assert!(started.elapsed() <= secs(15));
    assert_eq!(mock.request_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn dropped_fetch_that_waits_delays_no_other() {
    let mock = responding_after_ms(100);
    let fetcher = fetcher_with_budgets(&mock, [one_per_second("tokens")]);
    let started = Instant::now();
    fetcher
        .fetch(Request::get(HOST).cost("tokens", 10))
        .await
        .unwrap();
    let dropped = fetcher.fetch(Request::get(HOST).cost("tokens", 10));
    let waiting = tokio::spawn(dropped);
    sleep(secs(1)).await;
    waiting.abort();
    fetcher
        .fetch(Request::get(HOST).cost("tokens", 2))
        .await
        .unwrap();
    assert_eq!(received_at_ms(&mock, HOST, started), [0, 2_000]);
}

#[tokio::test(start_paused = true)]
async fn progress_names_the_budget_and_counts_its_waiting_requests() {
    let mock = responding_after_ms(100);
    let fetcher = fetcher_with_budgets(
        &mock,
        [one_per_second("requests"), one_per_second("tokens")],
    );
    let batch = fetcher.batch(requests_with_cost("a", 5, "tokens", 6));
    let handle = batch.handle();
    let watch = async {
        sleep(ms(50)).await;
        for progress in [handle.progress(), fetcher.snapshot().progress().clone()] {
            assert_eq!(
                (progress.in_flight(), progress.waiting().for_budget()),
                (1, 4)
            );
            assert_eq!(progress.waiting().total(), 4);
            assert_eq!(progress.waiting().to_string(), "4 waiting (budget 4)");
            let host = &progress.busiest_hosts()[0];
            assert_eq!(host.wait_reason(), WaitReason::Budget);
            assert_eq!(host.blocking_budget(), Some("tokens"));
            assert_eq!(
                host.to_string(),
                "http://a.example: 4 waiting (budget `tokens`), 1 in flight"
            );
            let budgets: Vec<String> = progress.budgets().iter().map(ToString::to_string).collect();
            assert_eq!(
                budgets,
                [
                    "requests of http://a.example: 9 of 10",
                    "tokens of http://a.example: 4 of 10, 4 waiting"
                ]
            );
        }
    };
    let (results, ()) = tokio::join!(batch.gather(), watch);
    assert!(all_ok(&results));
}
