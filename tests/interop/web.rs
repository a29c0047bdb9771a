//! The cases of every web server. All servers have the same files and, under `/app/`, the same
//! application.

use std::collections::HashSet;
use std::time::Duration;

use fanout::{ErrorKind, Outcome, Request, Response, Retry, Timeouts};

use crate::endpoint::{Endpoint, header, numbered_lines};
use crate::suite::Suite;

const NOT_FOUND_BODY: &str = "custom 404 body\n";

pub async fn run(suite: &mut Suite, endpoint: &Endpoint) {
    let endpoint = *endpoint;
    suite
        .case(
            &endpoint,
            "HTTP version of every response",
            version(endpoint),
        )
        .await;
    suite
        .case(&endpoint, "bodies are exact", bodies(endpoint))
        .await;
    suite
        .case(
            &endpoint,
            "concurrent large bodies",
            concurrent_bodies(endpoint),
        )
        .await;
    suite
        .case(&endpoint, "HEAD has no body", head(endpoint))
        .await;
    suite
        .case(&endpoint, "404 with body", not_found(endpoint))
        .await;
    suite
        .case(&endpoint, "500 with body", server_error(endpoint))
        .await;
    suite
        .case(&endpoint, "304 for a matching ETag", not_modified(endpoint))
        .await;
    for status in [301, 302, 303, 307, 308] {
        suite
            .case(
                &endpoint,
                &format!("redirect {status}"),
                redirect(endpoint, status),
            )
            .await;
    }
    for coding in codings(endpoint.name) {
        suite
            .case(
                &endpoint,
                &format!("coding {coding}"),
                content_coding(endpoint, coding),
            )
            .await;
    }
    suite
        .case(&endpoint, "default codings", default_coding(endpoint))
        .await;
    suite.case(&endpoint, "chunked", chunked(endpoint)).await;
    suite
        .case(&endpoint, "POST is echoed", echo(endpoint))
        .await;
    suite
        .case(&endpoint, "headers of 8 KB", large_headers(endpoint))
        .await;
    suite
        .case(
            &endpoint,
            "slow responses time out",
            slow_response(endpoint),
        )
        .await;
    // HTTP/2 has no `connection` header.
    if !endpoint.is_http2() {
        suite
            .case(
                &endpoint,
                "closed by the client",
                connection_close_header(endpoint),
            )
            .await;
    }
    suite
        .case(
            &endpoint,
            "2,000 requests, 64 connections",
            connection_reuse(endpoint),
        )
        .await;
    suite
        .case(&endpoint, "206 for a range", range(endpoint))
        .await;
    suite
        .case(&endpoint, "basic credentials", credentials(endpoint))
        .await;
}

/// Returns the content codings that the server supports for files.
fn codings(server: &str) -> &'static [&'static str] {
    match server {
        "lighttpd" => &["gzip", "deflate", "br"],
        "hypercorn" => &["gzip", "deflate"],
        _ => &["gzip", "br"],
    }
}

async fn version(endpoint: Endpoint) {
    let requests = [
        Request::get(endpoint.url("/small.txt")),
        Request::head(endpoint.url("/small.txt")),
        Request::get(endpoint.url("/missing.txt")),
        Request::post(endpoint.url("/app/echo")).body("body"),
        Request::get(endpoint.url("/301")),
    ];
    for result in endpoint.fetcher().gather(requests).await {
        endpoint.assert_version(&result.unwrap());
    }
}

async fn bodies(endpoint: Endpoint) {
    for (path, bytes) in [
        ("/small.txt", 80),
        ("/1m.txt", 1_000_000),
        ("/10m.txt", 10_000_000),
    ] {
        let request = Request::get(endpoint.url(path)).header("accept-encoding", "identity");
        let response = endpoint.fetcher().fetch(request).await.unwrap();
        endpoint.assert_numbered_lines(&response, bytes);
        assert_eq!(header(&response, "content-length"), bytes.to_string());
    }
}

async fn concurrent_bodies(endpoint: Endpoint) {
    let requests = (0..20).map(|_| Request::get(endpoint.url("/1m.txt")));
    for result in endpoint
        .fetcher()
        .batch(requests)
        .concurrency(10)
        .gather()
        .await
    {
        endpoint.assert_numbered_lines(&result.unwrap(), 1_000_000);
    }
}

async fn head(endpoint: Endpoint) {
    let request = || Request::head(endpoint.url("/1m.txt")).header("accept-encoding", "identity");
    let results = endpoint
        .fetcher()
        .batch((0..5).map(|_| request()))
        .concurrency(1)
        .gather()
        .await;
    for (n, result) in results.into_iter().enumerate() {
        let response = result.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.bytes().len()),
            (200, 0)
        );
        assert_eq!(header(&response, "content-length"), "1000000");
        assert_eq!(opened_connection(&response), n == 0, "request {n}");
    }
}

