//! A Fetcher asks for no more sockets than the process may open, whatever concurrency it is given.
#![cfg(target_os = "linux")]

mod server;

use std::env;
use std::process::Command;

use fanout::{Fetcher, Rate};
use server::{FaultServer, expected};

/// Set in the process that has few files: the origins it is to fetch from.
const ORIGINS: &str = "FANOUT_TEST_ORIGINS";
const EACH: usize = 600;

/// Runs this very test again, in a process that may open 128 files.
fn with_few_files(test: &str, servers: &[FaultServer]) {
    let origins: Vec<String> = servers.iter().map(FaultServer::origin).collect();
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 128 && exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("this test's own path"))
        .args(["--exact", test, "--nocapture"])
        .env(ORIGINS, origins.join(" "))
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

fn origins() -> Option<Vec<String>> {
    let origins = env::var(ORIGINS).ok()?;
    Some(origins.split(' ').map(str::to_owned).collect())
}

async fn fetch_from_all(fetcher: &Fetcher, origins: &[String], concurrency: usize) {
    let urls = (0..EACH).flat_map(|n| origins.iter().map(move |at| format!("{at}/ok/{n}")));
    let results = fetcher.batch(urls).concurrency(concurrency).gather().await;
    for (place, result) in results.iter().enumerate() {
        let response = result.as_ref().unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(
            response.bytes()[..],
            expected((place / origins.len()) as u64)
        );
        assert_eq!(response.attempts().len(), 1);
    }
}

#[tokio::test]
async fn a_thousand_at_once_are_fitted_to_the_open_files_there_may_be() {
    if let Some(origins) = origins() {
        return fetch_from_all(&Fetcher::new(), &origins, 1_000).await;
    }
    let servers = FaultServer::start_group(1);
    let test = "a_thousand_at_once_are_fitted_to_the_open_files_there_may_be";
    with_few_files(test, &servers);
    assert_eq!(servers[0].counts().requests, EACH);
}

#[tokio::test]
async fn connections_at_rest_make_way_for_other_hosts() {
    if let Some(origins) = origins() {
        let fetcher = Fetcher::new();
        // Each host in turn leaves as many connections at rest as there may be.
        for origin in &origins {
            fetch_from_all(&fetcher, std::slice::from_ref(origin), 1_000).await;
        }
        return fetch_from_all(&fetcher, &origins, 1_000).await;
    }
    let servers = FaultServer::start_group(4);
    with_few_files("connections_at_rest_make_way_for_other_hosts", &servers);
    for server in &servers {
        assert_eq!(server.counts().requests, 2 * EACH);
    }
}

#[tokio::test]
async fn several_batches_at_once_share_the_open_files() {
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
    with_few_files("several_batches_at_once_share_the_open_files", &servers);
    assert_eq!(servers[1].counts().requests, 2 * EACH);
}
