//! Response heads of real servers: malformed lines are repaired or skipped, a head is bounded by
//! its size, and an error says what is wrong with the head.

use crate::support::body_streams::{listen, read_head, write};
use crate::support::raw_server::{RawResponse, RawServer};
use fanout::{Error, ErrorKind, Fetcher, Request, Response, Retry};
use std::error::Error as _;
use std::time::Duration;

/// Fetches two times over one connection.
async fn fetch_twice(raw_response: &str) -> [Response; 2] {
    let server = RawServer::responding(RawResponse::keep_alive(raw_response));
    let fetcher = Fetcher::new();
    let first = fetcher.fetch(server.url("/")).await.unwrap();
    let second = fetcher.fetch(server.url("/")).await.unwrap();
    assert_eq!(server.accepted_connections(), 1, "{raw_response:?}");
    [first, second]
}

async fn fetch_error(response: RawResponse) -> Error {
    let server = RawServer::responding(response);
    let fetcher = Fetcher::builder().retry(Retry::off()).build().unwrap();
    let result = fetcher.fetch(server.url("/")).await;
    result.expect_err("an invalid response")
}

/// The error and its sources in one line.
fn error_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn values<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
    let values = response.headers().get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn malformed_header_lines_are_repaired_or_skipped() {
    for (lines, name, expected) in [
        ("X: a,\r\n b", "x", &["a, b"][..]),
        ("X: a\r\n\tb\r\n \r\n c", "x", &["a b c"]),
        ("X:\r\n a", "x", &["a"]),
        ("X : a", "x", &["a"]),
        ("X\t: a", "x", &["a"]),
        ("X Foo: a\r\nX: b", "x", &["b"]),
        ("no colon\r\nX: b", "x", &["b"]),
        ("nocolon\r\nX: b", "x", &["b"]),
        (": no name\r\nX: b", "x", &["b"]),
        (
            "Set-Cookie: a=d\x01o\r\nSet-Cookie: b=c",
            "set-cookie",
            &["b=c"],
        ),
        ("X: a\x7f\r\nX: b", "x", &["b"]),
        ("X : a\r\nX: b", "x", &["a", "b"]),
    ] {
        let raw_response = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\n\r\nok");
        for response in fetch_twice(&raw_response).await {
            assert_eq!(values(&response, name), expected, "{lines:?}");
            assert_eq!(response.text(), "ok", "{lines:?}");
        }
    }
}

#[tokio::test]
async fn malformed_header_line_changes_no_framing() {
    let malformed = "X Foo: a\r\nX : b";
    for (rest, body) in [
        ("Content-Length: 5\r\n\r\nhello", "hello"),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "hello",
        ),
        ("Content-Length: 0\r\n\r\n", ""),
    ] {
        let raw_response = format!("HTTP/1.1 200 OK\r\n{malformed}\r\n{rest}");
        for response in fetch_twice(&raw_response).await {
            assert_eq!(response.text(), body, "{rest:?}");
            assert_eq!(values(&response, "x"), ["b"]);
        }
    }
    let raw_response = format!("HTTP/1.1 200 OK\r\n{malformed}\r\n\r\nuntil the close");
    let server = RawServer::responding(RawResponse::close(raw_response));
    let response = Fetcher::new().fetch(server.url("/")).await.unwrap();
    assert_eq!(response.text(), "until the close");
}

#[tokio::test]
async fn malformed_header_line_of_a_response_without_a_body_is_repaired() {
    for (method, status) in [
        ("HEAD", "200 OK"),
        ("GET", "304 Not Modified"),
        ("GET", "204 No"),
    ] {
        let raw_response = format!("HTTP/1.1 {status}\r\nX : a\r\nContent-Length: 5\r\n\r\n");
        let server = RawServer::responding(RawResponse::keep_alive(raw_response));
        let fetcher = Fetcher::new();
        for _ in 0..3 {
            let method = method.parse::<http::Method>().unwrap();
            let request = Request::new(method, server.url("/"));
            let response = fetcher.fetch(request).await.unwrap();
            assert_eq!(values(&response, "x"), ["a"], "{status}");
            assert!(response.bytes().is_empty());
        }
        assert_eq!(server.accepted_connections(), 1, "{status}");
    }
}

