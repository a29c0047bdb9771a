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

const SERVICE: Duration = Duration::from_millis(25);

struct Server {
    origin: String,
    capacity: usize,
    in_flight: AtomicUsize,
    most: AtomicUsize,
    refused: AtomicUsize,
}

/// Serves `capacity` at once; the others wait for their turn, or get a 503.
async fn server(capacity: usize, queues: bool) -> Arc<Server> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Arc::new(Server {
        origin: format!("http://{}", listener.local_addr().unwrap()),
        capacity,
        in_flight: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
    });
    let permits = Arc::new(Semaphore::new(capacity));
    let seen = Arc::clone(&server);
    let answer = move || {
        let (seen, permits) = (Arc::clone(&seen), Arc::clone(&permits));
        async move {
            let in_flight = seen.in_flight.fetch_add(1, SeqCst) + 1;
            seen.most.fetch_max(in_flight, SeqCst);
            let permit = match queues {
                true => permits.acquire().await.ok(),
                false => permits.try_acquire().ok(),
            };
            let status = match permit {
                Some(_working) => {
                    tokio::time::sleep(SERVICE).await;
                    StatusCode::OK
                }
                None => {
                    seen.refused.fetch_add(1, SeqCst);
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
async fn run(builder: FetcherBuilder, servers: &[Arc<Server>], rounds: usize) -> Duration {
    let retry = Retry::default()
        .max_retries(8)
        .throttled_base(Duration::from_millis(20));
    let fetcher = builder.concurrency(500).retry(retry).build().unwrap();
    let most = servers.iter().map(|server| server.capacity).max().unwrap();
    let urls: Vec<String> = (0..rounds * most)
        .flat_map(|n| {
            let takes = move |server: &&Arc<Server>| n < rounds * server.capacity;
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
async fn each_host_learns_its_own_number() {
    let servers = [
        server(4, true).await,
        server(16, true).await,
        server(48, true).await,
    ];
    let adaptive = Fetcher::builder().concurrency_per_host(Concurrency::adaptive());
    let learned = run(adaptive, &servers, 60).await;
    for server in &servers {
        let (most, capacity) = (server.most.load(SeqCst), server.capacity);
        assert!(most >= capacity, "{most} at once of {capacity}");
    }
    let best = servers.iter().fold(Fetcher::builder(), |builder, server| {
        builder.host(&server.origin, Host::new().concurrency(server.capacity))
    });
    let best = run(best, &servers, 60).await;
    // Nine tenths in virtual time; here the machine has its say.
    assert!(learned < best * 2, "{learned:?} of {best:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_refuses_what_is_too_much_refuses_little() {
    let servers = [server(6, false).await];
    let adaptive = Fetcher::builder().concurrency_per_host(Concurrency::adaptive());
    run(adaptive, &servers, 60).await;
    let refused = servers[0].refused.load(SeqCst);
    assert!(refused < 6 * 60 / 2, "{refused} of {}", 6 * 60);
}

#[tokio::test]
async fn a_batch_and_a_host_may_have_one_of_their_own() {
    let server = server(6, true).await;
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
    assert_eq!(server.most.load(SeqCst), 3);
    let fetcher = Fetcher::new();
    let adaptive = Concurrency::adaptive().initial(5).max(5);
    fetcher
        .batch(urls())
        .concurrency_per_host(adaptive)
        .gather()
        .await;
    assert_eq!(server.most.load(SeqCst), 5);
}
