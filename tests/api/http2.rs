//! HTTP/2 through the public API: by ALPN or prior knowledge, with a scout for unknown origins.
#![cfg(all(feature = "http2", feature = "tls"))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::alpn_server::{
    AlpnServer, AlpnServerConfig, HTTP1_SERVER, HTTP2_SERVER, PLAINTEXT_SERVER,
};
use crate::support::body_streams::{StreamEnd, chunk_stream};
use crate::support::http2_frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Http2Peer, RST_STREAM};
use crate::support::server::{ProxyBehavior, ProxyServer, ca_pem};
use bytes::Bytes;
use fanout::{
    Body, Breaker, ErrorKind, Fetcher, FetcherBuilder, Proxy, Rate, Request, Retry, Timeouts,
};
use h2::Reason;
use http::Version;
use tokio::runtime::{Builder, Handle, Runtime};

fn builder() -> FetcherBuilder {
    Fetcher::builder().add_root_certificates(ca_pem())
}

fn fetcher() -> Fetcher {
    builder().build().unwrap()
}

#[tokio::test]
async fn protocol_follows_alpn_or_configuration() {
    let (both, old, plain) = (
        AlpnServer::start(HTTP2_SERVER),
        AlpnServer::start(HTTP1_SERVER),
        AlpnServer::start(PLAINTEXT_SERVER),
    );
    let old_only = || builder().http1_only().build().unwrap();
    let prior = || builder().http2_prior_knowledge().build().unwrap();
    for (fetcher, server, version) in [
        (fetcher(), &both, Version::HTTP_2),
        (fetcher(), &old, Version::HTTP_11),
        (old_only(), &both, Version::HTTP_11),
        (prior(), &both, Version::HTTP_2),
        (prior(), &old, Version::HTTP_11),
        (prior(), &plain, Version::HTTP_2),
    ] {
        let response = fetcher.fetch(server.url("/path?query")).await.unwrap();
        assert_eq!(response.version(), version);
        assert_eq!(response.headers()["x-version"], format!("{version:?}"));
        assert_eq!(response.text(), "/path");
    }
}

#[tokio::test]
async fn snapshot_counts_idle_http2_connection() {
    let server = AlpnServer::start(HTTP2_SERVER);
    let fetcher = fetcher();
    fetcher.fetch(server.url("/1")).await.unwrap();
    let snapshot = fetcher.snapshot();
    let counts = (snapshot.open_connections(), snapshot.idle_connections());
    assert_eq!(counts, (1, 1));
}

/// Whether other requests stopped waiting for the scout, as on a slow machine. They then open their
/// own connections.
fn scout_timed_out(results: &[fanout::Result<fanout::Response>]) -> bool {
    let waited = |response: &fanout::Response| response.timings().queued();
    let mut answered = results.iter().flatten();
    answered.any(|response| waited(response) >= Duration::from_millis(290))
}