/// The upload of the request may be incomplete, so the connection is not used again.
#[tokio::test]
async fn malformed_header_line_in_the_response_to_an_upload_is_repaired() {
    let raw_response = "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok";
    let server = RawServer::responding(RawResponse::keep_alive(raw_response));
    let fetcher = Fetcher::new();
    for round in 1..=2 {
        let request = Request::post(server.url("/")).body("upload");
        let response = fetcher.fetch(request).await.unwrap();
        assert_eq!(response.text(), "ok");
        assert_eq!(values(&response, "x"), ["a"]);
        assert_eq!(server.accepted_connections(), round);
    }
    assert_eq!(server.requests().len(), 2);
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.text().ends_with("upload"))
    );
}

#[tokio::test]
async fn status_line_with_several_spaces_is_accepted() {
    for line in ["HTTP/1.1  200 OK", "HTTP/1.1 \t200  OK", "HTTP/1.1  200"] {
        let raw_response = format!("{line}\r\nContent-Length: 2\r\nX: a\r\n\r\nok");
        for response in fetch_twice(&raw_response).await {
            assert_eq!(
                (response.status().as_u16(), response.text().as_ref()),
                (200, "ok")
            );
            assert_eq!(values(&response, "x"), ["a"]);
        }
    }
}

fn fields(count: usize) -> String {
    (0..count).map(|i| format!("X-H-{i}: v\r\n")).collect()
}

#[tokio::test]
async fn head_with_many_small_fields_is_accepted() {
    for count in [99, 100, 101, 1000, 5000] {
        let fields = fields(count);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok");
        for response in fetch_twice(&head).await {
            assert_eq!(response.headers().len(), count + 1);
            let last = format!("x-h-{}", count - 1);
            assert_eq!(values(&response, &last), ["v"]);
            assert_eq!(response.text(), "ok");
        }
    }
}

#[tokio::test]
async fn informational_head_with_many_or_malformed_fields_is_skipped() {
    for lines in [&fields(101)[..], "X: a\r\n b\r\n", "X Foo: a\r\n"] {
        let interim = format!("HTTP/1.1 103 Early Hints\r\n{lines}\r\n");
        let rest = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\nok";
        for head in [
            format!("{interim}{rest}"),
            format!("HTTP/1.1 100 Continue\r\n\r\n{interim}{interim}{rest}"),
        ] {
            for response in fetch_twice(&head).await {
                assert_eq!(response.text(), "ok");
                assert_eq!(values(&response, "x"), ["y"]);
                assert_eq!(response.headers().len(), 2);
            }
        }
    }
}

#[tokio::test]
async fn trailers_after_a_complete_body_do_not_fail_the_response() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
    for trailers in [
        "no colon\r\n",
        "X : a\r\n",
        "X Foo: a\r\n",
        "X: a\x01b\r\n",
        "X: a\0b\r\n",
        "X: a\r\n folded\r\n",
        ": no name\r\n",
        &fields(101),
        &fields(400),
    ] {
        let raw_response = format!("{chunked}{trailers}\r\n");
        let server = RawServer::responding(RawResponse::keep_alive(raw_response));
        let fetcher = Fetcher::new();
        for _ in 0..2 {
            let response = fetcher.fetch(server.url("/")).await.unwrap();
            assert_eq!(response.text(), "ok", "{trailers:?}");
            assert_eq!(response.attempts().len(), 1, "{trailers:?}");
        }
    }
}

#[tokio::test]
async fn cut_or_endless_trailers_fail_the_response() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
    let many = fields(101);
    for (response, kind) in [
        (
            RawResponse::close(format!("{chunked}X: a\r\n")),
            ErrorKind::Truncated,
        ),
        (
            RawResponse::close(format!("{chunked}{many}")),
            ErrorKind::Truncated,
        ),
        (
            RawResponse::repeat(chunked, "X: a\r\n".repeat(100)),
            ErrorKind::Protocol,
        ),
    ] {
        assert_eq!(fetch_error(response).await.kind(), kind);
    }
}

