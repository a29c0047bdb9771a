//! Rates as the servers see them: never more than is allowed.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::support::server::FaultServer;
use fanout::{Fetcher, Host, Rate, Response, Result, Retry, RetryBudget};

fn urls(server: &FaultServer, count: usize) -> impl Iterator<Item = String> + Send {
    (0..count).map(|n| server.url(&format!("/ok/{n}")))
}

fn assert_all_ok(results: &[Result<Response>]) {
    for result in results {
        assert_eq!(result.as_ref().unwrap().status(), 200);
    }
}

/// Asserts that at most burst + rate × time requests arrived since `begun`. No margin is needed: a
/// request can arrive late, but never early.
fn assert_rate_is_kept(per_second: f64, mut arrivals: Vec<Instant>, begun: Instant) {
    arrivals.sort_unstable();
    let burst = (per_second * 0.01).max(1.0);
    for (n, at) in arrivals.iter().enumerate() {
        let allowed = burst + per_second * (*at - begun).as_secs_f64();
        assert!(
            (n + 1) as f64 <= allowed + 1e-3,
            "{} requests within {:?}",
            n + 1,
            *at - begun
        );
    }
}

#[tokio::test]
async fn batch_rate_applies_across_hosts_on_reused_connections() {
    let servers = FaultServer::start_group(3);
    let fetcher = Fetcher::new();
    let round_robin_urls =
        |count| (0..count).map(|n: usize| servers[n % 3].url(&format!("/ok/{n}")));
    assert_all_ok(
        &fetcher
            .batch(round_robin_urls(60))
            .concurrency(30)
            .gather()
            .await,
    );
    servers.iter().for_each(FaultServer::reset);

    let begun = Instant::now();
    let batch = fetcher.batch(round_robin_urls(400));
    assert_all_ok(&batch.rate(Rate::per_second(200)).gather().await);
    assert!(begun.elapsed() >= Duration::from_millis(1_985));
    let instants: Vec<Instant> = servers
        .iter()
        .flat_map(FaultServer::arrival_times)
        .collect();
    assert_eq!(instants.len(), 400);
    assert_rate_is_kept(200.0, instants, begun);
}

#[tokio::test]
async fn rate_per_host_applies_to_each_host_and_a_host_rate_overrides_it() {
    let servers = FaultServer::start_group(3);
    let fetcher = Fetcher::builder()
        .rate_per_host(Rate::per_second(100))
        .host(servers[2].origin(), Host::new().rate(Rate::per_second(40)))
        .build()
        .unwrap();
    let begun = Instant::now();
    let inputs: Vec<String> = servers.iter().flat_map(|at| urls(at, 60)).collect();
    assert_all_ok(&fetcher.gather(inputs).await);
    for (server, rate) in servers.iter().zip([100.0, 100.0, 40.0]) {
        assert_eq!(server.counts().requests, 60);
        assert_rate_is_kept(rate, server.arrival_times(), begun);
    }
}

#[tokio::test]
async fn retries_count_toward_the_rate() {
    let server = FaultServer::start();
    let retry = Retry::default().throttled_base_delay(Duration::from_millis(1));
    let fetcher = Fetcher::builder()
        .rate(Rate::per_second(200))
        .retry_budget(RetryBudget::off())
        .retry(retry)
        .retry_budget(RetryBudget::off())
        .build()
        .unwrap();
    let begun = Instant::now();
    let inputs = (0..100).map(|n| server.url(&format!("/flaky/{n}/2/503")));
    let results = fetcher.gather(inputs).await;
    assert_all_ok(&results);
    for response in results {
        assert_eq!(response.unwrap().attempts().len(), 3);
    }
    assert_eq!(server.counts().requests, 300);
    assert_rate_is_kept(200.0, server.arrival_times(), begun);
}

#[tokio::test]
async fn batches_and_single_fetches_share_the_rate_of_their_fetcher() {
    let server = FaultServer::start();
    let fetcher = Fetcher::builder()
        .rate(Rate::per_second(200))
        .build()
        .unwrap();
    let begun = Instant::now();
    let singles: Vec<_> = urls(&server, 50)
        .map(|url| tokio::spawn(fetcher.fetch(url)))
        .collect();
    let (one, other) = tokio::join!(
        fetcher.gather(urls(&server, 120)),
        fetcher.gather(urls(&server, 120))
    );
    assert_all_ok(&one);
    assert_all_ok(&other);
    for single in singles {
        single.await.unwrap().unwrap();
    }
    assert_eq!(server.counts().requests, 290);
    assert_rate_is_kept(200.0, server.arrival_times(), begun);
}

#[tokio::test]
async fn burst_starts_at_once_and_nothing_beyond_it() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    let mut results = fetcher
        .batch(urls(&server, 100))
        .rate(Rate::per_hour(1).burst(20))
        .as_completed();
    for _ in 0..20 {
        results.next().await.expect("a result").result.unwrap();
    }
    poll_fn(|cx| {
        assert!(pin!(results.next()).poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert_eq!(server.counts().requests, 20);
}
