//! Tests of the engine over a [`Mock`] on tokio's paused clock: exact times and counts, no sockets.

mod announced_budgets;
mod batch_control;
mod budget_scopes;
mod budget_settings;
mod budget_settlement;
mod budgets;
mod cancellation;
mod circuit_breaker;
mod concurrency_and_rate;
mod edge_cases;
mod final_round;
mod follow;
mod host_cancellation;
mod host_fn;
mod makespan;
#[cfg(feature = "json")]
#[path = "../api/support/metered_api.rs"]
mod metered_api;
#[cfg(feature = "json")]
mod metered_apis;
mod order_and_look_ahead;
mod priorities;
mod progress;
mod rate_limit_headers;
mod retries;
mod retry_budget;
mod sibling_limits;
mod stop_when;
mod summary;
mod timeouts;
mod user_panics;
mod waiting_requests;

use std::time::Duration;

use fanout::{
    Budget, Fetcher, FetcherBuilder, Mock, MockResponse, Request, RequestBuilder, Response, Result,
};
use tokio::time::Instant;

/// Returns a builder whose transport is `mock`.
fn builder(mock: &Mock) -> FetcherBuilder {
    Fetcher::builder().transport(mock.clone())
}

fn fetcher(mock: &Mock) -> Fetcher {
    builder(mock).build().unwrap()
}

/// Returns a mock that responds to every request after `millis` milliseconds.
fn responding_after_ms(millis: u64) -> Mock {
    Mock::new().fallback(MockResponse::text("x").delay(ms(millis)))
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Yields `count` URLs of one host.
fn urls(host: &'static str, count: usize) -> impl Iterator<Item = String> + Send + Clone + 'static {
    (0..count).map(move |n| format!("http://{host}.example/{n}"))
}

/// Returns the times at which requests for URLs that start with `prefix` were received, in
/// milliseconds after `since`.
fn received_at_ms(mock: &Mock, prefix: &str, since: Instant) -> Vec<u128> {
    let requests = mock.requests();
    let matching = requests
        .iter()
        .filter(|request| request.url().starts_with(prefix));
    matching
        .map(|request| (request.received_at() - since).as_millis())
        .collect()
}

fn all_ok(results: &[Result<Response>]) -> bool {
    results.iter().all(|result| {
        result
            .as_ref()
            .is_ok_and(|response| response.status() == 200)
    })
}

/// Returns a budget of one unit per second with a capacity of 10 units.
fn one_per_second(name: &'static str) -> Budget {
    // 110 - 10 + 1 units are refilled in 1.01 × 100 s.
    Budget::per(name, 110, secs(100)).burst(10)
}

/// Yields `count` requests to one host, each with this cost on a budget.
fn requests_with_cost(
    host: &'static str,
    count: usize,
    budget: &'static str,
    cost: u64,
) -> impl Iterator<Item = RequestBuilder> + Send + Clone + 'static {
    urls(host, count).map(move |url| Request::get(url).cost(budget, cost))
}

/// Returns the level of the first budget with this name.
fn budget_level(fetcher: &Fetcher, name: &str) -> i64 {
    let snapshot = fetcher.snapshot();
    let budgets = snapshot.progress().budgets();
    let found = budgets.iter().find(|budget| budget.name() == name);
    found.unwrap().level()
}
