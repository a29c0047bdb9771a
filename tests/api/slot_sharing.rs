//! Whatever waits holds no slot: hosts and batches do not stand in each other's way.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::server::FaultServer;
use fanout::{Fetcher, Rate, Retry};

/// The `n`-th of them, counted from 0, came no sooner than a rate of 20/s lets it.
fn keep_to_20_a_second(instants: &[Instant], begun: Instant) {
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
async fn a_host_that_waits_for_its_rate_holds_up_no_other() {
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
    let (of_a, of_b) = (a.arrival_times(), b.arrival_times());
    assert_eq!((of_a.len(), of_b.len()), (100, 100));
    keep_to_20_a_second(&of_a, begun);
    keep_to_20_a_second(&of_b, begun);
    // Head of the line or not: one host after the other would have B begin when A has ended.
    let of_a_before_b = of_a.iter().filter(|at| **at < of_b[0]).count();
    assert!(of_a_before_b <= 20, "B came after {of_a_before_b} of A");
    let of_b_before_the_last_of_a = of_b.iter().filter(|at| **at < of_a[99]).count();
    assert!(
        of_b_before_the_last_of_a >= 80,
        "{of_b_before_the_last_of_a}"
    );
}

#[tokio::test]
async fn a_host_that_stalls_slows_no_other() {
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
async fn a_request_in_its_back_off_holds_no_slot() {
    let server = FaultServer::start();
    let urls = (0..4)
        .map(|n| server.url(&format!("/flaky/{n}/1/close-before")))
        .chain((0..100).map(|n| server.url(&format!("/ok/{n}"))));
    // With full jitter some months of back-off are never over while this runs.
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
async fn a_small_batch_is_not_kept_waiting_by_a_large_one() {
    const LARGE: usize = if cfg!(debug_assertions) {
        6_000
    } else {
        20_000
    };
    let server = FaultServer::start();
    let fetcher = Fetcher::builder().concurrency(20).build().unwrap();
    let urls = |count| (0..count).map(|n| server.url(&format!("/ok/{n}")));
    let of_large = AtomicUsize::new(0);
    let large = async {
        let mut results = fetcher.as_completed(urls(LARGE));
        while let Some(completed) = results.next().await {
            completed.result.unwrap();
            of_large.fetch_add(1, Relaxed);
        }
    };
    let small = async {
        server.wait_for_requests(200).await;
        let before = of_large.load(Relaxed);
        for result in fetcher.gather(urls(10)).await {
            result.unwrap();
        }
        of_large.load(Relaxed) - before
    };
    let ((), of_large_meanwhile) = tokio::join!(large, small);
    // In turns it would be ten or so, and what was under way.
    assert!(of_large_meanwhile < LARGE / 4, "{of_large_meanwhile}");
    let counts = server.counts();
    assert_eq!(counts.requests, LARGE + 10);
    assert!(counts.max_in_flight <= 20, "{counts:?}");
}