async fn not_found(endpoint: Endpoint) {
    let response = endpoint
        .fetcher()
        .fetch(endpoint.url("/missing.txt"))
        .await
        .unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.text(), NOT_FOUND_BODY);
    let error = response.error_for_status().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Status);
    assert_eq!(error.response().unwrap().text(), NOT_FOUND_BODY);
}

async fn server_error(endpoint: Endpoint) {
    let retry = Retry::default().base_delay(Duration::from_millis(1));
    let fetcher = endpoint.builder().retry(retry).build().unwrap();
    let response = fetcher.fetch(endpoint.url("/app/error")).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &*response.text()),
        (500, "custom 500 body\n")
    );
    assert_eq!(response.attempts().len(), 3);
}

async fn not_modified(endpoint: Endpoint) {
    let fetcher = endpoint.fetcher();
    let plain = || Request::get(endpoint.url("/1m.txt")).header("accept-encoding", "identity");
    let first = fetcher.fetch(plain()).await.unwrap();
    let tag = header(&first, "etag");
    assert!(!tag.is_empty());
    for n in 0..3 {
        let request = plain().header("if-none-match", tag);
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.bytes().len()),
            (304, 0)
        );
        assert!(!opened_connection(&response), "request {n}");
    }
    let changed = fetcher
        .fetch(plain().header("if-none-match", "\"other\""))
        .await;
    endpoint.assert_numbered_lines(&changed.unwrap(), 1_000_000);
}

async fn redirect(endpoint: Endpoint, status: u16) {
    let fetcher = endpoint.fetcher();
    let path = format!("/{status}");
    // 307 and 308 redirect to the echo and keep method and body.
    let response = if status >= 307 {
        let request = Request::put(endpoint.url(&path)).body(numbered_lines(4000));
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(header(&response, "x-method"), "PUT");
        endpoint.assert_numbered_lines(&response, 4000);
        response
    } else {
        let response = fetcher.fetch(endpoint.url(&path)).await.unwrap();
        endpoint.assert_numbered_lines(&response, 80);
        response
    };
    let redirect_statuses: Vec<_> = response
        .redirects()
        .iter()
        .map(|redirect| redirect.status().as_u16())
        .collect();
    assert_eq!(redirect_statuses, [status]);
    let request = Request::get(endpoint.url(&path)).max_redirects(0);
    assert_eq!(fetcher.fetch(request).await.unwrap().status(), status);
}

async fn content_coding(endpoint: Endpoint, coding: &'static str) {
    let request = || Request::get(endpoint.url("/1m.txt")).header("accept-encoding", coding);
    let raw = endpoint.builder().decode_content(false).build().unwrap();
    let raw = raw.fetch(request()).await.unwrap();
    assert_eq!(header(&raw, "content-encoding"), coding);
    assert!(raw.bytes().len() < 1_000_000);
    let response = endpoint.fetcher().fetch(request()).await.unwrap();
    endpoint.assert_numbered_lines(&response, 1_000_000);
    assert_eq!(header(&response, "content-encoding"), "");
    assert_eq!(header(&response, "content-length"), "");
}

async fn default_coding(endpoint: Endpoint) {
    let response = endpoint
        .fetcher()
        .fetch(endpoint.url("/1m.txt"))
        .await
        .unwrap();
    endpoint.assert_numbered_lines(&response, 1_000_000);
    // Decoding removes the length header.
    assert_eq!(header(&response, "content-length"), "");
}

async fn chunked(endpoint: Endpoint) {
    let request =
        || Request::get(endpoint.url("/app/chunked")).header("accept-encoding", "identity");
    let results = endpoint
        .fetcher()
        .batch((0..5).map(|_| request()))
        .concurrency(1)
        .gather()
        .await;
    for (n, result) in results.into_iter().enumerate() {
        let response = result.unwrap();
        endpoint.assert_numbered_lines(&response, 1_000_000);
        assert_eq!(header(&response, "content-length"), "");
        assert_eq!(opened_connection(&response), n == 0, "request {n}");
    }
}

async fn echo(endpoint: Endpoint) {
    let all_bytes: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    for body in [Vec::new(), b"short".to_vec(), all_bytes] {
        let request = Request::post(endpoint.url("/app/echo")).body(body.clone());
        let response = endpoint.fetcher().fetch(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), header(&response, "x-method")),
            (200, "POST")
        );
        assert!(
            response.bytes()[..] == body,
            "{} of {}",
            response.bytes().len(),
            body.len()
        );
    }
}