#[tokio::test]
async fn requests_to_a_new_http2_origin_share_one_connection() {
    let server = AlpnServer::start(AlpnServerConfig {
        min_concurrent_requests: 100,
        ..HTTP2_SERVER
    });
    let results = fetcher().gather(server.urls(100)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    // The server has responded only after all requests had arrived.
    assert!(server.connections() == 1 || scout_timed_out(&results));
}

#[tokio::test]
async fn requests_to_a_new_http1_origin_open_a_connection_each() {
    let server = AlpnServer::start(AlpnServerConfig {
        min_concurrent_requests: 100,
        ..HTTP1_SERVER
    });
    let fetcher = fetcher();
    let results = fetcher.gather(server.urls(100)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(server.connections(), 100);
}

#[tokio::test]
async fn stalled_scout_delays_other_requests_briefly() {
    let server = AlpnServer::start(AlpnServerConfig {
        ignored_connections: 1,
        ..HTTP1_SERVER
    });
    let patience = Duration::from_secs(8);
    let fetcher = builder()
        .timeouts(Timeouts::default().connect(patience))
        .retry(Retry::off())
        .build()
        .unwrap();
    let started = Instant::now();
    let mut done = fetcher.as_completed(server.urls(20));
    let mut order = Vec::new();
    while let Some(completed) = done.next().await {
        assert!(started.elapsed() >= Duration::from_millis(290));
        order.push(completed.result.map_err(|error| error.kind()));
    }
    assert!(started.elapsed() >= patience);
    assert_eq!(order.len(), 20);
    assert!(
        order[..19].iter().all(Result::is_ok),
        "nobody waited for it"
    );
    assert_eq!(order[19].as_ref().unwrap_err(), &ErrorKind::ConnectTimeout);
}

#[tokio::test]
async fn failed_scout_releases_waiting_requests() {
    let refused = crate::support::server::refused_url().replace("http://", "https://");
    let fetcher = builder().retry(Retry::off()).build().unwrap();
    let results = fetcher.gather(vec![refused; 100]).await;
    for result in results {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Connect);
    }
}

#[tokio::test]
async fn stream_limit_opens_more_connections() {
    for (streams, connections) in [(10, 10), (100, 1)] {
        let server = AlpnServer::start(AlpnServerConfig {
            min_concurrent_requests: 100,
            max_concurrent_streams: streams,
            ..HTTP2_SERVER
        });
        let results = fetcher().gather(server.urls(100)).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert!(server.connections() == connections || scout_timed_out(&results));
    }
}

#[tokio::test]
async fn gather_mixes_http1_and_http2_origins() {
    let servers: Vec<AlpnServer> = (0..20)
        .map(|n| {
            AlpnServer::start(if n % 2 == 0 {
                HTTP2_SERVER
            } else {
                HTTP1_SERVER
            })
        })
        .collect();
    let fetcher = fetcher();
    // Finds out the protocol of each server.
    let first = fetcher.gather(servers.iter().map(|server| server.url("/")));
    assert!(first.await.iter().all(Result::is_ok));
    let urls = (0..2_000).map(|n| servers[n % 20].url(&format!("/{n}")));
    let results = fetcher.gather(urls).await;
    for (n, result) in results.iter().enumerate() {
        let response = result.as_ref().unwrap();
        assert_eq!(response.text(), format!("/{n}"));
        let version = [Version::HTTP_2, Version::HTTP_11][n % 2];
        assert_eq!(response.version(), version);
    }
    for server in servers.iter().step_by(2) {
        assert_eq!(server.connections(), 1);
    }
}

/// Starts a server that calls `answer` for each stream, with the number of streams before it.
fn stream_server(
    answer: impl Fn(usize, h2::server::SendResponse<Bytes>) + Send + Sync + 'static,
) -> AlpnServer {
    let (answer, streams) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    AlpnServer::with_handler(HTTP2_SERVER, move |socket, is_http2| {
        let (answer, streams) = (Arc::clone(&answer), Arc::clone(&streams));
        async move {
            if !is_http2 {
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(http::Response::new(Body::from("old")))
                });
                let io = hyper_util::rt::TokioIo::new(socket);
                let http1 = hyper::server::conn::http1::Builder::new();
                let _ = http1.serve_connection(io, service).await;
                return;
            }
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_, respond))) = connection.accept().await {
                answer(streams.fetch_add(1, SeqCst), respond);
            }
        }
    })
}

fn respond_with(mut respond: h2::server::SendResponse<Bytes>, body: &'static str) {
    if let Ok(mut stream) = respond.send_response(http::Response::new(()), false) {
        let _ = stream.send_data(Bytes::from_static(body.as_bytes()), true);
    }
}

#[tokio::test]
async fn refused_stream_is_resent_for_any_method() {
    for refusals in [1, 2] {
        let server = stream_server(move |before, mut respond| {
            if before < refusals {
                respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                respond_with(respond, "done");
            }
        });
        let fetcher = builder()
            .retry(Retry::default().base_delay(Duration::from_millis(1)))
            .build()
            .unwrap();
        let response = fetcher
            .fetch(Request::post(server.url("/")).body("once"))
            .await;
        let response = response.unwrap();
        assert_eq!(response.text(), "done");
        assert_eq!(response.attempts().len(), refusals + 1);
    }
}

