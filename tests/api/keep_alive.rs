//! Connection reuse, and connections that the server closes while they are idle.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::support::raw_server::{RawResponse, RawServer};
use crate::support::server::FaultServer;
use fanout::{ErrorKind, Fetcher, Outcome, Request, RequestBuilder, Retry};
use http::Method;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn without_retries() -> Fetcher {
    Fetcher::builder().retry(Retry::off()).build().unwrap()
}

/// Starts a server whose first connection responds once and then sends `end`.
fn close_on_second_request(end: RawResponse) -> RawServer {
    RawServer::start(
        move |request| match (request.connection, request.index_on_connection) {
            (0, 1) => end.clone(),
            _ => RawResponse::keep_alive(OK),
        },
    )
}

fn idempotent_requests(server: &RawServer) -> Vec<RequestBuilder> {
    let to = |method| Request::new(method, server.url("/second"));
    vec![
        to(Method::GET),
        to(Method::HEAD),
        to(Method::OPTIONS),
        to(Method::TRACE),
        to(Method::PUT).body("body"),
        to(Method::DELETE),
        to(Method::POST).body("body").idempotent(),
        to(Method::PATCH)
            .body("body")
            .header("idempotency-key", "1"),
    ]
}

#[tokio::test]
async fn idempotent_request_on_closed_connection_is_replayed_within_the_attempt() {
    for kind in 0..8 {
        let server = close_on_second_request(RawResponse::close(""));
        let fetcher = without_retries();
        fetcher.fetch(server.url("/first")).await.unwrap();
        let request = idempotent_requests(&server).swap_remove(kind).build();
        let line = format!("{} /second", request.method());
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(response.attempts().len(), 1, "{line}");
        assert_eq!(
            response.attempts()[0].outcome(),
            Outcome::Status(response.status())
        );
        let request = server.requests();
        let places: Vec<_> = request
            .iter()
            .map(|request| (request.connection, request.index_on_connection))
            .collect();
        assert_eq!(places, [(0, 0), (0, 1), (1, 0)], "{line}");
        assert_eq!(request[1].line(), line);
        assert_eq!(request[1].bytes, request[2].bytes, "the very same request");
    }
}

#[tokio::test]
async fn non_idempotent_request_is_never_sent_twice() {
    for method in [Method::POST, Method::PATCH] {
        let server = close_on_second_request(RawResponse::close(""));
        // Even with retries enabled.
        let fetcher = Fetcher::new();
        fetcher.fetch(server.url("/first")).await.unwrap();
        let request = Request::new(method.clone(), server.url("/second")).body("one order");
        let error = fetcher.fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.maybe_sent());
        assert_eq!(error.attempts().len(), 1);
        let orders = server
            .requests()
            .iter()
            .filter(|request| request.line().ends_with("/second"))
            .count();
        assert_eq!(orders, 1, "{method}");
    }
}

#[tokio::test]
async fn request_with_partial_response_is_not_replayed() {
    for begun in [
        "H",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        let server = close_on_second_request(RawResponse::close(begun));
        let fetcher = without_retries();
        fetcher.fetch(server.url("/first")).await.unwrap();
        let error = fetcher.fetch(server.url("/second")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{begun:?}");
        assert_eq!(server.requests().len(), 2, "{begun:?}");
    }
}

#[tokio::test]
async fn replay_happens_once_and_only_after_a_reused_connection() {
    let server =
        RawServer::start(
            |request| match (request.connection, request.index_on_connection) {
                (0, 0) => RawResponse::keep_alive(OK),
                _ => RawResponse::close(""),
            },
        );
    let fetcher = without_retries();
    fetcher.fetch(server.url("/first")).await.unwrap();
    let error = fetcher.fetch(server.url("/second")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Closed, 1)
    );
    assert_eq!(
        (server.requests().len(), server.accepted_connections()),
        (3, 2)
    );

    let error = fetcher.fetch(server.url("/third")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Closed, 1)
    );
    assert_eq!(
        (server.requests().len(), server.accepted_connections()),
        (4, 3)
    );
}

/// The close arrives before the request is written, so the request is safe to send elsewhere.
#[tokio::test]
async fn post_detects_a_closed_idle_connection() {
    let server = FaultServer::start();
    let fetcher = without_retries();
    for order in 0..5 {
        fetcher.fetch(server.url("/ok-then-close/1")).await.unwrap();
        server.wait_for_open_connections(0).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        let post = Request::post(server.url("/echo")).body(format!("order {order}"));
        let response = fetcher.fetch(post).await.unwrap();
        assert_eq!(response.attempts().len(), 1);
        server.close_connections().await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(server.request_count_for("/echo"), 5);
}

/// The server processes the third request of each connection and closes it without a response.
#[tokio::test]
async fn posts_are_processed_at_most_once_on_dying_connections() {
    let processed: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let died = Arc::new(AtomicUsize::new(0));
    let (counting, dying) = (Arc::clone(&processed), Arc::clone(&died));
    let server = RawServer::start(move |request| {
        *counting.lock().unwrap().entry(request.line()).or_default() += 1;
        if request.index_on_connection == 2 {
            dying.fetch_add(1, SeqCst);
            return RawResponse::close("");
        }
        RawResponse::keep_alive(OK)
    });
    let fetcher = Fetcher::builder().concurrency(8).build().unwrap();
    let posts = (0..200).map(|n| Request::post(server.url(&format!("/post/{n}"))).body("order"));
    let results = fetcher.gather(posts).await;
    let failed = results.iter().filter(|result| result.is_err()).count();
    assert_eq!(failed, died.load(SeqCst));
    assert!(failed > 40, "{failed}");
    assert!(processed.lock().unwrap().values().all(|times| *times == 1));
    assert_eq!(processed.lock().unwrap().len(), 200);

    let gets = (0..200).map(|n| server.url(&format!("/get/{n}")));
    let results = fetcher.batch(gets).retry(Retry::off()).gather().await;
    for result in results {
        assert_eq!(result.unwrap().attempts().len(), 1);
    }
    assert!(died.load(SeqCst) > failed + 40);
}

#[tokio::test]
async fn connection_expires_before_the_servers_keep_alive_timeout() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    for (seconds, rest) in [(1000, 0), (1000, 700), (1, 700), (0, 0)] {
        let url = server.url(&format!("/keep-alive/{seconds}"));
        fetcher.fetch(&url).await.unwrap();
        tokio::time::sleep(Duration::from_millis(rest)).await;
        let counts = server.counts();
        fetcher.fetch(&url).await.unwrap();
        let reused = server.counts().total_connections == counts.total_connections;
        assert_eq!(reused, seconds == 1000, "{seconds} {rest}");
    }
}