async fn large_headers(endpoint: Endpoint) {
    let response = endpoint
        .fetcher()
        .fetch(endpoint.url("/app/large-header"))
        .await
        .unwrap();
    assert_eq!(header(&response, "x-large"), "x".repeat(8000));
    let request =
        Request::get(endpoint.url("/app/header-length")).header("x-large", "x".repeat(8000));
    let response = endpoint.fetcher().fetch(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &*response.text()),
        (200, "8000")
    );
}

async fn slow_response(endpoint: Endpoint) {
    let fast_enough =
        Request::get(endpoint.url("/app/slow?seconds=0.3")).timeout(Duration::from_secs(20));
    assert_eq!(
        endpoint.fetcher().fetch(fast_enough).await.unwrap().text(),
        "at last\n"
    );
    let url = endpoint.url("/app/slow?seconds=20");
    let fetcher = endpoint.builder().retry(Retry::off()).build().unwrap();
    let request = Request::get(&url).timeout(Duration::from_millis(200));
    let error = fetcher.fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestTimeout);
    let timeouts = Timeouts::default().response_head(Duration::from_millis(200));
    let fetcher = endpoint
        .builder()
        .retry(Retry::off())
        .timeouts(timeouts)
        .build()
        .unwrap();
    let error = fetcher.fetch(&url).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.maybe_sent()),
        (ErrorKind::ResponseHeadTimeout, true)
    );
}

async fn connection_close_header(endpoint: Endpoint) {
    let request = || Request::get(endpoint.url("/small.txt")).header("connection", "close");
    let results = endpoint
        .fetcher()
        .batch((0..10).map(|_| request()))
        .concurrency(2)
        .gather()
        .await;
    for result in results {
        let response = result.unwrap();
        endpoint.assert_numbered_lines(&response, 80);
        assert!(opened_connection(&response));
    }
}

async fn connection_reuse(endpoint: Endpoint) {
    let urls = (0..2000).map(|_| endpoint.url("/small.txt"));
    let (mut connection_count, mut retries, mut server_connections) = (0, 0, HashSet::new());
    let fetcher = endpoint.fetcher();
    if endpoint.is_http2() {
        // With a slow handshake, some of the first requests would open connections of their own.
        assert!(fetcher.fetch(endpoint.url("/small.txt")).await.is_ok());
    }
    for result in fetcher.batch(urls).concurrency(64).gather().await {
        let response = result.unwrap();
        endpoint.assert_numbered_lines(&response, 80);
        for attempt in response.attempts().iter().rev().skip(1) {
            assert_eq!(attempt.outcome(), Outcome::Error(ErrorKind::Closed));
            retries += 1;
        }
        connection_count += usize::from(opened_connection(&response));
        server_connections.insert(header(&response, "x-connection").to_owned());
    }
    // Servers that send no `x-connection` header count as one connection.
    let server_connections = server_connections.len();
    // Hypercorn sends GOAWAY after 1,000 requests and drops some streams up to the last stream ID.
    // Those may have been processed, so each repetition is an attempt of its own.
    if endpoint.is_http2() && endpoint.name == "hypercorn" {
        assert!(
            retries < 64 && server_connections <= 3,
            "{retries} retries, {server_connections} connections"
        );
        return;
    }
    assert_eq!(retries, 0);
    assert!(connection_count <= 64, "{connection_count} connections");
    let max_connections = if endpoint.is_http2() { 1 } else { 64 };
    assert!(
        server_connections <= max_connections,
        "the server saw {server_connections} connections"
    );
}

async fn range(endpoint: Endpoint) {
    let fetcher = endpoint.fetcher();
    let request = Request::get(endpoint.url("/1m.txt")).header("range", "bytes=80-95");
    let response = fetcher.fetch(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &*response.text()),
        (206, "0000010\n0000011\n")
    );
    assert_eq!(header(&response, "content-range"), "bytes 80-95/1000000");
    let request = Request::get(endpoint.url("/1m.txt")).header("range", "bytes=2000000-");
    assert_eq!(fetcher.fetch(request).await.unwrap().status(), 416);
}

async fn credentials(endpoint: Endpoint) {
    let fetcher = endpoint.fetcher();
    let request = || Request::get(endpoint.url("/auth/small.txt"));
    endpoint.assert_numbered_lines(
        &fetcher
            .fetch(request().basic_auth("user", "pass"))
            .await
            .unwrap(),
        80,
    );
    for wrong in [request(), request().basic_auth("user", "wrong")] {
        let response = fetcher.fetch(wrong).await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(header(&response, "www-authenticate").starts_with("Basic"));
    }
    let url_with_credentials = endpoint
        .url("/auth/small.txt")
        .replacen("://", "://user:pass@", 1);
    endpoint.assert_numbered_lines(&fetcher.fetch(url_with_credentials).await.unwrap(), 80);
}

/// Reports whether the request opened a new connection.
fn opened_connection(response: &Response) -> bool {
    response.timings().connect() > Duration::ZERO
}