#[tokio::test]
async fn protocol_error_gives_the_line_or_the_bound_of_the_head() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for (head, expected) in [
        (
            "SSH-2.0-OpenSSH_9.6\r\n",
            "the status line of the response is invalid: \"SSH-2.0-",
        ),
        (
            "HTTP/2 200\r\n\r\n",
            "the status line of the response is invalid: \"HTTP/2 200",
        ),
        (
            &format!("{ok}X: a\r\nContent-Length : 5\r\n\r\n"),
            "line 3 of the response head",
        ),
        (
            &format!("{ok}Content-Length: 5\r\n 6\r\n\r\n"),
            "line 2 of the response head",
        ),
        (
            &format!("{ok}Transfer-Encoding:\r\n chunked\r\n\r\n"),
            "line 2 of the response head",
        ),
        (
            &format!("{ok}X: a\r\nConnection : close\r\n\r\n"),
            "line 3 of the response head",
        ),
        (
            &format!("{ok}X: a\0b\r\n\r\n"),
            "line 2 of the response head is invalid: it contains",
        ),
        (
            &format!("{ok}{}\r\n", fields(9000)),
            "the response head is larger than 256 KiB",
        ),
        (
            &format!("{ok}X: {}\r\n\r\n", "a".repeat(1 << 18)),
            "head is larger than 256 KiB",
        ),
        (
            &"HTTP/1.1 103 x\r\n\r\n".repeat(17),
            "more than 16 informational responses",
        ),
    ] {
        let error = fetch_error(RawResponse::keep_alive(head)).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{head:.80}");
        let text = error_text(&error);
        assert!(text.contains(expected), "{text:?} contains {expected:?}");
    }
}

#[tokio::test]
async fn cut_head_differs_from_no_response() {
    for (received, expected) in [
        ("", "no byte of a response arrived"),
        ("H", "the response head was cut short after 1 bytes"),
        (
            "HTTP/1.1 200 OK\r\nX: a\r\n",
            "the response head was cut short after 23 bytes",
        ),
        (
            "HTTP/1.1 200 OK\r\nX : a\r\n",
            "the response head was cut short after 24 bytes",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\n",
            "no byte arrived after an informational response",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2",
            "the response head was cut short after 10 bytes",
        ),
    ] {
        let error = fetch_error(RawResponse::close(received)).await;
        assert_eq!(error.kind(), ErrorKind::Closed, "{received:?}");
        let text = error.to_string();
        assert!(text.contains(expected), "{text:?} contains {expected:?}");
    }
}

#[tokio::test]
async fn malformed_head_is_repaired_wherever_it_is_divided() {
    let raw_response = "HTTP/1.1 103 x\r\nA : b\r\n\r\nHTTP/1.1  200 OK\r\nX : a\r\nY: b\r\n \
        c\r\nContent-Length: 2\r\n\r\nok";
    for split in 1..raw_response.len() {
        let (listener, url) = listen().await;
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            for _ in 0..2 {
                read_head(&mut socket).await;
                write(&mut socket, &raw_response[..split]).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                write(&mut socket, &raw_response[split..]).await;
            }
        });
        let fetcher = Fetcher::builder().retry(Retry::off()).build().unwrap();
        for _ in 0..2 {
            let response = fetcher.fetch(&url).await.unwrap();
            assert_eq!(response.text(), "ok", "{split}");
            assert_eq!(values(&response, "x"), ["a"], "{split}");
            assert_eq!(values(&response, "y"), ["b c"], "{split}");
        }
    }
}

/// The body of a response whose length is ambiguous may look like a response.
#[tokio::test]
async fn body_after_an_ambiguous_head_is_not_read_as_a_head() {
    let smuggled = "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 8\r\n\r\nsmuggled";
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: x",
    ] {
        for interim in ["", "HTTP/1.1 100 Continue\r\n\r\n", "\r\n"] {
            let raw_response = format!("{interim}HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{smuggled}");
            let error = fetch_error(RawResponse::keep_alive(raw_response)).await;
            assert_eq!(error.kind(), ErrorKind::Protocol, "{fields:?}");
        }
    }
}

/// After a malformed line, heads of the connection are read leniently. Surplus bytes must still not
/// be used as the response to the next request.
#[tokio::test]
async fn surplus_bytes_after_a_repaired_head_are_never_used_as_a_response() {
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    for surplus in [surplus, "x", "\r\n", "\0"] {
        let raw_response =
            format!("HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 3\r\n\r\nown{surplus}");
        let server = RawServer::responding(RawResponse::keep_alive(raw_response));
        let fetcher = Fetcher::new();
        for round in 1..=3 {
            let response = fetcher.fetch(server.url("/")).await.unwrap();
            assert_eq!(response.text(), "own");
            assert_eq!(server.accepted_connections(), round, "{surplus:?}");
        }
    }
}
