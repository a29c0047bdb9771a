//! Waiting requests hold no slot, so hosts and batches do not delay each other.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::server::FaultServer;
use fanout::{Fetcher, Rate, Retry};

/// Asserts that each request arrived no earlier than a rate of 20/s allows.
fn assert_rate_of_20_per_second(instants: &[Instant], begun: Instant) {
    for (n, at) in instants.iter().enumerate() {
        let earliest = begun + Duration::from_millis(50) * n as u32;
        assert!(
            *at >= earliest,
            "request {n} came {:?} early",
            earliest - *at
        );
    }
}

#[tokio::test]
async fn rate_limited_host_does_not_delay_other_hosts() {
    let servers = FaultServer::start_group(2);
    let (a, b) = (&servers[0], &servers[1]);
    let urls = [a, b]
        .into_iter()
        .flat_map(|server| (0..100).map(|n| server.url(&format!("/ok/{n}"))));
    let begun = Instant::now();
    let results = Fetcher::new()
        .batch(urls)
        .concurrency(10)
        .rate_per_host(Rate::per_second(20))
        .gather()
        .await;
    assert!(begun.elapsed() >= Duration::from_millis(4_900));
    assert!(results.iter().all(Result::is_ok));
    let (arrivals_a, arrivals_b) = (a.arrival_times(), b.arrival_times());
    assert_eq!((arrivals_a.len(), arrivals_b.len()), (100, 100));
    assert_rate_of_20_per_second(&arrivals_a, begun);
    assert_rate_of_20_per_second(&arrivals_b, begun);
    // Without interleaving, B would start after A has finished.
    let a_before_first_of_b = arrivals_a.iter().filter(|at| **at < arrivals_b[0]).count();
    assert!(
        a_before_first_of_b <= 20,
        "B came after {a_before_first_of_b} requests to A"
    );
    let b_before_last_of_a = arrivals_b.iter().filter(|at| **at < arrivals_a[99]).count();
    assert!(b_before_last_of_a >= 80, "{b_before_last_of_a}");
}

#[tokio::test]
async fn stalled_host_does_not_delay_other_hosts() {
    let servers = FaultServer::start_group(2);
    let (stalled, healthy) = (&servers[0], &servers[1]);
    let urls = (0..20)
        .map(|_| stalled.url("/stall-head"))
        .chain((0..200).map(|n| healthy.url(&format!("/ok/{n}"))));
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch(urls)
        .concurrency(10)
        .concurrency_per_host(4)
        .as_completed();
    for _ in 0..200 {
        let completed = results.next().await.expect("a result");
        assert!(completed.index >= 20);
        completed.result.unwrap();
    }
    let counts = stalled.wait_for_in_flight(4).await;
    assert_eq!(counts.requests, 4);
    assert_eq!(healthy.counts().requests, 200);
    assert!(healthy.counts().max_in_flight <= 4);
}

#[tokio::test]
async fn backoff_holds_no_slot() {
    let server = FaultServer::start();
    let urls = (0..4)
        .map(|n| server.url(&format!("/flaky/{n}/1/close-before")))
        .chain((0..100).map(|n| server.url(&format!("/ok/{n}"))));
    // With full jitter, a backoff of up to months outlasts the test.
    let months = Duration::from_secs(10_000_000);
    let retry = Retry::default().base_delay(months).max_delay(months);
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch(urls)
        .concurrency(2)
        .retry(retry)
        .as_completed();
    for _ in 0..100 {
        let completed = results.next().await.expect("a result");
        assert!(completed.index >= 4);
        completed.result.unwrap();
    }
    assert_eq!(server.counts().requests, 104);
    assert!(server.counts().max_in_flight <= 2);
}

#[tokio::test]
async fn small_batch_is_not_delayed_by_a_large_one() {
    const LARGE: usize = if cfg!(debug_assertions) {
        6_000
    } else {
        20_000
    };
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().concurrency(20).build().unwrap();
    let urls = |count| (0..count).map(|n| server.url(&format!("/ok/{n}")));
    let large_completed = AtomicUsize::new(0);
    let large = async {
        let mut results = fetcher.as_completed(urls(LARGE));
        while let Some(completed) = results.next().await {
            completed.result.unwrap();
            large_completed.fetch_add(1, Relaxed);
        }
    };
    let small = async {
        server.wait_for_requests(200).await;
        let before = large_completed.load(Relaxed);
        for result in fetcher.gather(urls(10)).await {
            result.unwrap();
        }
        large_completed.load(Relaxed) - before
    };
    let ((), large_completed_meanwhile) = tokio::join!(large, small);
    // Round-robin lets about ten requests of the large batch pass, besides those in flight.
    assert!(
        large_completed_meanwhile < LARGE / 4,
        "{large_completed_meanwhile}"
    );
    let counts = server.counts();
    assert_eq!(counts.requests, LARGE + 10);
    assert!(counts.max_in_flight <= 20, "{counts:?}");
}
