//! Budgets in front of an API that enforces the same limits, on tokio's clock: exact.

use std::time::Duration;

use fanout::{Budget, Fetcher, Host, Request, Response, Retry};
use tokio::time::{Instant, sleep};

use super::metered_api::{
    ALL_METERINGS, Completion, MeterLimits, MeterReport, MeteredApi, Metering, Prompt,
};
use super::{all_ok, ms, secs};

const ORIGIN: &str = "http://api.example";

const LIMITS: MeterLimits = MeterLimits {
    requests: 500,
    tokens: 50_000,
    period: secs(10),
};

/// The duration of a run, and the counts of the API.
struct Run {
    elapsed: Duration,
    report: MeterReport,
}

impl Run {
    /// Returns the used part of the limit that was used most.
    fn utilization(&self) -> f64 {
        let periods = self.elapsed.as_secs_f64() / LIMITS.period.as_secs_f64();
        let accepted = self.report.requests - self.report.rejections;
        let of_requests = accepted as f64 / LIMITS.requests as f64;
        let of_tokens = self.report.tokens as f64 / LIMITS.tokens as f64;
        of_requests.max(of_tokens) / periods
    }
}

fn used_tokens(response: &Response) -> Option<u64> {
    let completion: Completion = response.json().ok()?;
    Some(completion.usage.total_tokens)
}

/// Yields pairs of the actual and the estimated tokens of 1,000 requests. The actual tokens are
/// between half of `mean` and one and a half of it.
fn costs(mean: u64, estimate: impl Fn(u64) -> u64) -> Vec<(u64, u64)> {
    let actual = |n: u64| mean / 2 + (n * 7_919) % (mean + 1);
    (0..1_000).map(actual).map(|n| (n, estimate(n))).collect()
}

/// Sends requests with these actual and estimated costs to the API, with these budgets.
async fn run(metering: Metering, budgets: [Budget; 2], costs: Vec<(u64, u64)>) -> Run {
    let api = MeteredApi::new(metering, LIMITS).latency(ms(200));
    let host = budgets.into_iter().fold(Host::new(), Host::budget);
    let fetcher = Fetcher::builder()
        .transport(api.router())
        .host(ORIGIN, host)
        .retry(Retry::default().throttled_base_delay(ms(100)))
        .build()
        .unwrap();
    // The windows of the server do not begin with the batch.
    sleep(ms(3_700)).await;
    let requests = costs.into_iter().map(|(actual, estimated)| {
        Request::post(format!("{ORIGIN}/v1/completions"))
            .json(&Prompt::costing(actual))
            .cost("tokens", estimated)
    });
    let started = Instant::now();
    let results = fetcher.gather(requests).await;
    let elapsed = started.elapsed();
    assert!(all_ok(&results));
    Run {
        elapsed,
        report: api.report(),
    }
}

fn requests_budget() -> Budget {
    Budget::per("requests", LIMITS.requests, LIMITS.period)
}

fn tokens_budget() -> Budget {
    Budget::per("tokens", LIMITS.tokens, LIMITS.period)
}

#[tokio::test(start_paused = true)]
async fn correct_estimates_are_never_rejected_and_use_95_percent_of_the_limits() {
    for metering in ALL_METERINGS {
        // The tokens, the requests and both limit the throughput.
        for mean in [150, 50, 100] {
            let costs = costs(mean, |actual| actual);
            let run = run(metering, [requests_budget(), tokens_budget()], costs).await;
            assert_eq!(run.report.rejections, 0, "{metering:?}, {mean}");
            assert_eq!(run.report.requests, 1_000);
            assert!(run.report.peak_requests <= LIMITS.requests);
            assert!(run.report.peak_tokens <= LIMITS.tokens);
            let utilization = run.utilization();
            assert!(
                utilization >= 0.95,
                "{utilization} with {metering:?}, {mean}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn estimates_of_half_the_cost_recover_through_settling() {
    for metering in ALL_METERINGS {
        let costs = || costs(150, |actual| actual / 2);
        let settled = tokens_budget().settle(used_tokens);
        let with_settling = run(metering, [requests_budget(), settled], costs()).await;
        let without = run(metering, [requests_budget(), tokens_budget()], costs()).await;
        let (settled, unsettled) = (with_settling.report.rejections, without.report.rejections);
        let utilization = with_settling.utilization();
        assert!(settled <= 10, "{settled} with {metering:?}");
        // The token bucket is full at the start, which covers the whole excess.
        if metering != Metering::TokenBucket {
            assert!(
                unsettled >= 18 && unsettled > 2 * settled,
                "{unsettled} with {metering:?}"
            );
        }
        assert!(utilization >= 0.9, "{utilization} with {metering:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn estimates_of_twice_the_cost_recover_through_settling() {
    for metering in ALL_METERINGS {
        let costs = || costs(150, |actual| 2 * actual);
        let settled = tokens_budget().settle(used_tokens);
        let with_settling = run(metering, [requests_budget(), settled], costs()).await;
        let without = run(metering, [requests_budget(), tokens_budget()], costs()).await;
        assert_eq!(with_settling.report.rejections, 0, "{metering:?}");
        assert!(without.utilization() <= 0.55, "{metering:?}");
        let utilization = with_settling.utilization();
        assert!(utilization >= 0.9, "{utilization} with {metering:?}");
    }
}
