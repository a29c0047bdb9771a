//! Concurrent streams: connection count, flow control and resets.

use super::*;

/// A server that responds once `count` requests are open at the same time.
fn respond_after_arrivals(count: usize, streams: u32) -> Http2Server {
    let arrived = Arc::new(AtomicUsize::new(0));
    Http2Server::with_responder(streams, move |_, respond| {
        let arrived = Arc::clone(&arrived);
        Box::pin(async move {
            arrived.fetch_add(1, SeqCst);
            while arrived.load(SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            respond_ok(respond);
        })
    })
}

#[tokio::test]
async fn the_stream_limit_determines_the_number_of_connections() {
    for (streams, connections) in [(1, 100), (10, 10), (99, 2), (100, 1), (1000, 1)] {
        let server = respond_after_arrivals(100, streams);
        let client = prior_knowledge_client();
        for result in client.fetch_many(server.port, 100).await {
            assert_eq!(result.unwrap(), "ok", "{streams} streams");
        }
        assert_eq!(server.accepted(), connections, "{streams} streams");
    }
}

#[tokio::test]
async fn ended_streams_are_reused_before_a_connection_is_opened() {
    let server = Http2Server::responding(3, 0);
    let client = prior_knowledge_client();
    for _ in 0..20 {
        for result in client.fetch_many(server.port, 3).await {
            assert_eq!(result.unwrap(), "ok");
        }
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_server_that_allows_no_streams_does_not_affect_other_servers() {
    let none = Http2Server::responding(0, 0);
    let server = Http2Server::responding(10, 0);
    let client = prior_knowledge_client();
    let hanging = tokio::time::timeout(Duration::from_millis(100), client.fetch_many(none.port, 5));
    // A request is refused or gets no response.
    for result in hanging.await.unwrap_or_default() {
        assert_eq!(result.unwrap_err(), ErrorKind::Closed);
    }
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert!(none.accepted() <= 5);
}

/// Sends `left` bytes as the client's windows allow, and counts them in `bytes_sent`.
async fn send_body(mut body: h2::SendStream<Bytes>, mut left: usize, bytes_sent: Arc<AtomicUsize>) {
    while left > 0 {
        body.reserve_capacity(left.min(1 << 16));
        let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
            return;
        };
        let part = room.min(left);
        left -= part;
        bytes_sent.fetch_add(part, SeqCst);
        if body.send_data(vec![b'x'; part].into(), left == 0).is_err() {
            return;
        }
    }
}

fn large_body_server(length: usize) -> (Http2Server, Arc<AtomicUsize>) {
    let bytes_sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&bytes_sent);
    let server = Http2Server::with_responder(200, move |_, mut respond| {
        let counter = Arc::clone(&counter);
        Box::pin(async move {
            if let Ok(body) = respond.send_response(ok(), false) {
                send_body(body, length, counter).await;
            }
        })
    });
    (server, bytes_sent)
}

#[tokio::test]
async fn unread_bodies_do_not_block_other_streams() {
    const LENGTH: usize = 10_000_000;
    let (server, bytes_sent) = large_body_server(LENGTH);
    let client = prior_knowledge_client();
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(client.get(server.port).await.unwrap().1);
    }
    assert_eq!(client.fetch(server.port).await.unwrap().len(), LENGTH);
    // An unread body has at most one stream window in flight.
    assert!(bytes_sent.load(SeqCst) <= LENGTH + 50 * (1 << 20));
    for mut incoming in slow.drain(..3) {
        assert_eq!(client.read(&mut incoming).await.unwrap().len(), LENGTH);
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn dropping_an_exchange_resets_only_its_stream() {
    let [resets, posts, finish] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&resets), Arc::clone(&posts), Arc::clone(&finish));
    let server = Http2Server::with_responder(2, move |request, mut respond| {
        let (counter, posts, finish) = counters.clone();
        Box::pin(async move {
            if request.method() == "POST" {
                posts.fetch_add(1, SeqCst);
                // Sends no response until the client resets the stream.
                let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                assert_eq!(reason.unwrap(), h2::Reason::CANCEL);
                counter.fetch_add(1, SeqCst);
                return;
            }
            let mut body = respond.send_response(ok(), false).unwrap();
            body.send_data(Bytes::from_static(b"begun"), false).unwrap();
            tokio::select! {
                reason = std::future::poll_fn(|cx| body.poll_reset(cx)) => {
                    assert_eq!(reason.unwrap(), h2::Reason::CANCEL);
                    counter.fetch_add(1, SeqCst);
                }
                () = eventually("both resets have arrived", || finish.load(SeqCst) == 1) => {
                    let _ = body.send_data(Bytes::from_static(b" and done"), true);
                }
            }
        })
    });
    let client = prior_knowledge_client();
    let (_, mut kept) = client.get(server.port).await.unwrap();
    let (_, dropped) = client.get(server.port).await.unwrap();
    drop(dropped);
    eventually("the server receives the reset", || resets.load(SeqCst) == 1).await;
    tokio::select! {
        _ = client.send(server.port, request("POST", Body::default())) => {
            panic!("there is no response")
        }
        () = eventually("the request arrives", || posts.load(SeqCst) == 1) => {}
    }
    eventually("the server receives the reset", || resets.load(SeqCst) == 2).await;
    finish.store(1, SeqCst);
    assert_eq!(client.read(&mut kept).await.unwrap(), "begun and done");
    assert_eq!(server.accepted(), 1, "both streams were reused");
}

#[tokio::test]
async fn thousands_of_dropped_bodies_do_not_close_the_connection() {
    let (server, _) = large_body_server(100_000);
    let client = prior_knowledge_client();
    let (_, mut kept) = client.get(server.port).await.unwrap();
    for _ in 0..30 {
        let mut some = Vec::new();
        for _ in 0..100 {
            some.push(client.get(server.port).await.unwrap().1);
        }
    }
    assert_eq!(client.read(&mut kept).await.unwrap().len(), 100_000);
    assert_eq!(client.fetch(server.port).await.unwrap().len(), 100_000);
    assert_eq!(server.accepted(), 1);
}
