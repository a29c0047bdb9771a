//! The makespan of a batch, compared with the lower bound that its limits allow. The bound is the
//! larger of two quotients: the total wire time over the concurrency, and the largest wire time of
//! one host over that host's concurrency.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::routing::get;
use fanout::{Batch, Concurrency, Fetcher, Mock, MockResponse};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::{builder, fetcher, ms, responding_after_ms, secs, urls};

async fn makespan(batch: Batch<'_>) -> Duration {
    let started = Instant::now();
    let mut done = batch.as_completed();
    while let Some(completed) = done.next().await {
        assert_eq!(completed.result.unwrap().status(), 200);
    }
    started.elapsed()
}

/// Asserts that `took` exceeds `lower_bound` by at most `percent` per cent.
fn assert_within(elapsed: Duration, percent: u32, lower_bound: Duration) {
    let upper_bound = lower_bound * (100 + percent) / 100;
    assert!(
        elapsed <= upper_bound,
        "{elapsed:?}, lower bound {lower_bound:?}"
    );
}

/// Yields 1,000 URLs for each of 100 hosts, sorted by host.
fn urls_sorted_by_host() -> impl Iterator<Item = String> + Send {
    (0..100).flat_map(|host| (0..1000).map(move |n| format!("http://h{host}.example/{n}")))
}

#[tokio::test(start_paused = true)]
async fn look_ahead_over_all_sorted_inputs_reaches_lower_bound() {
    let mock = responding_after_ms(100);
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(urls_sorted_by_host()).concurrency_per_host(2);
    let elapsed = makespan(batch.look_ahead(100_000)).await;
    assert_within(elapsed, 1, secs(100));
}

#[tokio::test(start_paused = true)]
async fn default_look_ahead_over_sorted_inputs_meets_documented_bound() {
    let mock = responding_after_ms(100);
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(urls_sorted_by_host()).concurrency_per_host(1);
    assert_within(makespan(batch).await, 42, secs(100));
}

#[tokio::test(start_paused = true)]
async fn paused_host_delays_no_other() {
    let mock = Mock::new()
        .on(
            "http://h3.example/*",
            MockResponse::status(429).header("retry-after", "3"),
        )
        .then(MockResponse::text("x").delay(ms(100)))
        .fallback(MockResponse::text("x").delay(ms(100)));
    let inputs =
        (0..500).flat_map(|n| (0..20).map(move |host| format!("http://h{host}.example/{n}")));
    let elapsed = makespan(fetcher(&mock).batch(inputs)).await;
    assert_within(elapsed, 5, secs(10));
}

#[tokio::test(start_paused = true)]
async fn stalled_host_delays_no_other() {
    let mock = Mock::new()
        .on(
            "http://stalled.example/*",
            MockResponse::text("x").delay(secs(4)),
        )
        .fallback(MockResponse::text("x").delay(ms(100)));
    for per_host in [10, 100] {
        let stalled = urls("stalled", 20);
        let inputs = stalled.chain(
            (0..500).flat_map(|n| (0..20).map(move |host| format!("http://h{host}.example/{n}"))),
        );
        let fetcher = builder(&mock)
            .concurrency_per_host(per_host)
            .build()
            .unwrap();
        let elapsed = makespan(fetcher.batch(inputs)).await;
        // 10,000 requests of 100 ms and 20 of 4 s, with concurrency 100.
        assert_within(elapsed, 5, ms(10_800));
    }
}

/// Returns a fetcher whose hosts process `capacity` requests at a time, for 100 ms each, and queue
/// the rest.
fn fetcher_with_host_capacity(capacity: usize) -> Fetcher {
    let hosts: Arc<Mutex<HashMap<String, Arc<Semaphore>>>> = Arc::default();
    let handler = move |request: Request| {
        let host = request.headers()[HOST].to_str().unwrap().to_owned();
        let mut hosts = hosts.lock().unwrap();
        let permits = hosts
            .entry(host)
            .or_insert_with(|| Arc::new(Semaphore::new(capacity)));
        let permits = Arc::clone(permits);
        async move {
            let _permit = permits.acquire().await.unwrap();
            sleep(ms(100)).await;
        }
    };
    let app = Router::new().fallback(get(handler));
    Fetcher::builder()
        .transport(app)
        .concurrency_per_host(Concurrency::adaptive())
        .build()
        .unwrap()
}

/// Returns about `count` URLs of 10,000 hosts in random order. The share of the n-th host is
/// proportional to 1/n.
fn zipf_urls(count: usize) -> Vec<String> {
    const HOSTS: usize = 10_000;
    let sum: f64 = (1..=HOSTS).map(|rank| 1.0 / rank as f64).sum();
    let mut urls = Vec::new();
    let mut fractional_count = 0.0;
    for host in 1..=HOSTS {
        fractional_count += count as f64 / sum / host as f64;
        while fractional_count >= 1.0 {
            urls.push(format!("http://h{host}.example/{}", urls.len()));
            fractional_count -= 1.0;
        }
    }
    fastrand::Rng::with_seed(7).shuffle(&mut urls);
    urls
}

#[tokio::test(start_paused = true)]
async fn adaptive_limits_converge_for_zipf_distributed_hosts() {
    let urls = zipf_urls(40_000);
    let largest = urls
        .iter()
        .filter(|url| url.starts_with("http://h1."))
        .count();
    let lower_bound = ms(100) * (urls.len() / 100).max(largest / 32) as u32;
    let elapsed = makespan(fetcher_with_host_capacity(32).batch(&urls)).await;
    assert_within(elapsed, 5, lower_bound);
}
