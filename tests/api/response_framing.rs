//! Response framing: ambiguous lengths are rejected and their connections closed.
//!
//! The lines that decide where a response ends must have the strict form, beyond which only that of
//! RFC 9112, section 2.2 is accepted: line feeds without a carriage return in a head, and empty
//! lines before it. The tests of other lines are in `response_heads`.

use crate::support::raw_server::{RawResponse, RawServer};
use fanout::{ErrorKind, Fetcher, Request, Retry};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Asserts that a response is rejected and its connection closed by the client.
async fn assert_rejected(method: http::Method, response: RawResponse, case: &str) {
    let server = RawServer::responding(response);
    let fetcher = Fetcher::new();
    for round in 1..=2 {
        let request = Request::new(method.clone(), server.url("/"));
        let error = fetcher.fetch(request).await.map_err(|error| {
            assert_eq!(error.attempts().len(), 1, "{case}");
            error.kind()
        });
        assert_eq!(error.err(), Some(ErrorKind::Protocol), "{case}");
        server.wait_for_closed_by_client(round);
        assert_eq!(server.accepted_connections(), round, "{case}");
    }
}

async fn assert_accepted(raw_response: &str, body: &str) {
    let server = RawServer::responding(RawResponse::keep_alive(raw_response));
    let fetcher = Fetcher::new();
    for _ in 0..2 {
        let response = fetcher.fetch(server.url("/")).await;
        assert_eq!(response.unwrap().text(), body, "{raw_response:?}");
    }
    assert_eq!(server.accepted_connections(), 1, "{raw_response:?}");
}

const AMBIGUOUS: [&str; 30] = [
    "Content-Length: +5",
    "Content-Length: -5",
    "Content-Length: 0x5",
    "Content-Length:",
    "Content-Length: ",
    "Content-Length: 5 5",
    "Content-Length: 5;",
    "Content-Length: 5.0",
    "Content-Length: 5,",
    "Content-Length: ,5",
    "Content-Length: 5, 6",
    "Content-Length: \"5\"",
    "Content-Length: 99999999999999999999",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5\r\nContent-Length: 5\r\ncontent-length: 05x",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding: chunked\r\nContent-Length: 0",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding:",
];

#[tokio::test]
async fn ambiguous_body_length_is_rejected() {
    for fields in AMBIGUOUS {
        let raw_response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        assert_rejected(
            http::Method::GET,
            RawResponse::keep_alive(raw_response),
            fields,
        )
        .await;
    }
}

#[tokio::test]
async fn ambiguous_length_is_rejected_in_responses_without_a_body() {
    for fields in AMBIGUOUS {
        // A length above u64::MAX is rejected only if a body follows.
        if fields.ends_with("99999") {
            continue;
        }
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        assert_rejected(http::Method::HEAD, RawResponse::keep_alive(head), fields).await;
        let head = format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n\r\n");
        assert_rejected(http::Method::GET, RawResponse::keep_alive(head), fields).await;
    }
}

#[tokio::test]
async fn malformed_response_head_is_rejected() {
    for head in [
        "<html>an HTTP/0.9 response</html>\r\n\r\n",
        "HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/11 200 OK\r\nContent-Length: 0\r\n\r\n",
        "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX\0Y: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX\rY: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length\t: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n Content-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "\0\0\0\u{4}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        assert_rejected(http::Method::GET, RawResponse::keep_alive(head), head).await;
    }
}

#[tokio::test]
async fn malformed_chunks_are_rejected() {
    for chunks in [
        "10000000000000000\r\n",
        "fffffffffffffffff\r\n",
        "-1\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        ";name=value\r\n\r\n",
        "1 1\r\na\r\n0\r\n\r\n",
        "1_\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\ra\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "0\r\n\rX",
    ] {
        let raw_response = format!("{CHUNKED}{chunks}");
        assert_rejected(
            http::Method::GET,
            RawResponse::keep_alive(raw_response),
            chunks,
        )
        .await;
    }
}

#[tokio::test]
async fn endless_head_or_framing_is_rejected() {
    let head = "HTTP/1.1 200 OK\r\n";
    let trailers = format!("{CHUNKED}0\r\n");
    for (prefix, repeated) in [
        (head, "X: 0123456789012345678901234567890123456789\r\n"),
        (head, "01234567890123456789012345678901234567890123456789"),
        ("", "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        (
            &format!("{CHUNKED}1;"),
            "0123456789012345678901234567890123456789",
        ),
        (
            CHUNKED,
            "1;a=0123456789012345678901234567890123456789\r\na\r\n",
        ),
        (
            &format!("{CHUNKED}1"),
            "                                        ",
        ),
        (CHUNKED, "0000000000000000000000000000000000000000000000000"),
        (&trailers, "X: 0123456789012345678901234567890123456789\r\n"),
        (
            &trailers,
            "0123456789012345678901234567890123456789012345678",
        ),
    ] {
        let response = RawResponse::repeat(prefix, repeated.repeat(20));
        assert_rejected(
            http::Method::GET,
            response,
            &format!("{prefix:?} {repeated:?}"),
        )
        .await;
    }
}

#[tokio::test]
async fn malformed_chunks_are_rejected_in_a_handler() {
    for (chunks, repeated) in [
        ("1\r\na\r\n-1\r\n", ""),
        ("1\r\na\r\n10000000000000000\r\n", ""),
        ("1\r\na\r\n1", "                                "),
        ("1\r\na\r\n", "00000000000000000000000000000000"),
    ] {
        let raw_response = format!("{CHUNKED}{chunks}");
        let server = RawServer::responding(match repeated {
            "" => RawResponse::keep_alive(raw_response),
            repeated => RawResponse::repeat(raw_response, repeated.repeat(20)),
        });
        let fetch = Fetcher::new().fetch(server.url("/"));
        let read = fetch.read_with(|mut body| async move {
            let mut length = 0;
            while let Some(piece) = body.next().await {
                length += piece?.len();
            }
            Ok(length)
        });
        assert_eq!(
            read.await.unwrap_err().kind(),
            ErrorKind::Protocol,
            "{chunks:?}"
        );
        server.wait_for_closed_by_client(1);
    }
}

