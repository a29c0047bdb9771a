//! How long a batch takes, over the least that its limits allow: the larger of all its work over what it may have on the
//! wire, and of the work of one host over what that host may have.

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

use super::{answers_in, fetcher, ms, over, secs, urls};

async fn makespan(batch: Batch<'_>) -> Duration {
    let began = Instant::now();
    let mut done = batch.as_completed();
    while let Some(completed) = done.next().await {
        assert_eq!(completed.result.unwrap().status(), 200);
    }
    began.elapsed()
}

/// At most so many hundredths over the least.
fn assert_within(took: Duration, hundredths: u32, least: Duration) {
    let most = least * (100 + hundredths) / 100;
    assert!(took <= most, "{took:?}, and the least is {least:?}");
}

/// A thousand of each of a hundred hosts, sorted by host.
fn sorted() -> impl Iterator<Item = String> + Send {
    (0..100).flat_map(|host| (0..1000).map(move |n| format!("http://h{host}.example/{n}")))
}

#[tokio::test(start_paused = true)]
async fn sorted_by_host_a_window_that_holds_them_all_costs_nothing() {
    let mock = answers_in(100);
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(sorted()).concurrency_per_host(2);
    let took = makespan(batch.look_ahead(100_000)).await;
    assert_within(took, 1, secs(100));
}

#[tokio::test(start_paused = true)]
async fn sorted_by_host_the_default_window_costs_what_its_page_says() {
    let mock = answers_in(100);
    let fetcher = fetcher(&mock);
    let batch = fetcher.batch(sorted()).concurrency_per_host(1);
    assert_within(makespan(batch).await, 42, secs(100));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_pauses_for_a_third_of_the_run_delays_nothing() {
    let mock = Mock::new()
        .on(
            "http://h3.example/*",
            MockResponse::status(429).header("retry-after", "3"),
        )
        .then(MockResponse::text("x").delay(ms(100)))
        .fallback(MockResponse::text("x").delay(ms(100)));
    let inputs =
        (0..500).flat_map(|n| (0..20).map(move |host| format!("http://h{host}.example/{n}")));
    let took = makespan(fetcher(&mock).batch(inputs)).await;
    assert_within(took, 5, secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_host_delays_nothing() {
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
        let fetcher = over(&mock).concurrency_per_host(per_host).build().unwrap();
        let took = makespan(fetcher.batch(inputs)).await;
        // 10,000 of 100 ms and 20 of 4 s, a hundred at once.
        assert_within(took, 5, ms(10_800));
    }
}

/// Each host does `capacity` at once, for 100 ms each, and the others wait for their turn.
fn queueing(capacity: usize) -> Fetcher {
    let hosts: Arc<Mutex<HashMap<String, Arc<Semaphore>>>> = Arc::default();
    let answer = move |request: Request| {
        let host = request.headers()[HOST].to_str().unwrap().to_owned();
        let mut hosts = hosts.lock().unwrap();
        let permits = hosts
            .entry(host)
            .or_insert_with(|| Arc::new(Semaphore::new(capacity)));
        let permits = Arc::clone(permits);
        async move {
            let _working = permits.acquire().await.unwrap();
            sleep(ms(100)).await;
        }
    };
    let app = Router::new().fallback(get(answer));
    Fetcher::builder()
        .transport(app)
        .concurrency_per_host(Concurrency::adaptive())
        .build()
        .unwrap()
}

/// The URLs of 10,000 hosts, the n-th of which has a share in proportion to 1/n, in random order.
fn zipf(count: usize) -> Vec<String> {
    const HOSTS: usize = 10_000;
    let sum: f64 = (1..=HOSTS).map(|rank| 1.0 / rank as f64).sum();
    let mut urls = Vec::new();
    let mut owed = 0.0;
    for host in 1..=HOSTS {
        owed += count as f64 / sum / host as f64;
        while owed >= 1.0 {
            urls.push(format!("http://h{host}.example/{}", urls.len()));
            owed -= 1.0;
        }
    }
    fastrand::Rng::with_seed(7).shuffle(&mut urls);
    urls
}

#[tokio::test(start_paused = true)]
async fn hosts_with_zipfs_shares_learn_their_limits_in_no_time() {
    let urls = zipf(40_000);
    let largest = urls
        .iter()
        .filter(|url| url.starts_with("http://h1."))
        .count();
    let least = ms(100) * (urls.len() / 100).max(largest / 32) as u32;
    let took = makespan(queueing(32).batch(&urls)).await;
    assert_within(took, 5, least);
}
