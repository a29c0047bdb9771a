//! Adaptive concurrency against servers of a limited capacity.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use fanout::{Concurrency, Fetcher, FetcherBuilder, Host, Retry};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

const SERVICE_TIME: Duration = Duration::from_millis(25);

struct CapacityServer {
    origin: String,
    capacity: usize,
    queues: bool,
    permits: Semaphore,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
    refused_requests: AtomicUsize,
}

impl CapacityServer {
    /// A server that works on `capacity` requests at once. The others wait for their turn, or get a
    /// 503 unless it `queues`.
    fn new(origin: String, capacity: usize, queues: bool) -> Arc<Self> {
        Arc::new(Self {
            origin,
            capacity,
            queues,
            permits: Semaphore::new(capacity),
            in_flight: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(0),
            refused_requests: AtomicUsize::new(0),
        })
    }

    async fn respond(&self) -> StatusCode {
        let in_flight = self.in_flight.fetch_add(1, SeqCst) + 1;
        self.max_in_flight.fetch_max(in_flight, SeqCst);
        let permit = if self.queues {
            self.permits.acquire().await.ok()
        } else {
            self.permits.try_acquire().ok()
        };
        let status = if permit.is_some() {
            tokio::time::sleep(SERVICE_TIME).await;
            StatusCode::OK
        } else {
            self.refused_requests.fetch_add(1, SeqCst);
            StatusCode::SERVICE_UNAVAILABLE
        };
        self.in_flight.fetch_sub(1, SeqCst);
        status
    }
}

/// A transport that leads to `servers` by the `Host` header.
fn transport(servers: &[Arc<CapacityServer>]) -> Router {
    let servers = servers.to_vec();
    Router::new().fallback(move |headers: HeaderMap| {
        let host = headers["host"].to_str().unwrap();
        let is_meant = |server: &&Arc<CapacityServer>| server.origin.ends_with(host);
        let server = servers.iter().find(is_meant).cloned();
        async move { server.expect("the host exists").respond().await }
    })
}

/// Fetches from each server as many URLs as take it `rounds` rounds, and returns the time it took.
async fn fetch_rounds(
    builder: FetcherBuilder,
    servers: &[Arc<CapacityServer>],
    rounds: usize,
) -> Duration {
    let retry = Retry::default()
        .max_retries(8)
        .throttled_base_delay(Duration::from_millis(20));
    let builder = builder.transport(transport(servers)).concurrency(500);
    let fetcher = builder.retry(retry).build().unwrap();
    let max_capacity = servers.iter().map(|server| server.capacity).max().unwrap();
    let urls: Vec<String> = (0..rounds * max_capacity)
        .flat_map(|n| {
            let has_more = move |server: &&Arc<CapacityServer>| n < rounds * server.capacity;
            servers
                .iter()
                .filter(has_more)
                .map(move |server| format!("{}/{n}", server.origin))
        })
        .collect();
    let start = Instant::now();
    let results = fetcher.gather(&urls).await;
    let elapsed = start.elapsed();
    assert_eq!(results.len(), urls.len());
    for result in results {
        assert_eq!(result.unwrap().status(), StatusCode::OK);
    }
    elapsed
}

#[tokio::test(start_paused = true)]
async fn adaptive_concurrency_learns_each_hosts_capacity() {
    let servers = [4, 16, 48]
        .map(|capacity| CapacityServer::new(format!("http://{capacity}.example"), capacity, true));
    let adaptive = Fetcher::builder().concurrency_per_host(Concurrency::adaptive());
    let learned = fetch_rounds(adaptive, &servers, 60).await;
    for server in &servers {
        let (max, capacity) = (server.max_in_flight.load(SeqCst), server.capacity);
        assert!(max >= capacity, "{max} at once of {capacity}");
    }
    let best = servers.iter().fold(Fetcher::builder(), |builder, server| {
        builder.host(&server.origin, Host::new().concurrency(server.capacity))
    });
    let best = fetch_rounds(best, &servers, 60).await;
    assert!(learned < best * 2, "{learned:?} of {best:?}");
}

#[tokio::test(start_paused = true)]
async fn adaptive_concurrency_keeps_refusals_rare() {
    let servers = [CapacityServer::new("http://a.example".to_owned(), 6, false)];
    let adaptive = Fetcher::builder().concurrency_per_host(Concurrency::adaptive());
    fetch_rounds(adaptive, &servers, 60).await;
    let refused = servers[0].refused_requests.load(SeqCst);
    assert!(refused < 6 * 60 / 2, "{refused} of {}", 6 * 60);
}

#[tokio::test]
async fn adaptive_limits_of_batch_and_host_are_respected() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = CapacityServer::new(origin, 6, true);
    let respond = {
        let server = Arc::clone(&server);
        move || {
            let server = Arc::clone(&server);
            async move { server.respond().await }
        }
    };
    let app = Router::new().route("/{n}", get(respond));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let fetcher = Fetcher::builder()
        .concurrency_per_host(1)
        .host(
            &server.origin,
            Host::new().concurrency(Concurrency::adaptive().max(3)),
        )
        .build()
        .unwrap();
    let urls = || (0..60).map(|n| format!("{}/{n}", server.origin));
    fetcher.gather(urls()).await;
    assert_eq!(server.max_in_flight.load(SeqCst), 3);
    let fetcher = Fetcher::new();
    let adaptive = Concurrency::adaptive().initial(5).max(5);
    fetcher
        .batch(urls())
        .concurrency_per_host(adaptive)
        .gather()
        .await;
    assert_eq!(server.max_in_flight.load(SeqCst), 5);
}
