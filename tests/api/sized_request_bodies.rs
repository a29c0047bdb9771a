//! Request bodies of known length: sized streams and ranges of files, over real sockets.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[cfg(all(feature = "http2", feature = "tls"))]
use crate::support::alpn_server::{AlpnServer, PLAINTEXT_SERVER};
use crate::support::body_streams::{
    IntervalStream, StreamEnd, TempDir, chunk_stream, listen, read_head, wait_until, write,
};
use crate::support::server::{FaultServer, pattern_bytes};
use bytes::Bytes;
use fanout::{Body, ErrorKind, Fetcher, Request, Retry, Timeouts};
use tokio::io::AsyncReadExt;

/// A body of 6 bytes in chunks of any number, and bodies that differ from the announced 6 bytes.
const COMPLETE: [&[&str]; 4] = [
    &["sixsix"],
    &["six", "six"],
    &["", "s", "ix", "", "six", "", ""],
    &["s", "i", "x", "s", "i", "x"],
];
const WRONG_LENGTH: [&[&str]; 8] = [
    &[],
    &[""],
    &["sixsi"],
    &["six", "", "si"],
    &["sixsix", "x"],
    &["six", "sixx"],
    &["six", "six", "", "six"],
    &["sixsixsix"],
];

fn sized(chunks: &[&'static str]) -> Body {
    Body::sized_stream(6, chunk_stream(chunks, StreamEnd::End))
}

#[tokio::test]
async fn sized_stream_states_its_length_for_every_method() {
    let server = FaultServer::start();
    for method in ["POST", "PUT", "GET", "DELETE"] {
        for chunks in COMPLETE {
            let request = Request::new(method.parse().unwrap(), server.url("/ok/1"));
            let response = Fetcher::new().fetch(request.body(sized(chunks))).await;
            assert_eq!(response.unwrap().status(), 200);
            let received = server.log().last().unwrap().clone();
            assert_eq!(received.body, b"sixsix", "{method} {chunks:?}");
            assert_eq!(received.headers["content-length"], "6");
            assert!(!received.headers.contains_key("transfer-encoding"));
        }
    }
}

/// Starts a server that reads one connection after another and responds to no request. Returns its
/// URL and the bodies that it has received until each connection was closed.
async fn start_reading_server() -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let (listener, url) = listen().await;
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let received = Arc::clone(&bodies);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let head = read_head(&mut socket).await;
            // The client closes the connection at once if the first poll of the stream fails.
            assert!(
                head.is_empty() || head.contains("content-length: 6\r\n"),
                "{head}"
            );
            let mut body = Vec::new();
            let _ = socket.read_to_end(&mut body).await;
            received.lock().unwrap().push(body);
        }
    });
    (url, bodies)
}

#[tokio::test]
async fn stream_of_another_length_is_never_a_complete_request() {
    let (url, bodies) = start_reading_server().await;
    let fetcher = Fetcher::new();
    for chunks in WRONG_LENGTH {
        let error = fetcher.fetch(Request::put(&url).body(sized(chunks))).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestBody, "{chunks:?}");
        let is_longer = chunks.concat().len() > 6;
        let comparison = if is_longer { "longer" } else { "shorter" };
        let detail = format!("the body stream is {comparison} than its announced 6 bytes");
        assert!(error.to_string().contains(&detail), "{error}");
        assert_eq!(error.attempts().len(), 1, "not retried");
    }
    // The server reads a connection to its end before it accepts the next one.
    wait_until(|| bodies.lock().unwrap().len() >= WRONG_LENGTH.len()).await;
    for (received, chunks) in bodies.lock().unwrap().iter().zip(WRONG_LENGTH) {
        assert!(received.len() < 6, "{chunks:?}");
        assert!(chunks.concat().as_bytes().starts_with(received));
    }
}

