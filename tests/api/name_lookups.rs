//! Names that never resolve, names that do, and names that need no lookup.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fanout::{ErrorKind, Fetcher, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use crate::support::server::FaultServer;

/// Starts a server on the runtime of the test, so that it shares the paused clock. Returns its
/// port.
async fn start_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(respond(stream));
        }
    });
    port
}

async fn respond(mut stream: TcpStream) {
    let mut head = [0; 4096];
    while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        if stream.write_all(response).await.is_err() {
            return;
        }
    }
}

/// Resolves names under `live.example` to this machine. Never responds for other names.
async fn resolve_live_names(name: String) -> std::io::Result<Vec<IpAddr>> {
    if !name.ends_with("live.example") {
        pending::<()>().await;
    }
    sleep(Duration::from_millis(20)).await;
    Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

/// Returns URLs of 300 silent names and then 50 live ones.
fn silent_and_live_urls(port: u16) -> Vec<String> {
    let silent = (0..300).map(|n| format!("http://{n}.silent.example:{port}/"));
    let live = (0..50).map(|n| format!("http://{n}.live.example:{port}/"));
    silent.chain(live).collect()
}

#[tokio::test(start_paused = true)]
async fn silent_names_time_out_and_live_names_beside_them_succeed() {
    let port = start_server().await;
    let fetcher = Fetcher::builder()
        .resolver(resolve_live_names)
        .no_proxy()
        .build()
        .unwrap();
    let begin = Instant::now();
    let batch = fetcher.batch(silent_and_live_urls(port)).concurrency(400);
    let mut done = batch.as_completed();
    let mut last_live = Duration::ZERO;
    let mut live_count = 0;
    while let Some(completed) = done.next().await {
        if completed.index < 300 {
            let kind = completed.result.unwrap_err().kind();
            assert_eq!(kind, ErrorKind::ConnectTimeout);
            continue;
        }
        let response = completed.result.unwrap();
        assert_eq!(response.attempts().len(), 1);
        assert!(response.timings().connect() < Duration::from_secs(1));
        last_live = begin.elapsed();
        live_count += 1;
    }
    assert_eq!(live_count, 50);
    assert!(last_live < Duration::from_secs(2), "{last_live:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_a_lookup_permit_hold_no_slot() {
    let port = start_server().await;
    let fetcher = Fetcher::builder()
        .resolver(resolve_live_names)
        .retry(Retry::off())
        .no_proxy()
        .build()
        .unwrap();
    // 128 silent names take all permits. Without their slots, the others leave 22 of 150 slots.
    let mut urls = silent_and_live_urls(port);
    urls.extend((0..50).map(|n| format!("http://127.0.0.1:{port}/{n}")));
    let begin = Instant::now();
    let mut done = fetcher.batch(urls).concurrency(150).as_completed();
    for _ in 0..50 {
        let completed = done.next().await.unwrap();
        assert!(completed.index >= 350);
        completed.result.unwrap();
    }
    assert!(begin.elapsed() < Duration::from_millis(100));
    let snapshot = fetcher.snapshot();
    let waiting = snapshot.progress().waiting();
    assert_eq!(waiting.total(), waiting.for_concurrency());
}

#[tokio::test(start_paused = true)]
async fn cancelled_requests_do_not_wait_for_a_lookup_permit() {
    let port = start_server().await;
    let fetcher = Fetcher::builder()
        .resolver(resolve_live_names)
        .no_proxy()
        .build()
        .unwrap();
    let urls = silent_and_live_urls(port);
    let cancelled = fetcher.batch(urls[..300].to_vec()).concurrency(400);
    let cancelled = tokio::time::timeout(Duration::from_millis(100), cancelled.gather());
    assert!(cancelled.await.is_err());
    let single = tokio::time::timeout(Duration::from_millis(100), fetcher.fetch(&urls[200]));
    assert!(single.await.is_err());
    let begin = Instant::now();
    assert!(fetcher.fetch(&urls[300]).await.is_ok());
    assert!(begin.elapsed() < Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn silent_names_of_an_earlier_batch_do_not_delay_the_next_batch() {
    let port = start_server().await;
    let fetcher = Fetcher::builder()
        .resolver(resolve_live_names)
        .retry(Retry::off())
        .no_proxy()
        .build()
        .unwrap();
    let urls = silent_and_live_urls(port);
    let abandoned = fetcher.batch(urls[..300].to_vec()).concurrency(400);
    let abandoned = tokio::time::timeout(Duration::from_secs(5), abandoned.gather());
    assert!(abandoned.await.is_err());
    let begin = Instant::now();
    for result in fetcher.batch(&urls[300..]).concurrency(400).gather().await {
        assert_eq!(result.unwrap().attempts().len(), 1);
    }
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn names_under_localhost_are_fetched_from_loopback_unless_only_public_addresses_are_allowed()
{
    let server = FaultServer::start();
    let port = server.address().port();
    for host in ["localhost", "foo.localhost", "a.b.localhost"] {
        let url = format!("http://{host}:{port}/ok/1");
        let response = Fetcher::new().fetch(&url).await.unwrap();
        assert_eq!(response.status(), 200);
        let public = Fetcher::builder()
            .public_addresses_only(true)
            .no_proxy()
            .build()
            .unwrap();
        let error = public.fetch(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed, "{host}");
    }
}
