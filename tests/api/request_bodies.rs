//! Request bodies from streams and files, over real sockets.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::body_streams::{StreamEnd, TempDir, chunk_stream, listen, read_head, write};
use crate::support::server::{FaultServer, pattern_bytes, refused_url};
use fanout::{Body, ErrorKind, Fetcher, Request, Retry};
use tokio::io::AsyncReadExt;

fn stream_body(chunks: &[&'static str]) -> Body {
    Body::stream(chunk_stream(chunks, StreamEnd::End))
}

fn last_received_body(server: &FaultServer) -> Vec<u8> {
    server.log().last().unwrap().body.clone()
}

#[tokio::test]
async fn streamed_body_is_chunked_for_every_method() {
    let server = FaultServer::start();
    for method in ["POST", "PUT", "GET", "DELETE"] {
        let request = Request::new(method.parse().unwrap(), server.url("/ok/1"));
        let request = request.body(stream_body(&["one ", "", "two"]));
        let response = Fetcher::new().fetch(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(last_received_body(&server), b"one two", "{method}");
        let headers = server.log().last().unwrap().headers.clone();
        assert_eq!(headers["transfer-encoding"], "chunked");
        assert!(!headers.contains_key("content-length"));
    }
}

#[tokio::test]
async fn file_body_has_a_length_and_is_reread_for_each_attempt() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    let content = pattern_bytes(300_000);
    std::fs::write(directory.path("a"), &content).unwrap();
    let request =
        Request::put(server.url("/flaky/file/2/500")).body(Body::file(directory.path("a")));
    let response = Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (200, 3)
    );
    for entry in server.log() {
        assert_eq!(entry.headers["content-length"], "300000");
        assert!(entry.body == content);
    }
    std::fs::write(directory.path("a"), "").unwrap();
    let request = Request::put(server.url("/ok/1")).body(Body::file(directory.path("a")));
    Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(server.log().last().unwrap().headers["content-length"], "0");
}

#[tokio::test]
async fn missing_file_is_an_unsent_request_body_error() {
    let server = FaultServer::start();
    let directory = TempDir::new();
    for path in [directory.path("missing"), directory.path("")] {
        let request = Request::put(server.url("/ok/1")).body(Body::file(&path));
        let error = Fetcher::new().fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RequestBody);
        assert!(!error.maybe_sent());
        assert!(error.source().unwrap().is::<std::io::Error>());
        assert_eq!(error.attempts().len(), 1, "not retried");
    }
    assert_eq!(server.counts().requests, 0);
}

#[tokio::test]
async fn body_factory_is_called_for_each_attempt_and_for_a_307() {
    let server = FaultServer::start();
    let factory_calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&factory_calls);
    let body = Body::factory(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        chunk_stream(&["again"], StreamEnd::End)
    });
    let request = Request::put(server.url("/flaky/made/1/500")).body(body.clone());
    let response = Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            factory_calls.load(Ordering::Relaxed)
        ),
        (200, 2)
    );
    let moved = server.url("/redirect/307?to=/echo");
    let response = Fetcher::new()
        .fetch(Request::post(moved).body(body))
        .await
        .unwrap();
    assert!(response.text().contains("\"again\""));
    assert_eq!(factory_calls.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn streamed_body_is_not_repeated_and_the_error_says_so() {
    let server = FaultServer::start();
    let request = Request::put(server.url("/reset-before")).body(stream_body(&["once"]));
    let error = Fetcher::new().fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(
        error.to_string().contains("the request body is a stream"),
        "{error}"
    );
    assert_eq!(error.attempts().len(), 1);

    let request = Request::put(server.url("/status/500")).body(stream_body(&["once"]));
    let response = Fetcher::new().fetch(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.attempts().len()),
        (500, 1)
    );

    let moved = server.url("/redirect/308?to=/echo");
    let error = Fetcher::new()
        .fetch(Request::post(moved).body(stream_body(&["once"])))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
    assert!(
        error.to_string().contains("the request body is a stream"),
        "{error}"
    );

    let seen = server.url("/redirect/303?to=/ok/1");
    let response = Fetcher::new()
        .fetch(Request::post(seen).body(stream_body(&["once"])))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn unread_stream_is_retried_after_a_refused_connection() {
    let request = Request::put(refused_url())
        .body(stream_body(&["kept"]))
        .build();
    let retry = Retry::default().base_delay(Duration::from_millis(1));
    let fetcher = Fetcher::builder().retry(retry).build().unwrap();
    let error = fetcher.fetch(request.clone()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts().len()),
        (ErrorKind::Connect, 3)
    );
    let server = FaultServer::start();
    let elsewhere = Request::put(server.url("/ok/1")).body(request.body().clone());
    fetcher.fetch(elsewhere).await.unwrap();
    assert_eq!(last_received_body(&server), b"kept");
}