#[tokio::test]
async fn always_refused_stream_was_never_sent() {
    let server = stream_server(|_, mut respond| respond.send_reset(Reason::REFUSED_STREAM));
    let fetcher = builder().retry(Retry::off()).build().unwrap();
    let post = Request::post(server.url("/")).body("never");
    let error = fetcher.fetch(post).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(!error.maybe_sent());
}

/// Starts a server that responds to `streams` streams per connection and sends GOAWAY at the next.
fn goaway_after(streams: usize) -> AlpnServer {
    AlpnServer::with_handler(PLAINTEXT_SERVER, move |socket, _| async move {
        let mut frames = Http2Peer::handshake(socket).await;
        let mut last = 0;
        for _ in 0..streams {
            match frames.read_until(HEADERS).await {
                Some(stream) => last = stream,
                None => return,
            }
            frames.respond(last).await;
        }
        frames.read_until(HEADERS).await;
        frames.send_goaway(last).await;
        frames.drain().await;
    })
}

#[tokio::test]
async fn streams_beyond_goaway_cost_no_attempt() {
    let server = goaway_after(3);
    let builder = Fetcher::builder().http2_prior_knowledge();
    let fetcher = builder.retry(Retry::off()).build().unwrap();
    let posts = (0..20).map(|n| Request::post(server.url("/")).body(format!("{n}")));
    for result in fetcher.gather(posts).await {
        let response = result.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.attempts().len(), 1);
    }
    assert_eq!(server.connections(), 7, "each has answered three");
}

#[tokio::test]
async fn repeated_goaway_fails_as_never_sent() {
    let server = goaway_after(0);
    let builder = Fetcher::builder().http2_prior_knowledge();
    let fetcher = builder.retry(Retry::off()).build().unwrap();
    let post = Request::post(server.url("/")).body("never");
    let error = fetcher.fetch(post).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(!error.maybe_sent());
    assert_eq!(server.connections(), 2);
}

/// How a server refuses the first stream of each connection.
#[derive(Clone, Copy, Debug)]
enum FirstStreamRefusal {
    Goaway(Reason),
    Reset(Reason),
    CloseAfterStream,
    CloseAfterHandshake,
}

fn refusing_server(refusal: FirstStreamRefusal) -> AlpnServer {
    AlpnServer::with_handler(PLAINTEXT_SERVER, move |socket, _| async move {
        let mut frames = Http2Peer::handshake(socket).await;
        if matches!(refusal, FirstStreamRefusal::CloseAfterHandshake) {
            return;
        }
        let Some(stream) = frames.read_until(HEADERS).await else {
            return;
        };
        match refusal {
            FirstStreamRefusal::Goaway(reason) => {
                frames.send_goaway_with_code(0, reason.into()).await;
                frames.drain().await;
            }
            FirstStreamRefusal::Reset(reason) => {
                let code = u32::from(reason).to_be_bytes();
                frames.write_frame(RST_STREAM, 0, stream, &code).await;
            }
            FirstStreamRefusal::CloseAfterStream | FirstStreamRefusal::CloseAfterHandshake => {}
        }
    })
}

const REFUSALS: [FirstStreamRefusal; 7] = [
    FirstStreamRefusal::Goaway(Reason::ENHANCE_YOUR_CALM),
    FirstStreamRefusal::Goaway(Reason::PROTOCOL_ERROR),
    FirstStreamRefusal::Goaway(Reason::REFUSED_STREAM),
    FirstStreamRefusal::Reset(Reason::REFUSED_STREAM),
    FirstStreamRefusal::Reset(Reason::ENHANCE_YOUR_CALM),
    FirstStreamRefusal::CloseAfterStream,
    FirstStreamRefusal::CloseAfterHandshake,
];

