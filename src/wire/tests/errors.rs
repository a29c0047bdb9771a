//! The error of a failed exchange, and whether the request may have been sent.

use std::error::Error as _;

use super::*;

/// Sends a request to a server that sends `response` and closes. Returns the error, and whether
/// the request may have been sent.
async fn head_failure(response: &'static str) -> (FailedSend, bool) {
    let server = Server::responding_once(response);
    let client = Client::new();
    let failure = client.get(server.port).await.unwrap_err();
    assert_eq!(client.open_socket_count(), 0, "{response}");
    assert!(!failure.on_reused_connection);
    (failure, client.clock.maybe_sent())
}

/// Reads the body of `response`, after which the server closes. Returns the error.
async fn body_failure(response: &'static str) -> ErrorKind {
    let server = Server::responding_once(response);
    let client = Client::new();
    let (_, mut incoming) = client.get(server.port).await.unwrap();
    let kind = client.read(&mut incoming).await.unwrap_err().kind();
    assert_eq!(client.open_socket_count(), 0, "{response}");
    assert!(client.next_chunk(&mut incoming).await.is_none());
    kind
}

#[tokio::test]
async fn refused_connection_is_a_connect_error_before_sending() {
    let client = Client::new();
    let failure = client.get(refused_address().port()).await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Connect);
    let source = failure.error.source().unwrap();
    let source = source.downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(failure.no_response && failure.request.is_some());
    assert!(!client.clock.maybe_sent());
    assert_eq!(client.clock.phase(), Phase::Connect);
    assert_eq!(client.open_socket_count(), 0);
}

#[tokio::test]
async fn unresolvable_name_fails_before_sending() {
    let client = Client::new();
    let target = ConnectionTarget {
        origin: "http://nowhere.invalid:80",
        is_https: false,
        host: Host::Domain("nowhere.invalid"),
        port: 80,
        proxy: None,
    };
    let failure = client
        .send_to(target, get(), ConnectionSource::Pooled)
        .await
        .unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::HostNotFound);
    assert!(failure.no_response && failure.request.is_some());
    assert!(!client.clock.maybe_sent());
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let server = Server::responding(OK);
    let client = Client::new();
    let target = ConnectionTarget {
        origin: "http://localhost",
        is_https: false,
        host: Host::Domain("localhost"),
        port: server.port,
        proxy: None,
    };
    client
        .send_to(target, get(), ConnectionSource::Pooled)
        .await
        .unwrap();
}

#[tokio::test]
async fn close_before_any_byte_is_closed_without_response() {
    let (failure, sent) = head_failure("").await;
    assert_eq!(failure.error.kind(), ErrorKind::Closed);
    assert!(failure.no_response && failure.request.is_none() && sent);
}

#[tokio::test]
async fn close_within_the_head_is_closed_with_response() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        let (failure, sent) = head_failure(response).await;
        assert_eq!(failure.error.kind(), ErrorKind::Closed, "{response}");
        assert!(!failure.no_response && sent, "{response}");
    }
}

#[tokio::test]
async fn reset_before_the_head_is_closed() {
    let server = Server::new(|stream, _| reset(stream));
    let client = Client::new();
    let failure = client.get(server.port).await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Closed);
    assert!(failure.no_response);
}

#[tokio::test]
async fn invalid_http_is_a_protocol_error() {
    for response in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n",
    ] {
        let (failure, sent) = head_failure(response).await;
        assert_eq!(failure.error.kind(), ErrorKind::Protocol, "{response}");
        assert!(!failure.no_response && sent, "{response}");
    }
}

#[tokio::test]
async fn ambiguous_body_length_is_a_protocol_error() {
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n0\r\n\r\n");
        let (failure, _) = head_failure(response.leak()).await;
        assert_eq!(failure.error.kind(), ErrorKind::Protocol, "{fields}");
        let response = format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n\r\n");
        let (failure, _) = head_failure(response.leak()).await;
        assert_eq!(failure.error.kind(), ErrorKind::Protocol, "304 {fields}");
    }
}

