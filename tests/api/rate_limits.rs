//! Rates as the servers see them: never more than was allowed, and no less than could be.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::support::server::{FaultServer, max_in_any_window};
use fanout::{Fetcher, Host, Rate, Response, Result, Retry, RetryBudget};
use tokio::sync::RwLock;

/// Who measures how fast it goes wants the machine for itself.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// So much of what was sent evenly may a busy machine deliver together.
const BUNCHED: Duration = Duration::from_millis(500);

fn urls(server: &FaultServer, count: usize) -> impl Iterator<Item = String> + Send {
    (0..count).map(|n| server.url(&format!("/ok/{n}")))
}

fn all_ok(results: &[Result<Response>]) {
    for result in results {
        assert_eq!(result.as_ref().unwrap().status(), 200);
    }
}

/// No window from `begun` on holds more than burst + rate × time: this has no slack, since what is late is not early.
/// Nor does any second, but for what may be bunched.
fn keeps_to(per_second: f64, mut instants: Vec<Instant>, begun: Instant) {
    instants.sort_unstable();
    let burst = (per_second * 0.01).max(1.0);
    for (n, at) in instants.iter().enumerate() {
        let allowed = burst + per_second * (*at - begun).as_secs_f64();
        assert!(
            (n + 1) as f64 <= allowed + 1e-3,
            "{} requests within {:?}",
            n + 1,
            *at - begun
        );
    }
    let second = Duration::from_secs(1);
    let most = burst + per_second * (second + BUNCHED).as_secs_f64();
    assert!(max_in_any_window(&instants, second) as f64 <= most);
}

#[tokio::test]
async fn the_rate_of_a_batch_holds_over_all_its_hosts_on_warm_connections() {
    let _machine = MACHINE.read().await;
    let servers = FaultServer::start_group(3);
    let fetcher = Fetcher::new();
    let each_in_turn = |count| (0..count).map(|n: usize| servers[n % 3].url(&format!("/ok/{n}")));
    all_ok(
        &fetcher
            .batch(each_in_turn(60))
            .concurrency(30)
            .gather()
            .await,
    );
    servers.iter().for_each(FaultServer::reset);

    let begun = Instant::now();
    let batch = fetcher.batch(each_in_turn(400));
    all_ok(&batch.rate(Rate::per_second(200)).gather().await);
    assert!(begun.elapsed() >= Duration::from_millis(1_985));
    let instants: Vec<Instant> = servers
        .iter()
        .flat_map(FaultServer::arrival_times)
        .collect();
    assert_eq!(instants.len(), 400);
    keeps_to(200.0, instants, begun);
}

#[tokio::test]
async fn a_rate_per_host_holds_for_each_and_one_of_its_own_for_that_host() {
    let _machine = MACHINE.read().await;
    let servers = FaultServer::start_group(3);
    let fetcher = Fetcher::builder()
        .rate_per_host(Rate::per_second(100))
        .host(servers[2].origin(), Host::new().rate(Rate::per_second(40)))
        .build()
        .unwrap();
    let begun = Instant::now();
    let inputs: Vec<String> = servers.iter().flat_map(|at| urls(at, 60)).collect();
    all_ok(&fetcher.gather(inputs).await);
    for (server, rate) in servers.iter().zip([100.0, 100.0, 40.0]) {
        assert_eq!(server.counts().requests, 60);
        keeps_to(rate, server.arrival_times(), begun);
    }
}

#[tokio::test]
async fn retries_count_in_the_rate() {
    let _machine = MACHINE.read().await;
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
    all_ok(&results);
    for response in results {
        assert_eq!(response.unwrap().attempts().len(), 3);
    }
    assert_eq!(server.counts().requests, 300);
    keeps_to(200.0, server.arrival_times(), begun);
}

#[tokio::test]
async fn batches_and_single_fetches_share_the_rate_of_their_fetcher() {
    let _machine = MACHINE.read().await;
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
    all_ok(&one);
    all_ok(&other);
    for single in singles {
        single.await.unwrap().unwrap();
    }
    assert_eq!(server.counts().requests, 290);
    keeps_to(200.0, server.arrival_times(), begun);
}

#[tokio::test]
async fn a_burst_is_given_at_once_and_no_more_than_it() {
    let _machine = MACHINE.read().await;
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

/// How late this runtime was in all: what it was not given of the time, in nanoseconds.
async fn count_lateness(late: Arc<AtomicU64>) {
    /// Two ticks of the timer.
    const PUNCTUAL: Duration = Duration::from_millis(2);
    loop {
        let due = tokio::time::Instant::now() + Duration::from_millis(1);
        tokio::time::sleep_until(due).await;
        let by = due.elapsed();
        if by > PUNCTUAL {
            late.fetch_add(by.as_nanos() as u64, Relaxed);
        }
    }
}

/// By how much the requests came later than at 98 % of the rate, at the best instant of the second half.
///
/// Time that is lost is never made up for, so it shows at every instant after. What a busy server takes in late at one
/// of them does not show at the others.
fn behind(per_second: u32, instants: &[Instant], begun: Instant) -> Duration {
    let pace = 1.0 / (f64::from(per_second) * 0.98);
    let second_half = instants.len() / 2..instants.len();
    second_half
        .map(|n| {
            let due = begun + Duration::from_secs_f64(n as f64 * pace);
            instants[n].saturating_duration_since(due)
        })
        .min()
        .expect("there are some")
}

#[tokio::test]
async fn a_rate_is_used_to_98_percent_but_for_time_the_process_was_not_given() {
    let _machine = MACHINE.write().await;
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    let late = Arc::new(AtomicU64::new(0));
    let witness = tokio::spawn(count_lateness(Arc::clone(&late)));
    for per_second in [10, 100, 1_000, 5_000] {
        all_ok(&fetcher.gather(urls(&server, 200)).await);
        server.reset();
        late.store(0, Relaxed);

        let begun = Instant::now();
        let batch = fetcher.batch(urls(&server, 2 * per_second as usize));
        all_ok(&batch.rate(Rate::per_second(per_second)).gather().await);

        let behind = behind(per_second, &server.arrival_times(), begun);
        let late = Duration::from_nanos(late.load(Relaxed));
        println!("{per_second}/s: {behind:?} behind, {late:?} late");
        assert!(
            behind <= late,
            "{per_second}/s: {behind:?} behind, and only {late:?} of it are the machine's"
        );
    }
    witness.abort();
}