#[tokio::test]
async fn request_refused_on_a_fresh_connection_is_not_replayed() {
    for refusal in REFUSALS {
        let server = refusing_server(refusal);
        let builder = Fetcher::builder().http2_prior_knowledge();
        let fetcher = builder.retry(Retry::off()).build().unwrap();
        let error = fetcher.fetch(server.url("/")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{refusal:?}");
        assert_eq!(error.attempts().len(), 1, "{refusal:?}");
        assert_eq!(server.connections(), 1, "{refusal:?}");
    }
}

/// Without a rate, the retries would be done at once, since their backoff is 1 ms.
#[tokio::test]
async fn retries_of_refused_requests_pay_the_rate() {
    let goaway = FirstStreamRefusal::Goaway;
    for refusal in [goaway(Reason::ENHANCE_YOUR_CALM), goaway(Reason::NO_ERROR)] {
        let server = refusing_server(refusal);
        let retry = Retry::default()
            .base_delay(Duration::from_millis(1))
            .max_retries(4);
        let builder = Fetcher::builder().http2_prior_knowledge().retry(retry);
        let builder = builder
            .rate_per_host(Rate::per_second(20))
            .breaker(Breaker::off());
        let fetcher = builder.build().unwrap();
        let start = std::time::Instant::now();
        let error = fetcher.fetch(server.url("/")).await.unwrap_err();
        assert_eq!(error.attempts().len(), 5, "{refusal:?}");
        assert!(start.elapsed() >= Duration::from_millis(200), "{refusal:?}");
        let max_connections = match refusal {
            FirstStreamRefusal::Goaway(Reason::NO_ERROR) => 10,
            _ => 5,
        };
        assert_eq!(server.connections(), max_connections, "{refusal:?}");
    }
}

#[tokio::test]
async fn concurrent_requests_refused_on_fresh_connections_are_replayed_once_at_most() {
    let goaway = FirstStreamRefusal::Goaway;
    for (refusal, max_connections) in [
        (goaway(Reason::ENHANCE_YOUR_CALM), 20),
        (goaway(Reason::NO_ERROR), 40),
        (FirstStreamRefusal::CloseAfterHandshake, 20),
    ] {
        let server = refusing_server(refusal);
        let builder = Fetcher::builder().http2_prior_knowledge();
        let fetcher = builder.retry(Retry::off()).build().unwrap();
        let results = fetcher.gather(vec![server.url("/"); 20]).await;
        assert!(results.iter().all(Result::is_err), "{refusal:?}");
        assert!(server.connections() <= max_connections, "{refusal:?}");
    }
}

#[tokio::test]
async fn connection_that_closes_right_after_the_handshake_is_not_replaced() {
    for config in [HTTP2_SERVER, HTTP1_SERVER] {
        let server = AlpnServer::with_handler(config, |socket, _| async move { drop(socket) });
        let fetcher = builder().retry(Retry::off()).breaker(Breaker::off());
        let fetcher = fetcher.build().unwrap();
        for round in 1..=3 {
            let error = fetcher.fetch(server.url("/")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
            assert_eq!(server.connections(), round);
        }
        let results = fetcher.gather(vec![server.url("/"); 20]).await;
        assert!(results.iter().all(Result::is_err));
        assert!(server.connections() <= 23);
    }
}

/// A server that serves one request per connection and then asks for fewer requests.
#[tokio::test]
async fn enhance_your_calm_is_not_replayed() {
    let server = AlpnServer::with_handler(PLAINTEXT_SERVER, |socket, _| async move {
        let mut frames = Http2Peer::handshake(socket).await;
        let Some(first) = frames.read_until(HEADERS).await else {
            return;
        };
        frames.respond(first).await;
        frames.read_until(HEADERS).await;
        let code = u32::from(Reason::ENHANCE_YOUR_CALM);
        frames.send_goaway_with_code(first, code).await;
        frames.drain().await;
    });
    let builder = Fetcher::builder().http2_prior_knowledge();
    let fetcher = builder.retry(Retry::off()).build().unwrap();
    assert!(fetcher.fetch(server.url("/")).await.is_ok());
    let error = fetcher.fetch(server.url("/")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.maybe_sent()),
        (ErrorKind::Closed, false)
    );
    assert_eq!(server.connections(), 1);
}

/// The frames of a response to GET or HEAD whose status or method excludes content.
#[tokio::test]
async fn frames_after_a_head_without_content_are_ignored() {
    /// `content-length: 5` (RFC 7541, section 6.2.2).
    const LENGTH_5: [u8; 4] = [0x0f, 0x0d, 1, b'5'];
    /// The trailer `x: y`.
    const TRAILER: [u8; 5] = [0, 1, b'x', 1, b'y'];
    for (method, status, indexed_status) in
        [("GET", 304, 0x8b), ("GET", 204, 0x89), ("HEAD", 200, 0x88)]
    {
        for (frame_type, flags, payload) in [
            (DATA, END_STREAM, &b""[..]),
            (DATA, END_STREAM, b"hello"),
            (DATA, 0, b"hello"),
            (HEADERS, END_STREAM | END_HEADERS, &TRAILER),
        ] {
            for with_length in [true, false] {
                let server =
                    AlpnServer::with_handler(PLAINTEXT_SERVER, move |socket, _| async move {
                        let mut frames = Http2Peer::handshake(socket).await;
                        while let Some(stream) = frames.read_until(HEADERS).await {
                            let mut head = vec![indexed_status];
                            if with_length {
                                head.extend(LENGTH_5);
                            }
                            frames
                                .write_frame(HEADERS, END_HEADERS, stream, &head)
                                .await;
                            frames.write_frame(frame_type, flags, stream, payload).await;
                        }
                    });
                let case = format!("{method} {status} {frame_type} {payload:?} {with_length}");
                let builder = Fetcher::builder().http2_prior_knowledge();
                let fetcher = builder.retry(Retry::off()).build().unwrap();
                for _ in 0..3 {
                    let method = method.parse().unwrap();
                    let request = Request::new(method, server.url("/"));
                    let response = fetcher.fetch(request).await;
                    let response = response.unwrap_or_else(|error| panic!("{case}: {error:?}"));
                    assert_eq!(response.status(), status, "{case}");
                    assert!(response.bytes().is_empty(), "{case}");
                }
                assert_eq!(server.connections(), 1, "{case}");
            }
        }
    }
}

/// Starts a server that responds to one stream per connection and closes it at the next.
fn close_after_one_stream() -> AlpnServer {
    AlpnServer::with_handler(PLAINTEXT_SERVER, |socket, _| async move {
        let mut frames = Http2Peer::handshake(socket).await;
        if let Some(stream) = frames.read_until(HEADERS).await {
            frames.respond(stream).await;
            frames.read_until(HEADERS).await;
        }
    })
}

#[tokio::test]
async fn closed_reused_connection_replays_idempotent_requests_only() {
    for (method, replayed) in [("GET", true), ("PUT", true), ("POST", false)] {
        let server = close_after_one_stream();
        let builder = Fetcher::builder().http2_prior_knowledge();
        let fetcher = builder.retry(Retry::off()).build().unwrap();
        assert!(fetcher.fetch(server.url("/")).await.is_ok());
        let method = method.parse().unwrap();
        let request = Request::new(method, server.url("/")).body("sent");
        let result = fetcher.fetch(request).await;
        assert_eq!(server.connections(), if replayed { 2 } else { 1 });
        match result {
            Ok(response) => assert!(replayed && response.attempts().len() == 1),
            Err(error) => {
                assert!(!replayed, "{error:?}");
                assert_eq!(
                    (error.kind(), error.maybe_sent()),
                    (ErrorKind::Closed, true)
                );
            }
        }
    }
}

#[tokio::test]
async fn maybe_sent_survives_a_goaway_on_the_next_connection() {
    let connections = AtomicUsize::new(0);
    let server = AlpnServer::with_handler(PLAINTEXT_SERVER, move |socket, _| {
        let is_first = connections.fetch_add(1, SeqCst) == 0;
        async move {
            let mut frames = Http2Peer::handshake(socket).await;
            let stream = frames.read_until(HEADERS).await.unwrap_or_default();
            if is_first {
                frames.respond(stream).await;
                frames.read_until(HEADERS).await;
            } else {
                frames.send_goaway(0).await;
                frames.drain().await;
            }
        }
    });
    let builder = Fetcher::builder().http2_prior_knowledge();
    let fetcher = builder.retry(Retry::off()).build().unwrap();
    assert!(fetcher.fetch(server.url("/")).await.is_ok());
    let error = fetcher.fetch(server.url("/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.maybe_sent(), "the first of them was");
}

#[tokio::test]
async fn possibly_processed_post_is_not_resent() {
    let server = stream_server(|_, mut respond| respond.send_reset(Reason::INTERNAL_ERROR));
    let post = Request::post(server.url("/")).body("once");
    let error = fetcher().fetch(post).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.maybe_sent());
    assert_eq!(error.attempts().len(), 1);
}

#[tokio::test]
async fn http_1_1_required_falls_back_to_http1() {
    let server = stream_server(|_, mut respond| respond.send_reset(Reason::HTTP_1_1_REQUIRED));
    let fetcher = fetcher();
    for _ in 0..2 {
        let posts = (0..20).map(|_| Request::post(server.url("/")).body("once"));
        for result in fetcher.gather(posts).await {
            let response = result.unwrap();
            assert_eq!(response.version(), Version::HTTP_11);
            assert_eq!(response.attempts().len(), 1);
        }
    }
}

#[tokio::test]
async fn silent_stream_times_out_alone() {
    let server = stream_server(|before, mut respond| match before {
        // Dropping it would reset the stream.
        1 => std::mem::forget(respond),
        2 => std::mem::forget(respond.send_response(http::Response::new(()), false)),
        _ => respond_with(respond, "done"),
    });
    let timeouts = Timeouts::default()
        .response_head(Duration::from_secs(3))
        .body_idle(Duration::from_secs(3));
    let fetcher = builder().timeouts(timeouts).retry(Retry::off()).build();
    let fetcher = fetcher.unwrap();
    let fetch = || fetcher.fetch(server.url("/"));
    assert!(fetch().await.is_ok());
    let (one, two) = tokio::join!(fetch(), fetch());
    let kinds = [one.unwrap_err().kind(), two.unwrap_err().kind()];
    assert_eq!(
        kinds,
        [ErrorKind::ResponseHeadTimeout, ErrorKind::BodyIdleTimeout]
    );
    assert!(fetch().await.is_ok());
}

/// Four of eight streams fail, each in a different way.
#[tokio::test]
async fn every_input_gets_one_result_among_stream_faults() {
    const COUNT: usize = 200;
    let server = stream_server(|before, mut respond| match before % 8 {
        0 => respond.send_reset(Reason::INTERNAL_ERROR),
        1 => respond.send_reset(Reason::CANCEL),
        2 => {
            let Ok(mut body) = respond.send_response(http::Response::new(()), false) else {
                return;
            };
            let _ = body.send_data(Bytes::from_static(b"half"), false);
            // An immediate reset would discard the unwritten data.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                body.send_reset(Reason::INTERNAL_ERROR);
            });
        }
        3 => {
            let head = http::Response::builder().header("content-length", 9);
            let _ = respond.send_response(head.body(()).unwrap(), true);
        }
        _ => respond_with(respond, "done"),
    });
    let fetcher = builder().retry(Retry::off()).build().unwrap();
    let urls: Vec<String> = server.urls(COUNT).collect();
    let mut kinds = BTreeMap::<_, usize>::new();
    let mut book = |result: &fanout::Result<fanout::Response>| match result {
        Ok(response) => assert_eq!(response.text(), "done"),
        Err(error) => *kinds.entry(error.kind()).or_default() += 1,
    };
    let results = fetcher.gather(&urls).await;
    assert_eq!(results.len(), COUNT);
    results.iter().for_each(&mut book);
    let mut indices = BTreeSet::new();
    let mut done = fetcher.as_completed(&urls);
    while let Some(completed) = done.next().await {
        assert!(indices.insert(completed.index));
        book(&completed.result);
    }
    assert_eq!(indices.len(), COUNT);
    let mut in_order = fetcher.batch(&urls).in_order();
    for index in 0..COUNT {
        let completed = in_order.next().await.unwrap();
        assert_eq!(completed.index, index);
        book(&completed.result);
    }
    assert!(in_order.next().await.is_none());
    for url in &urls[..16] {
        book(&fetcher.fetch(url).await);
    }
    let expected = [ErrorKind::Closed, ErrorKind::Reset, ErrorKind::Protocol];
    assert!(
        kinds.keys().eq(expected.iter().collect::<BTreeSet<_>>()),
        "{kinds:?}"
    );
    let failed: usize = kinds.values().sum();
    assert_eq!(failed, (3 * COUNT + 16) / 2, "four of eight: {kinds:?}");
}

