//! Many streams on few connections, each with its own window and its own end.

use super::*;

/// Answers once so many requests are there at the same time.
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
async fn as_many_connections_are_opened_as_the_limit_on_streams_asks_for() {
    for (streams, connections) in [(1, 100), (10, 10), (99, 2), (100, 1), (1000, 1)] {
        let server = respond_after_arrivals(100, streams);
        let client = prior_knowledge_client();
        for answer in client.fetch_many(server.port, 100).await {
            assert_eq!(answer.unwrap(), "ok", "{streams} streams");
        }
        assert_eq!(server.accepted(), connections, "{streams} streams");
    }
}

#[tokio::test]
async fn a_freed_stream_is_used_again_and_the_oldest_connection_first() {
    let server = Http2Server::responding(3, 0);
    let client = prior_knowledge_client();
    for _ in 0..20 {
        for answer in client.fetch_many(server.port, 3).await {
            assert_eq!(answer.unwrap(), "ok");
        }
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_server_that_allows_no_streams_is_no_concern_of_others() {
    let none = Http2Server::responding(0, 0);
    let server = Http2Server::responding(10, 0);
    let client = prior_knowledge_client();
    let hanging = tokio::time::timeout(Duration::from_millis(100), client.fetch_many(none.port, 5));
    // Refused, or never answered.
    for answer in hanging.await.unwrap_or_default() {
        assert_eq!(answer.unwrap_err(), ErrorKind::Closed);
    }
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert!(none.accepted() <= 5);
}

/// Sends as many bytes as the client's windows let it, and counts them.
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
async fn fifty_readers_that_do_not_read_hold_up_nobody() {
    const LENGTH: usize = 10_000_000;
    let (server, bytes_sent) = large_body_server(LENGTH);
    let client = prior_knowledge_client();
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(client.get(server.port).await.unwrap().1);
    }
    assert_eq!(client.fetch(server.port).await.unwrap().len(), LENGTH);
    // Each of them has at most its window waiting.
    assert!(bytes_sent.load(SeqCst) <= LENGTH + 50 * (1 << 20));
    for mut incoming in slow.drain(..3) {
        assert_eq!(client.read(&mut incoming).await.unwrap().len(), LENGTH);
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_dropped_exchange_resets_its_stream_and_no_other() {
    let [resets, posts, finish] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&resets), Arc::clone(&posts), Arc::clone(&finish));
    let server = Http2Server::with_responder(2, move |request, mut respond| {
        let (counter, posts, finish) = counters.clone();
        Box::pin(async move {
            if request.method() == "POST" {
                posts.fetch_add(1, SeqCst);
                // Never answered.
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
                () = eventually("the client is done", || finish.load(SeqCst) == 1) => {
                    let _ = body.send_data(Bytes::from_static(b" and done"), true);
                }
            }
        })
    });
    let client = prior_knowledge_client();
    let (_, mut kept) = client.get(server.port).await.unwrap();
    let (_, dropped) = client.get(server.port).await.unwrap();
    drop(dropped);
    eventually("the server hears of it", || resets.load(SeqCst) == 1).await;
    tokio::select! {
        _ = client.send(server.port, request("POST", Body::default())) => {
            panic!("there is no response")
        }
        () = eventually("the request arrives", || posts.load(SeqCst) == 1) => {}
    }
    eventually("the server hears of it", || resets.load(SeqCst) == 2).await;
    finish.store(1, SeqCst);
    assert_eq!(client.read(&mut kept).await.unwrap(), "begun and done");
    assert_eq!(server.accepted(), 1, "both streams were free again");
}

#[tokio::test]
async fn thousands_of_dropped_bodies_do_not_end_the_connection() {
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