#[cfg(all(feature = "http2", feature = "tls"))]
#[tokio::test]
async fn http2_stream_of_another_length_is_reset_and_others_go_on() {
    let server = AlpnServer::start(PLAINTEXT_SERVER);
    let fetcher = Fetcher::builder().http2_prior_knowledge().build().unwrap();
    for chunks in WRONG_LENGTH {
        let request = Request::put(server.url("/wrong")).body(sized(chunks));
        let error = fetcher.fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestBody, "{chunks:?}");
    }
    for chunks in COMPLETE {
        let request = Request::put(server.url("/right")).body(sized(chunks));
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(response.text(), "sixsix");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn failed_sized_stream_is_not_reported_as_a_wrong_length() {
    let server = FaultServer::start();
    let failing = Body::sized_stream(6, chunk_stream(&["six"], StreamEnd::Fail));
    let request = Request::put(server.url("/ok/1")).body(failing);
    let error = Fetcher::new().fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestBody);
    assert_eq!(error.source().unwrap().to_string(), "the stream failed");
    let panicking = Body::sized_stream(6, chunk_stream(&["sixsix"], StreamEnd::Panic));
    let request = Request::put(server.url("/ok/1")).body(panicking);
    let error = Fetcher::new().fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(server.counts().requests, 0);
}

#[tokio::test]
async fn last_chunk_is_sent_when_the_stream_has_ended() {
    let server = FaultServer::start();
    let slow = IntervalStream::new(Duration::from_millis(20), 3, || Bytes::from_static(b"si"));
    let request = Request::put(server.url("/ok/1")).body(Body::sized_stream(6, slow));
    assert_eq!(Fetcher::new().fetch(request).await.unwrap().status(), 200);
    assert_eq!(server.log().last().unwrap().body, b"sisisi");

    let (url, bodies) = start_reading_server().await;
    let unended = Body::sized_stream(6, chunk_stream(&["six", "six"], StreamEnd::Pending));
    let timeouts = Timeouts::default().response_head(Duration::from_millis(50));
    let fetcher = Fetcher::builder().timeouts(timeouts).retry(Retry::off());
    let result = fetcher
        .build()
        .unwrap()
        .fetch(Request::put(url).body(unended));
    assert_eq!(
        result.await.unwrap_err().kind(),
        ErrorKind::ResponseHeadTimeout
    );
    wait_until(|| !bodies.lock().unwrap().is_empty()).await;
    assert_eq!(*bodies.lock().unwrap(), [b"six"]);
}

#[tokio::test]
async fn sized_factory_makes_a_stream_for_each_attempt() {
    let server = FaultServer::start();
    let body = Body::sized_factory(6, || chunk_stream(&["six", "six"], StreamEnd::End));
    let request = Request::put(server.url("/flaky/sized/2/500")).body(body);
    let response = Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(response.attempts().len(), 3);
    for received in server.log() {
        assert_eq!(received.body, b"sixsix");
        assert_eq!(received.headers["content-length"], "6");
    }
}

#[tokio::test]
async fn empty_sized_stream_has_length_zero() {
    let server = FaultServer::start();
    let empty = |chunks: &[&'static str]| {
        let body = Body::sized_stream(0, chunk_stream(chunks, StreamEnd::End));
        Fetcher::new().fetch(Request::put(server.url("/ok/1")).body(body))
    };
    for chunks in [&[][..], &["", ""]] {
        assert_eq!(empty(chunks).await.unwrap().status(), 200);
        assert_eq!(server.log().last().unwrap().headers["content-length"], "0");
    }
    let error = empty(&["not empty"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestBody);
    assert!(
        error
            .to_string()
            .contains("longer than its announced 0 bytes")
    );
    assert!(!error.maybe_sent());
    assert_eq!(server.counts().requests, 2);
}

#[tokio::test]
async fn stated_content_length_must_be_that_of_the_sized_stream() {
    let server = FaultServer::start();
    for (stated, is_accepted) in [(6, true), (5, false), (7, false)] {
        let request = Request::put(server.url("/ok/1")).header("content-length", stated);
        let result = Fetcher::new().fetch(request.body(sized(&["sixsix"]))).await;
        let expected = (!is_accepted).then_some(ErrorKind::InvalidRequest);
        assert_eq!(result.err().map(|error| error.kind()), expected, "{stated}");
    }
}

#[tokio::test]
async fn connection_is_reused_after_a_sized_stream() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    for chunks in COMPLETE {
        let request = Request::put(server.url("/ok/1")).body(sized(chunks));
        fetcher.fetch(request).await.unwrap();
    }
    assert_eq!(server.counts().total_connections, 1);
}

