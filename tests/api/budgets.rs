//! Budgets as a server sees them that enforces the same limits.
//!
//! The server permits a tenth more than the budgets. A loaded machine may delay requests that have
//! started, and the server then sees them closer together. The tests of the same server on
//! tokio's paused clock need no such margin.

use std::time::Duration;

use fanout::{Budget, ErrorKind, Fetcher, Host, Request, RequestBuilder, Response, Result};

use crate::support::metered_api::{
    ALL_METERINGS, Completion, MeterLimits, MeterReport, MeteredApi, Metering, Prompt,
};

const PERIOD: Duration = Duration::from_secs(2);
const REQUESTS_PER_PERIOD: u64 = 60;
const TOKENS_PER_PERIOD: u64 = 6_000;

fn metered_api(metering: Metering) -> MeteredApi {
    let limits = MeterLimits {
        requests: REQUESTS_PER_PERIOD * 11 / 10,
        tokens: TOKENS_PER_PERIOD * 11 / 10,
        period: PERIOD,
    };
    MeteredApi::new(metering, limits).latency(Duration::from_millis(5))
}

fn used_tokens(response: &Response) -> Option<u64> {
    let completion: Completion = response.json().ok()?;
    Some(completion.usage.total_tokens)
}

fn metered_host() -> Host {
    let tokens = Budget::per("tokens", TOKENS_PER_PERIOD, PERIOD).burst(300);
    Host::new()
        .budget(Budget::per("requests", REQUESTS_PER_PERIOD, PERIOD))
        .budget(tokens.settle(used_tokens))
}

/// Yields requests that cost 50 to 150 tokens and state the estimate of this cost.
fn requests(
    server: &str,
    count: u64,
    estimate: fn(u64) -> u64,
) -> impl Iterator<Item = RequestBuilder> + Send {
    (0..count).map(move |n| {
        let tokens = 50 + (n * 7_919) % 101;
        Request::post(format!("{server}/v1/completions"))
            .json(&Prompt::costing(tokens))
            .cost("tokens", estimate(tokens))
    })
}

fn succeeded_count(results: &[Result<Response>]) -> u64 {
    let succeeded = results
        .iter()
        .flatten()
        .filter(|response| response.status() == 200);
    succeeded.count() as u64
}

/// Sends requests to one server of each kind, concurrently, and returns what each server saw.
async fn run_with_estimates(count: u64, estimate: fn(u64) -> u64) -> [MeterReport; 3] {
    let tasks = ALL_METERINGS.map(|metering| async move {
        let api = metered_api(metering);
        let server = api.start().await;
        let fetcher = Fetcher::builder()
            .host(&server, metered_host())
            .build()
            .unwrap();
        let results = fetcher.gather(requests(&server, count, estimate)).await;
        assert_eq!(succeeded_count(&results), count, "{metering:?}");
        api.report()
    });
    let [fixed, sliding, bucket] = tasks;
    let (fixed, sliding, bucket) = tokio::join!(fixed, sliding, bucket);
    [fixed, sliding, bucket]
}

#[tokio::test]
async fn requests_with_correct_estimates_are_never_rejected() {
    for report in run_with_estimates(150, |tokens| tokens).await {
        assert_eq!((report.requests, report.rejections), (150, 0), "{report:?}");
    }
}

#[tokio::test]
async fn requests_with_estimates_of_half_the_cost_are_rarely_rejected() {
    for report in run_with_estimates(150, |tokens| tokens / 2).await {
        assert!(report.rejections <= 15, "{report:?}");
    }
}

#[tokio::test]
async fn requests_with_estimates_of_twice_the_cost_are_never_rejected() {
    for report in run_with_estimates(100, |tokens| 2 * tokens).await {
        assert_eq!(report.rejections, 0, "{report:?}");
    }
}

#[tokio::test]
async fn spending_cap_ends_the_other_requests_unsent() {
    let api = metered_api(Metering::SlidingWindow);
    let server = api.start().await;
    let fetcher = Fetcher::builder()
        .host(&server, metered_host())
        .build()
        .unwrap();
    let spending_cap = Budget::total("cents", 50).default_cost(2);
    let batch = fetcher.batch(requests(&server, 100, |tokens| tokens));
    let results = batch.budget(spending_cap).gather().await;
    assert_eq!(succeeded_count(&results), 25);
    assert_eq!((api.report().requests, api.report().rejections), (25, 0));
    let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 75);
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Budget);
        assert!(!error.maybe_sent() && error.attempts().is_empty());
    }
}