#[tokio::test]
async fn sixteen_informational_responses_are_accepted_and_seventeen_rejected() {
    let rest = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\nX: y\r\n\r\n",
        "HTTP/1.1 103 Early Hints\nLink: </a>\n\n",
        "\r\nHTTP/1.1 199 \r\n\r\n",
    ] {
        assert_accepted(&format!("{}{rest}", interim.repeat(16)), "ok").await;
        let complete = format!("{}{rest}", interim.repeat(17));
        assert_rejected(
            http::Method::GET,
            RawResponse::keep_alive(complete),
            interim,
        )
        .await;
        let incomplete = interim.repeat(17);
        assert_rejected(
            http::Method::GET,
            RawResponse::keep_alive(incomplete),
            interim,
        )
        .await;
    }
}

#[tokio::test]
async fn repeated_equal_lengths_and_optional_whitespace_are_accepted() {
    for fields in [
        "Content-Length: 2",
        "Content-Length:2",
        "Content-Length:   2",
        "Content-Length: 2 \t",
        "Content-Length: 002",
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length: 2, 2",
        "Content-Length: 2,2\r\ncontent-length: 2",
    ] {
        assert_accepted(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"), "ok").await;
    }
    for fields in [
        "Transfer-Encoding: chunked",
        "transfer-encoding:ChUnKeD",
        "Transfer-Encoding: chunked \t",
    ] {
        let chunks = "2\r\nok\r\n0\r\n\r\n";
        assert_accepted(
            &format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{chunks}"),
            "ok",
        )
        .await;
    }
    for chunks in [
        "00000000000000000002\r\nok\r\n0\r\n\r\n",
        "1;a=b\r\no\r\n1 ;c=\"d\"\r\nk\r\n0;e\r\nX: y\r\n\r\n",
    ] {
        assert_accepted(&format!("{CHUNKED}{chunks}"), "ok").await;
    }
}

#[tokio::test]
async fn bare_line_feeds_and_a_leading_empty_line_are_accepted() {
    for raw_response in [
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
        "HTTP/1.1 200\nContent-Length: 2\r\n\nok",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    ] {
        assert_accepted(raw_response, "ok").await;
    }
}

/// The surplus bytes are a smuggled response to the next request on the connection.
#[tokio::test]
async fn surplus_bytes_are_never_used_as_a_response() {
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    for (head, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "own"),
        (CHUNKED, "3\r\nown\r\n0\r\n\r\n"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", ""),
    ] {
        let own = format!("{head}{body}");
        for surplus in [surplus, "x", "\r\n", "\0"] {
            let raw_response = format!("{own}{surplus}");
            let server = RawServer::responding(RawResponse::keep_alive(raw_response));
            let fetcher = Fetcher::new();
            for round in 1..=3 {
                let response = fetcher.fetch(server.url("/")).await.unwrap();
                assert_ne!(response.text(), "smuggled");
                assert_eq!(response.attempts().len(), 1);
                assert_eq!(server.accepted_connections(), round, "{head:?} {surplus:?}");
            }
        }
    }
}

#[tokio::test]
async fn protocol_error_is_not_retried() {
    let raw_response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello";
    let server = RawServer::responding(RawResponse::keep_alive(raw_response));
    let retry = Retry::default().max_retries(5);
    let fetcher = Fetcher::builder().retry(retry).build().unwrap();
    let results = fetcher.gather(vec![server.url("/"); 3]).await;
    assert!(results.iter().all(|result| {
        let error = result.as_ref().err();
        error.is_some_and(|error| error.kind() == ErrorKind::Protocol && error.maybe_sent())
    }));
    assert_eq!(server.requests().len(), 3);
}

#[cfg(feature = "tls")]
mod over_tls {
    use super::*;
    use crate::support::server::{ServerCertificate, ca_pem, server_config};
    use std::{
        io::{Read, Write},
        net::TcpListener,
        sync::Arc,
        thread,
    };

    /// Serves one request per element, which says whether a close_notify alert is sent.
    fn start(raw_response: &'static str, close_notifies: Vec<bool>) -> String {
        let config = Arc::new(server_config(ServerCertificate::Good));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for sends_close_notify in close_notifies {
                let (tcp, _) = listener.accept().unwrap();
                let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(tls, tcp);
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                stream.write_all(raw_response.as_bytes()).unwrap();
                if sends_close_notify {
                    stream.conn.send_close_notify();
                }
                stream.flush().unwrap();
            }
        });
        format!("https://localhost:{port}/")
    }

    #[tokio::test]
    async fn close_delimited_body_requires_close_notify() {
        let fetcher = Fetcher::builder()
            .add_root_certificates(ca_pem())
            .retry(Retry::off())
            .build()
            .unwrap();
        for head in [
            "HTTP/1.1 200 OK\r\n\r\nall of it",
            "HTTP/1.0 200 OK\r\n\r\nall of it",
        ] {
            let url = start(head, vec![true, false]);
            let whole = fetcher.fetch(&url).await.unwrap();
            assert_eq!(whole.text(), "all of it");
            let error = fetcher.fetch(&url).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Truncated);
        }
        let counted = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall of it";
        let url = start(counted, vec![false]);
        assert_eq!(fetcher.fetch(&url).await.unwrap().text(), "all of it");
    }
}