#[tokio::test]
async fn repeated_equal_content_length_is_accepted() {
    for fields in [
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length: 2, 2",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok");
        let server = Server::responding_once(response.leak());
        assert_eq!(Client::new().fetch(server.port).await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn endless_head_is_a_protocol_error() {
    for endless in [
        "X: 0123456789012345678901234567890123456789\r\n",
        "HTTP/1.1 103 Hints\r\n\r\n",
    ] {
        let server = Server::new(move |mut stream, _| {
            read_head(&mut stream);
            if endless.starts_with('X') {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            }
            while stream.write_all(endless.repeat(100).as_bytes()).is_ok() {}
        });
        let client = Client::new();
        let failure = client.get(server.port).await.unwrap_err();
        assert_eq!(failure.error.kind(), ErrorKind::Protocol, "{endless}");
        assert_eq!(client.open_socket_count(), 0);
    }
}

#[tokio::test]
async fn informational_responses_are_skipped() {
    let server = Server::responding(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let client = Client::new();
    for _ in 0..2 {
        assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn body_that_ends_early_is_truncated() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        assert_eq!(
            body_failure(response).await,
            ErrorKind::Truncated,
            "{response}"
        );
    }
}

#[tokio::test]
async fn invalid_chunk_is_a_protocol_error() {
    for chunks in [
        "xyz\r\n",
        "5\r\nhelloworld",
        "ffffffffffffffffff\r\n",
        "5;a\nb\r\n",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(
            body_failure(response.leak()).await,
            ErrorKind::Protocol,
            "{chunks}"
        );
    }
}

#[tokio::test]
async fn reset_within_the_body_is_a_reset() {
    let server = Server::new(|mut stream, _| {
        respond(
            &mut stream,
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        );
        // Leaves the request body unread.
        reset(stream);
    });
    let client = Client::new();
    // The server does not read the body, which is small enough to be sent at once.
    let (_, mut incoming) = client
        .send(server.port, request("POST", Body::from("unread")))
        .await
        .unwrap();
    let kind = client.read(&mut incoming).await.unwrap_err().kind();
    assert_eq!(kind, ErrorKind::Reset);
}

#[tokio::test]
async fn close_ends_a_body_without_length() {
    let server = Server::responding_once("HTTP/1.1 200 OK\r\n\r\nall of it");
    let client = Client::new();
    assert_eq!(client.fetch(server.port).await.unwrap(), "all of it");
    assert_eq!(
        (client.idle_connections(), client.open_socket_count()),
        (0, 0)
    );
}

#[tokio::test]
async fn response_to_head_has_no_body_despite_its_content_length() {
    let server = Server::responding("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    let client = Client::new();
    for _ in 0..2 {
        let (_, incoming) = client
            .send(server.port, request("HEAD", Body::default()))
            .await
            .unwrap();
        assert_eq!(incoming.remaining_length(), Some(0));
    }
    assert_eq!(server.accepted(), 1);
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn https_without_the_tls_feature_is_an_invalid_request() {
    let client = Client::new();
    let target = ConnectionTarget {
        origin: "https://localhost",
        is_https: true,
        host: Host::Domain("localhost"),
        port: 443,
        proxy: None,
    };
    let failure = client
        .send_to(target, get(), ConnectionSource::Pooled)
        .await
        .unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::InvalidRequest);
    assert!(failure.error.source().is_some() && !client.clock.maybe_sent());
}

#[tokio::test]
async fn response_head_timeout_runs_from_the_last_sent_byte() {
    let (response, may_respond) = std::sync::mpsc::channel::<()>();
    let may_respond = std::sync::Mutex::new(may_respond);
    let server = Server::new(move |mut stream, _| {
        read_head(&mut stream);
        thread::sleep(Duration::from_millis(20));
        let mut rest = vec![0; 16 << 20];
        stream.read_exact(&mut rest).unwrap();
        may_respond.lock().unwrap().recv().unwrap();
        stream.write_all(OK.as_bytes()).unwrap();
    });
    let client = Client::new();
    let upload = request("POST", Body::from(vec![0; 16 << 20]));
    let clock = &client.clock;
    let has_activity = || {
        clock.phase() == Phase::ResponseHead
            && clock.timestamps().last_activity_at > clock.timestamps().connected_at
    };
    let (sent, ()) = tokio::join!(client.send(server.port, upload), async {
        eventually("activity is recorded while the body is sent", has_activity).await;
        response.send(()).unwrap();
    });
    assert!(sent.is_ok());
}

#[tokio::test]
async fn head_of_more_than_256_kib_is_a_protocol_error() {
    for (lines, is_rejected) in [(20, false), (30, true), (90, true)] {
        let line = format!("x-filler: {}\r\n", "x".repeat(10_000));
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\nok",
            line.repeat(lines)
        );
        let server = Server::new(move |mut stream, _| while respond(&mut stream, &response) {});
        let client = Client::new();
        match client.get(server.port).await {
            Ok(_) => assert!(!is_rejected, "{lines} lines"),
            Err(lost) => {
                assert!(is_rejected, "{lines} lines: {:?}", lost.error);
                assert_eq!(lost.error.kind(), ErrorKind::Protocol);
                assert_eq!(client.open_socket_count(), 0);
            }
        }
    }
}
