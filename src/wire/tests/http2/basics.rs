//! Requests and responses over HTTP/2.

use http::Version;

use super::*;

#[tokio::test]
async fn a_response_has_a_head_and_a_body() {
    let server = Http2Server::responding(100, 0);
    let client = prior_knowledge_client();
    let (head, mut incoming) = client.get(server.port).await.unwrap();
    assert_eq!(
        (head.status, head.version),
        (StatusCode::OK, Version::HTTP_2)
    );
    assert_eq!(client.read(&mut incoming).await.unwrap(), "ok");
    assert!(client.clock.maybe_sent());
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_request_is_converted_to_http2() {
    let server = Http2Server::with_responder(100, |request, mut respond| {
        Box::pin(async move {
            let (head, mut body) = request.into_parts();
            assert!(!head.headers.contains_key("host"));
            assert!(!head.headers.contains_key("connection"));
            assert_eq!(head.uri, "http://test/");
            assert_eq!(head.headers["content-length"], "300000");
            let mut length = 0;
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                length += data.len();
            }
            let mut sending = respond.send_response(ok(), false).unwrap();
            sending
                .send_data(length.to_string().into_bytes().into(), true)
                .unwrap();
        })
    });
    let client = prior_knowledge_client();
    let mut request = request("POST", Body::from(vec![b'x'; 300_000]));
    request
        .headers_mut()
        .insert("connection", "keep-alive".parse().unwrap());
    let (_, mut incoming) = client.send(server.port, request).await.unwrap();
    assert_eq!(client.read(&mut incoming).await.unwrap(), "300000");
}

#[tokio::test]
async fn an_early_response_ends_the_upload() {
    let server = Http2Server::with_responder(100, |_, respond| {
        Box::pin(async move { respond_ok(respond) })
    });
    let client = prior_knowledge_client();
    let request = request("POST", Body::from(vec![b'x'; 3_000_000]));
    let (_, mut incoming) = client.send(server.port, request).await.unwrap();
    assert_eq!(client.read(&mut incoming).await.unwrap(), "ok");
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_response_without_a_body_ends_its_stream() {
    let server = Http2Server::with_responder(1, |_, mut respond| {
        Box::pin(async move {
            let mut response = ok();
            *response.status_mut() = StatusCode::NO_CONTENT;
            respond.send_response(response, true).unwrap();
        })
    });
    let client = prior_knowledge_client();
    for _ in 0..3 {
        let (head, incoming) = client.get(server.port).await.unwrap();
        assert_eq!(head.status, StatusCode::NO_CONTENT);
        assert_eq!(incoming.remaining_length(), Some(0));
        // The stream is released although the body is neither read nor dropped.
        std::mem::forget(incoming);
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn remaining_length_decreases_as_the_body_is_read() {
    let server = Http2Server::with_responder(100, |_, mut respond| {
        Box::pin(async move {
            let mut response = ok();
            response.headers_mut().insert("content-length", 10.into());
            let mut body = respond.send_response(response, false).unwrap();
            body.send_data(Bytes::from_static(b"four"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            body.send_data(Bytes::from_static(b"sixsix"), true).unwrap();
        })
    });
    let client = prior_knowledge_client();
    let (_, mut incoming) = client.get(server.port).await.unwrap();
    assert_eq!(incoming.remaining_length(), Some(10));
    client.next_chunk(&mut incoming).await.unwrap().unwrap();
    assert_eq!(incoming.remaining_length(), Some(6));
    assert_eq!(client.read(&mut incoming).await.unwrap(), "sixsix");
    assert_eq!(incoming.remaining_length(), Some(0));
}

#[tokio::test]
async fn trailers_are_ignored_and_the_connection_is_reused() {
    let server = Http2Server::with_responder(1, |_, mut respond| {
        Box::pin(async move {
            let mut body = respond.send_response(ok(), false).unwrap();
            body.send_data(Bytes::from_static(b"ok"), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-check", "sum".parse().unwrap());
            body.send_trailers(trailers).unwrap();
        })
    });
    let client = prior_knowledge_client();
    for _ in 0..3 {
        assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn plain_http_uses_http1_without_prior_knowledge() {
    let server = Server::responding(OK);
    let client = Client::new();
    let (head, _) = client.get(server.port).await.unwrap();
    assert_eq!(head.version, Version::HTTP_11);
}
