//! Timeouts count wire time only, and an error names the timeout that expired.

use std::time::{Duration, Instant};

use crate::support::server::FaultServer;
use fanout::{
    Attempt, Error, ErrorKind, Fetcher, Outcome, Request, RequestBuilder, Retry, Timeouts,
};

const SHORT_TIMEOUT: Duration = Duration::from_millis(300);

/// Fetches a request that fails, and asserts that it is attempted three times.
async fn fetch_error(fetcher: &Fetcher, request: RequestBuilder) -> Error {
    let error = fetcher.fetch(request).await.unwrap_err();
    let outcomes: Vec<Outcome> = error.attempts().iter().map(Attempt::outcome).collect();
    assert_eq!(outcomes, [Outcome::Error(error.kind()); 3]);
    error
}

fn fetcher_with(timeouts: Timeouts) -> Fetcher {
    Fetcher::builder().timeouts(timeouts).build().unwrap()
}

#[tokio::test]
async fn queued_time_counts_in_no_timeout() {
    let server = FaultServer::start();
    let requests = (0..40).map(|n| {
        let url = server.url(&format!("/delay/200/ok/{n}"));
        Request::get(url).timeout(Duration::from_secs(3))
    });
    let results = Fetcher::new()
        .batch(requests)
        .concurrency_per_host(2)
        .gather()
        .await;
    assert_eq!(results.len(), 40);
    let mut longest_queued = Duration::ZERO;
    for result in results {
        let timings = result.unwrap().timings();
        longest_queued = longest_queued.max(timings.queued());
        assert!(timings.response_head() >= Duration::from_millis(200));
    }
    // Each of the two slots runs 20 requests in sequence. The last one waits for 19 others.
    assert!(longest_queued >= Duration::from_millis(3_800));
}

#[tokio::test]
async fn stalled_response_head_is_a_response_head_timeout() {
    let server = FaultServer::start();
    let fetcher = fetcher_with(Timeouts::default().response_head(SHORT_TIMEOUT));
    let error = fetch_error(&fetcher, Request::get(server.url("/stall-head"))).await;
    assert_eq!(error.kind(), ErrorKind::ResponseHeadTimeout);
    assert!(error.is_timeout() && error.maybe_sent());
    assert!(
        error.to_string().contains("response head timeout"),
        "{error}"
    );
    assert!(error.timings().response_head() >= 3 * SHORT_TIMEOUT);
    assert_eq!(server.wait_for_requests(3).await.requests, 3);
    server.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn a_stalled_body_is_a_body_idle_timeout() {
    let server = FaultServer::start();
    let fetcher = fetcher_with(Timeouts::default().body_idle(SHORT_TIMEOUT));
    let error = fetch_error(&fetcher, Request::get(server.url("/stall-body"))).await;
    assert_eq!(error.kind(), ErrorKind::BodyIdleTimeout);
    assert!(error.is_timeout() && error.maybe_sent());
    assert!(error.to_string().contains("body-idle timeout"), "{error}");
    assert!(error.timings().body() >= 3 * SHORT_TIMEOUT);
    server.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn request_timeout_applies_in_every_phase() {
    let server = FaultServer::start();
    for path in ["/stall-head", "/stall-body", "/drip/1000/10"] {
        let request = Request::get(server.url(path)).timeout(SHORT_TIMEOUT);
        let error = fetch_error(&Fetcher::new(), request).await;
        assert_eq!(error.kind(), ErrorKind::RequestTimeout);
        assert!(error.is_timeout() && error.maybe_sent());
        assert!(error.to_string().contains("request timeout"), "{error}");
        assert!(error.timings().wire() >= 3 * SHORT_TIMEOUT);
    }
    server.wait_for_open_connections(0).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unresponsive_port_is_an_unsent_connect_timeout() {
    let silent = crate::support::server::SilentListener::start();
    let fetcher = fetcher_with(Timeouts::default().connect(SHORT_TIMEOUT));
    let error = fetch_error(&fetcher, Request::get(silent.url("/"))).await;
    assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
    assert!(error.is_timeout() && error.is_connect() && !error.maybe_sent());
    assert!(error.to_string().contains("connect timeout"), "{error}");
    assert!(error.timings().connect() >= 3 * SHORT_TIMEOUT);
}

#[tokio::test]
async fn total_timeout_prevents_further_attempts() {
    let server = FaultServer::start();
    let fetcher = fetcher_with(Timeouts::default().total(SHORT_TIMEOUT));
    let error = fetcher.fetch(server.url("/stall-head")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TotalTimeout);
    assert!(error.is_timeout() && error.maybe_sent());
    assert!(error.to_string().contains("total timeout"), "{error}");
    assert_eq!(error.attempts().len(), 1);
    assert_eq!(server.wait_for_requests(1).await.requests, 1);
}

#[tokio::test]
async fn slow_body_is_not_idle() {
    let server = FaultServer::start();
    // The body takes 40 × 25 ms, longer than the idle timeout, but each pause is far shorter.
    let fetcher = fetcher_with(Timeouts::default().body_idle(Duration::from_millis(900)));
    let response = fetcher.fetch(server.url("/drip/40/25")).await.unwrap();
    assert_eq!(response.bytes().len(), 40);
    assert!(response.timings().body() >= Duration::from_millis(900));
}

#[tokio::test]
async fn batch_deadline_counts_wall_clock_time() {
    let server = FaultServer::start();
    let begun = Instant::now();
    let results = Fetcher::new()
        .batch([server.url("/stall-head"), server.url("/stall-body")])
        .retry(Retry::off())
        .deadline(SHORT_TIMEOUT)
        .gather()
        .await;
    assert!(begun.elapsed() >= SHORT_TIMEOUT);
    for result in results {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline);
        assert!(error.to_string().contains("deadline"), "{error}");
    }
    server.wait_for_open_connections(0).await;
}

/// The server closes an idle connection after reading a request. The request is repeated on a new
/// connection, with a full connect timeout.
#[tokio::test]
async fn reconnect_has_a_full_connect_timeout() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let response_bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        let mut request = [0; 1024];
        let (mut first, _) = listener.accept().unwrap();
        assert!(first.read(&mut request).unwrap() > 0);
        first.write_all(response_bytes).unwrap();
        assert!(first.read(&mut request).unwrap() > 0);
        std::thread::sleep(Duration::from_millis(1500));
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        assert!(second.read(&mut request).unwrap() > 0);
        second.write_all(response_bytes).unwrap();
    });
    let fetcher = fetcher_with(Timeouts::default().connect(Duration::from_secs(1)));
    fetcher.fetch(&url).await.unwrap();
    let response = fetcher.fetch(&url).await.unwrap();
    assert_eq!(response.attempts().len(), 1, "{response:?}");
    server.join().unwrap();
}
