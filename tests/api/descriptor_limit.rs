//! A `Fetcher` opens no more sockets than the process may, at any concurrency.
#![cfg(target_os = "linux")]

use std::env;

use crate::support::own_process::{self, test_path};
use crate::support::server::{FaultServer, expected_body};
use fanout::{Fetcher, Rate};

/// The origins to fetch from. Set in the child process.
const ORIGINS: &str = "FANOUT_TEST_ORIGINS";
const REQUESTS_PER_ORIGIN: usize = 600;

/// Runs a test in a process that may open 128 files.
fn run_with_few_descriptors(path: &str, servers: &[FaultServer]) {
    let origins: Vec<String> = servers.iter().map(FaultServer::origin).collect();
    own_process::run_with(path, &[(ORIGINS, &origins.join(" "))]);
}

/// The origins to fetch from, in the process that has few files.
fn origins() -> Option<Vec<String>> {
    let origins = env::var(ORIGINS).ok()?;
    rlimit::setrlimit(rlimit::Resource::NOFILE, 128, 128).expect("a lower limit is allowed");
    Some(origins.split(' ').map(str::to_owned).collect())
}

async fn fetch_from_all(fetcher: &Fetcher, origins: &[String], concurrency: usize) {
    let urls =
        (0..REQUESTS_PER_ORIGIN).flat_map(|n| origins.iter().map(move |at| format!("{at}/ok/{n}")));
    let results = fetcher.batch(urls).concurrency(concurrency).gather().await;
    for (place, result) in results.iter().enumerate() {
        let response = result.as_ref().unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(
            response.bytes()[..],
            expected_body((place / origins.len()) as u64)
        );
        assert_eq!(response.attempts().len(), 1);
    }
}

#[tokio::test]
async fn concurrency_is_fitted_to_the_descriptor_limit() {
    if let Some(origins) = origins() {
        return fetch_from_all(&Fetcher::new(), &origins, 1_000).await;
    }
    let servers = FaultServer::start_group(1);
    run_with_few_descriptors(
        test_path!(concurrency_is_fitted_to_the_descriptor_limit),
        &servers,
    );
    assert_eq!(servers[0].counts().requests, REQUESTS_PER_ORIGIN);
}

#[tokio::test]
async fn idle_connections_are_evicted_for_other_hosts() {
    if let Some(origins) = origins() {
        let fetcher = Fetcher::new();
        // Each host in turn leaves the maximum number of idle connections.
        for origin in &origins {
            fetch_from_all(&fetcher, std::slice::from_ref(origin), 1_000).await;
        }
        return fetch_from_all(&fetcher, &origins, 1_000).await;
    }
    let servers = FaultServer::start_group(4);
    run_with_few_descriptors(
        test_path!(idle_connections_are_evicted_for_other_hosts),
        &servers,
    );
    for server in &servers {
        assert_eq!(server.counts().requests, 2 * REQUESTS_PER_ORIGIN);
    }
}

#[tokio::test]
async fn concurrent_batches_share_the_descriptor_limit() {
    if let Some(origins) = origins() {
        let fetcher = Fetcher::new();
        let batch = || fetch_from_all(&fetcher, &origins, 1_000);
        let single = async {
            let url = format!("{}/ok/1", origins[0]);
            for result in fetcher
                .batch((0..50).map(|_| &url))
                .rate(Rate::per_second(1000))
                .gather()
                .await
            {
                result.unwrap();
            }
        };
        tokio::join!(batch(), batch(), single);
        return;
    }
    let servers = FaultServer::start_group(2);
    run_with_few_descriptors(
        test_path!(concurrent_batches_share_the_descriptor_limit),
        &servers,
    );
    assert_eq!(servers[1].counts().requests, 2 * REQUESTS_PER_ORIGIN);
}