#[tokio::test]
async fn streamed_request_body_is_sent_and_its_failure_is_reported() {
    let server = AlpnServer::start(HTTP2_SERVER);
    let fetcher = fetcher();
    let long: String = "0123456789".repeat(200_000);
    let post = Request::post(server.url("/")).body(long.clone());
    assert_eq!(fetcher.fetch(post).await.unwrap().text(), long);
    let streamed = Body::stream(chunk_stream(&["one ", "", "two"], StreamEnd::End));
    let post = Request::post(server.url("/")).body(streamed);
    assert_eq!(fetcher.fetch(post).await.unwrap().text(), "one two");
    let failing = Body::stream(chunk_stream(&["one ", "two"], StreamEnd::Fail));
    let post = Request::post(server.url("/")).body(failing);
    let error = fetcher.fetch(post).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestBody);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn alpn_works_through_a_proxy_tunnel() {
    let server = AlpnServer::start(AlpnServerConfig {
        min_concurrent_requests: 20,
        ..HTTP2_SERVER
    });
    let proxy = ProxyServer::start(ProxyBehavior {
        upstream: Some(server.address()),
        ..ProxyBehavior::default()
    });
    let through = Proxy::all(format!("http://user:s3cr3t@{}", proxy.address())).unwrap();
    let fetcher = builder().proxy(through).build().unwrap();
    let results = fetcher.gather(server.urls(20)).await;
    for result in &results {
        assert_eq!(result.as_ref().unwrap().version(), Version::HTTP_2);
    }
    assert!(server.connections() == 1 || scout_timed_out(&results));
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn http2_connections_are_per_runtime() {
    let server = AlpnServer::start(HTTP2_SERVER);
    let fetcher = fetcher();
    // Finds out the protocol. The connection is closed with its runtime.
    let first = current_thread().block_on(fetcher.fetch(server.url("/")));
    assert!(first.is_ok());
    for _ in 0..2 {
        let (one, two) = (current_thread(), current_thread());
        for _ in 0..3 {
            for runtime in [&one, &two] {
                let results = runtime.block_on(fetcher.gather(server.urls(20)));
                assert!(results.iter().all(Result::is_ok), "{results:?}");
            }
        }
    }
    assert_eq!(server.connections(), 1 + 4);
}

#[test]
fn dropped_fetcher_leaves_no_tasks_or_connections() {
    let (new, old) = (
        AlpnServer::start(HTTP2_SERVER),
        AlpnServer::start(HTTP1_SERVER),
    );
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let fetcher = fetcher();
        let urls = new.urls(500).chain(old.urls(500));
        let results = fetcher.gather(urls).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        drop(fetcher);
        let servers_see = || new.open_connections.load(SeqCst) + old.open_connections.load(SeqCst);
        for _ in 0..12_000 {
            if tasks() == 0 && servers_see() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} tasks, {} connections", tasks(), servers_see());
    });
}

#[tokio::test]
async fn dropped_batch_leaves_the_shared_connection_usable() {
    let server = AlpnServer::start(AlpnServerConfig {
        min_concurrent_requests: 60,
        ..HTTP2_SERVER
    });
    let fetcher = fetcher();
    let kept = tokio::spawn(fetcher.gather(server.urls(20)));
    let dropped = tokio::spawn(fetcher.gather(server.urls(20)));
    while server.requests.load(SeqCst) < 40 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    dropped.abort();
    assert!(dropped.await.is_err());
    let more = fetcher.gather(server.urls(20)).await;
    assert!(more.iter().all(Result::is_ok), "{more:?}");
    let kept = kept.await.unwrap();
    assert!(kept.iter().all(Result::is_ok));
    assert!(server.connections() == 1 || scout_timed_out(&kept));
}
