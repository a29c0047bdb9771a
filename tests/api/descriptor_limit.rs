//! A `Fetcher` opens no more sockets than the process may, at any concurrency.
#![cfg(target_os = "linux")]

use std::env;

use crate::support::body_streams::TempDir;
use crate::support::own_process::{self, test_path};
use crate::support::server::{FaultServer, expected_body, pattern_bytes};
use fanout::{Body, Fetcher, Rate, Request};

/// The origins to fetch from. Set in the child process.
const ORIGINS: &str = "FANOUT_TEST_ORIGINS";
const REQUESTS_PER_ORIGIN: usize = 600;

/// A body larger than the chunk that is read at once.
const BODY_BYTES: usize = 200_000;

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

#[tokio::test]
async fn files_of_bodies_fit_beside_the_sockets() {
    const REQUESTS: usize = 300;
    if let Some(origins) = origins() {
        let directory = TempDir::new();
        std::fs::write(directory.path("body"), vec![0; BODY_BYTES]).unwrap();
        let uploads = (0..REQUESTS).map(|n| {
            Request::put(format!("{}/bytes/{BODY_BYTES}", origins[0]))
                .body(Body::file(directory.path("body")))
                .save_to(directory.path(&n.to_string()))
        });
        // Two batches, so that uploads and downloads overlap.
        let downloads = (0..REQUESTS).map(|n| {
            Request::get(format!("{}/big/{BODY_BYTES}", origins[0]))
                .save_to(directory.path(&(REQUESTS + n).to_string()))
        });
        let fetcher = Fetcher::new();
        let (uploaded, downloaded) = tokio::join!(
            fetcher.batch(uploads).concurrency(1_000).gather(),
            fetcher.batch(downloads).concurrency(1_000).gather(),
        );
        for result in uploaded.iter().chain(&downloaded) {
            let response = result.as_ref().unwrap_or_else(|error| panic!("{error:?}"));
            assert_eq!(response.saved_bytes(), Some(BODY_BYTES as u64));
            assert_eq!(response.attempts().len(), 1);
        }
        let content = pattern_bytes(BODY_BYTES);
        for n in 0..2 * REQUESTS {
            let saved = std::fs::read(directory.path(&n.to_string())).unwrap();
            assert!(saved == content);
        }
        return;
    }
    let servers = FaultServer::start_group(1);
    run_with_few_descriptors(test_path!(files_of_bodies_fit_beside_the_sockets), &servers);
    assert_eq!(servers[0].counts().requests, 2 * REQUESTS);
}

#[tokio::test]
async fn idle_connections_are_closed_for_files() {
    if let Some(origins) = origins() {
        let directory = TempDir::new();
        std::fs::write(directory.path("body"), vec![0; BODY_BYTES]).unwrap();
        let fetcher = Fetcher::new();
        fetch_from_all(&fetcher, &origins, 64).await;
        let mut other_files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            other_files.push(file);
        }
        let request = Request::put(format!("{}/bytes/{BODY_BYTES}", origins[0]))
            .body(Body::file(directory.path("body")))
            .save_to(directory.path("saved"));
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(response.saved_bytes(), Some(BODY_BYTES as u64));
        assert_eq!(response.attempts().len(), 1);
        return;
    }
    let servers = FaultServer::start_group(1);
    run_with_few_descriptors(test_path!(idle_connections_are_closed_for_files), &servers);
}
