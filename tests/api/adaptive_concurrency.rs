//! An adaptive concurrency against real servers that can do so much at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use fanout::{Concurrency, Fetcher, FetcherBuilder, Host, Retry};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

const SERVICE_TIME: Duration = Duration::from_millis(25);

struct CapacityServer {
    origin: String,
    capacity: usize,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
    refused_requests: AtomicUsize,
}

/// Serves `capacity` at once; the others wait for their turn, or get a 503.
async fn start_server(capacity: usize, queues: bool) -> Arc<CapacityServer> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Arc::new(CapacityServer {
        origin: format!("http://{}", listener.local_addr().unwrap()),
        capacity,
        in_flight: AtomicUsize::new(0),
        max_in_flight: AtomicUsize::new(0),
        refused_requests: AtomicUsize::new(0),
    });
    let permits = Arc::new(Semaphore::new(capacity));
    let seen = Arc::clone(&server);
    let answer = move || {
        let (seen, permits) = (Arc::clone(&seen), Arc::clone(&permits));
        async move {
            let in_flight = seen.in_flight.fetch_add(1, SeqCst) + 1;
            seen.max_in_flight.fetch_max(in_flight, SeqCst);
            let permit = match queues {
                true => permits.acquire().await.ok(),
                false => permits.try_acquire().ok(),
            };
            let status = match permit {
                Some(_working) => {
                    tokio::time::sleep(SERVICE_TIME).await;
                    StatusCode::OK
                }
                None => {
                    seen.refused_requests.fetch_add(1, SeqCst);
                    StatusCode::SERVICE_UNAVAILABLE
                }
            };
            seen.in_flight.fetch_sub(1, SeqCst);
            status
        }
    };
    let app = Router::new().route("/{n}", get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    server
}

/// As much for each as takes it so many rounds.
async fn fetch_rounds(
    builder: FetcherBuilder,
    servers: &[Arc<CapacityServer>],
    rounds: usize,
) -> Duration {
    let retry = Retry::default()
        .max_retries(8)
        .throttled_base_delay(Duration::from_millis(20));
    let fetcher = builder.concurrency(500).retry(retry).build().unwrap();
    let max_in_flight = servers.iter().map(|server| server.capacity).max().unwrap();
    let urls: Vec<String> = (0..rounds * max_in_flight)
        .flat_map(|n| {
            let takes = move |server: &&Arc<CapacityServer>| n < rounds * server.capacity;
            servers
                .iter()
                .filter(takes)
                .map(move |server| format!("{}/{n}", server.origin))
        })
        .collect();
    let began = Instant::now();
    let results = fetcher.gather(&urls).await;
    let took = began.elapsed();
    assert_eq!(results.len(), urls.len());
    for result in results {
        assert_eq!(result.unwrap().status(), StatusCode::OK);
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adaptive_concurrency_learns_each_hosts_capacity() {
    let servers = [
        start_server(4, true).await,
        start_server(16, true).await,
        start_server(48, true).await,
    ];
    let adaptive = Fetcher::builder().concurrency_per_host(Concurrency::adaptive());
    let learned = fetch_rounds(adaptive, &servers, 60).await;
    for server in &servers {
        let (max_in_flight, capacity) = (server.max_in_flight.load(SeqCst), server.capacity);
        assert!(
            max_in_flight >= capacity,
            "{max_in_flight} at once of {capacity}"
        );
    }
    let best = servers.iter().fold(Fetcher::builder(), |builder, server| {
        builder.host(&server.origin, Host::new().concurrency(server.capacity))
    });
    let best = fetch_rounds(best, &servers, 60).await;
    // Nine tenths in virtual time; here the machine has its say.
    assert!(learned < best * 2, "{learned:?} of {best:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adaptive_concurrency_keeps_refusals_rare() {
    let servers = [start_server(6, false).await];
    let adaptive = Fetcher::builder().concurrency_per_host(Concurrency::adaptive());
    fetch_rounds(adaptive, &servers, 60).await;
    let refused_requests = servers[0].refused_requests.load(SeqCst);
    assert!(
        refused_requests < 6 * 60 / 2,
        "{refused_requests} of {}",
        6 * 60
    );
}

#[tokio::test]
async fn adaptive_limits_of_batch_and_host_are_respected() {
    let server = start_server(6, true).await;
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