#[tokio::test]
async fn file_range_is_sent_with_its_length() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    let path = directory.path("file");
    let content = pattern_bytes(300_000);
    std::fs::write(&path, &content).unwrap();
    for (body, expected) in [
        (Body::file_range(&path, ..), &content[..]),
        (Body::file_range(&path, 0..1), &content[..1]),
        (Body::file_range(&path, 7..150_007), &content[7..150_007]),
        (Body::file_range(&path, 299_999..), &content[299_999..]),
        (Body::file_range(&path, 100_000..), &content[100_000..]),
        (Body::file_range(&path, ..=200_000), &content[..=200_000]),
        (Body::file_range(&path, 300_000..), &[]),
        (Body::file_range(&path, 5..5), &[]),
        (
            Body::file_range(&path, 200_000..300_000),
            &content[200_000..],
        ),
    ] {
        let request = Request::put(server.url("/ok/1")).body(body.clone());
        Fetcher::new().fetch(request).await.unwrap();
        let received = server.log().last().unwrap().clone();
        assert!(received.body == expected, "{body:?}");
        let length = expected.len().to_string();
        assert_eq!(
            received.headers["content-length"],
            length.as_str(),
            "{body:?}"
        );
    }
}

#[tokio::test]
async fn parts_of_a_file_are_uploaded_concurrently_and_retried() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    let path = directory.path("file");
    let content = pattern_bytes(1_000_000);
    std::fs::write(&path, &content).unwrap();
    let parts = content.chunks(300_000).enumerate().map(|(number, part)| {
        let start = number as u64 * 300_000;
        let body = Body::file_range(&path, start..start + part.len() as u64);
        Request::put(server.url(&format!("/flaky/part{number}/1/503"))).body(body)
    });
    let results = Fetcher::new().gather(parts).await;
    for result in results {
        let response = result.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.attempts().len()),
            (200, 2)
        );
    }
    for received in server.log() {
        let number: usize = received.path["/flaky/part".len()..][..1].parse().unwrap();
        assert!(
            received.body == content.chunks(300_000).nth(number).unwrap(),
            "{number}"
        );
    }
    assert_eq!(server.counts().requests, 8);
}

#[tokio::test]
async fn range_outside_of_the_file_is_an_unsent_error() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    let path = directory.path("file");
    std::fs::write(&path, "sixsix").unwrap();
    let outside = [
        Body::file_range(&path, 0..7),
        Body::file_range(&path, ..=6),
        Body::file_range(&path, 7..),
        Body::file_range(&path, 7..7),
        Body::file_range(&path, 6..=6),
        Body::file_range(&path, ..=u64::MAX),
        Body::file_range(&path, u64::MAX..),
    ];
    for body in outside {
        let request = Request::put(server.url("/ok/1")).body(body.clone());
        let error = Fetcher::new().fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestBody, "{body:?}");
        assert!(!error.maybe_sent(), "{body:?}");
        let source = error.source().unwrap().to_string();
        assert!(
            source.contains("is not within the 6 bytes of the file"),
            "{source}"
        );
    }
    assert_eq!(server.counts().requests, 0);
}

#[tokio::test]
async fn response_before_the_end_of_a_sized_stream_is_returned_and_its_connection_closed() {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        for status in ["413 Content Too Large", "200 OK"] {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_head(&mut socket).await;
            let response = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno");
            write(&mut socket, response).await;
            tokio::spawn(async move {
                let _ = socket.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    let fetcher = Fetcher::new();
    let unended = Body::sized_stream(6, chunk_stream(&["six"], StreamEnd::Pending));
    let response = fetcher
        .fetch(Request::put(&url).body(unended))
        .await
        .unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(fetcher.fetch(&url).await.unwrap().status(), 200);
}