#[tokio::test]
async fn only_one_clone_of_a_streaming_request_is_sent() {
    let server = FaultServer::start();
    let request = Request::put(server.url("/ok/1")).body(stream_body(&["one of three"]));
    let results = Fetcher::new().gather(vec![request; 3]).await;
    let (sent, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((sent.len(), refused.len()), (1, 2));
    for error in refused.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("`Body::factory`"), "{error}");
        assert!(!error.maybe_sent());
    }
    assert_eq!(server.counts().requests, 1);
}

#[tokio::test]
async fn stream_error_or_panic_fails_its_own_input() {
    let server = FaultServer::start();
    let failing = || {
        Request::put(server.url("/ok/1"))
            .body(Body::factory(|| chunk_stream(&["a"], StreamEnd::Fail)))
    };
    let panicking = Request::put(server.url("/ok/1"))
        .body(Body::stream(chunk_stream(&["a"], StreamEnd::Panic)));
    let fetcher = Fetcher::new();
    let results = fetcher
        .gather([failing(), panicking, Request::get(server.url("/ok/2"))])
        .await;
    let [failed, panicked, succeeded] = &results[..] else {
        panic!()
    };
    let failed = failed.as_ref().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::RequestBody);
    assert_eq!(failed.source().unwrap().to_string(), "the stream failed");
    assert_eq!(failed.attempts().len(), 1);
    let panicked = panicked.as_ref().unwrap_err();
    assert_eq!(panicked.kind(), ErrorKind::Panicked);
    assert!(
        panicked.to_string().contains("the stream panicked"),
        "{panicked}"
    );
    assert_eq!(succeeded.as_ref().unwrap().status(), 200);
}

#[tokio::test]
async fn response_during_upload_is_returned_and_its_connection_closed() {
    let (listener, url) = listen().await;
    let server = tokio::spawn(async move {
        let mut connections = 0;
        for status in ["413 Content Too Large", "200 OK"] {
            let (mut socket, _) = listener.accept().await.unwrap();
            connections += 1;
            read_head(&mut socket).await;
            let response = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno");
            write(&mut socket, response).await;
            tokio::spawn(async move {
                let _ = socket.read_to_end(&mut Vec::new()).await;
            });
        }
        connections
    });
    let fetcher = Fetcher::new();
    let endless_body = Body::stream(chunk_stream(&["a beginning"], StreamEnd::Pending));
    let response = fetcher
        .fetch(Request::post(&url).body(endless_body))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.text().as_ref()),
        (413, "no")
    );
    assert_eq!(fetcher.fetch(&url).await.unwrap().status(), 200);
    assert_eq!(server.await.unwrap(), 2);
}

#[tokio::test]
async fn content_length_for_a_stream_is_rejected() {
    let request = Request::post("http://127.0.0.1:1/")
        .header("content-length", 4)
        .body(stream_body(&["four"]));
    let error = Fetcher::new().fetch(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn mock_receives_the_whole_streamed_body() {
    let mock = fanout::Mock::new().on("http://a.example/", "thanks");
    let fetcher = Fetcher::builder().transport(mock.clone()).build().unwrap();
    let request = Request::post("http://a.example/").body(stream_body(&["one ", "two"]));
    fetcher.fetch(request).await.unwrap();
    assert_eq!(mock.requests()[0].body(), "one two");
    let failing = Body::stream(chunk_stream(&["a"], StreamEnd::Fail));
    let error = fetcher
        .fetch(Request::post("http://a.example/").body(failing))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestBody);
    assert_eq!(error.source().unwrap().to_string(), "the stream failed");
}
