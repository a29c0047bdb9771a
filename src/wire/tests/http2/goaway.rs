//! GOAWAY and refused streams: which requests count as unprocessed.

use std::future::poll_fn;
use std::task::Poll;

use h2::Reason;

use super::frames::{Frames, HEADERS};
use super::*;
use crate::wire::RefusalReason;

#[tokio::test]
async fn a_graceful_goaway_lets_streams_finish_and_diverts_new_requests() {
    let [goaway_sent, second_done] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let (sent, done) = (Arc::clone(&goaway_sent), Arc::clone(&second_done));
    let server = Http2Server::with_connection_handler(move |stream, nth| {
        let (sent, done) = (Arc::clone(&sent), Arc::clone(&done));
        async move {
            let mut connection: ServerConnection = server::handshake(stream).await.unwrap();
            let Some(Ok((_, respond))) = connection.accept().await else {
                return;
            };
            if nth > 0 {
                respond_ok(respond);
                return serve_until_closed(connection).await;
            }
            connection.graceful_shutdown();
            tokio::spawn(async move {
                eventually("the second request is done", || done.load(SeqCst) == 1).await;
                respond_ok(respond);
            });
            // The first poll writes the GOAWAY frame.
            let _ = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await;
            sent.store(1, SeqCst);
            serve_until_closed(connection).await;
        }
    });
    let client = prior_knowledge_client();
    let other = HopClock::new(Instant::now());
    let first = client.fetch(server.port);
    let second = async {
        eventually("the GOAWAY is sent", || goaway_sent.load(SeqCst) == 1).await;
        // Waits until the client has read the frame.
        tokio::time::sleep(Duration::from_millis(200)).await;
        other.reset_for_new_hop(Instant::now());
        let origin = format!("http://127.0.0.1:{}", server.port);
        let target = plain_target(&origin, server.port);
        let mut sticky_connection = StickyConnection::default();
        let (_, mut body) = client
            .wire
            .send(
                &target,
                &mut Some(get()),
                ConnectionSource::Pooled,
                &other,
                &mut sticky_connection,
            )
            .await
            .unwrap();
        let chunk = body
            .next_chunk(&other, &mut sticky_connection)
            .await
            .unwrap()
            .unwrap();
        second_done.store(1, SeqCst);
        chunk
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.unwrap(), second), ("ok".into(), "ok".into()));
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn streams_above_the_last_id_are_unprocessed_and_those_below_complete() {
    let server = Http2Server::with_connection_handler(|stream, _| async move {
        let mut frames = Frames::handshake(stream).await;
        let first = frames.read_until(HEADERS).await;
        let second = frames.read_until(HEADERS).await;
        assert!(first < second);
        frames.go_away(first, Reason::NO_ERROR).await;
        frames.respond(first).await;
        frames.drain().await;
    });
    let client = prior_knowledge_client();
    let (one, two) = tokio::join!(post(&client, server.port), post(&client, server.port));
    assert_eq!(one.unwrap(), StatusCode::OK);
    let (failure, sent) = two.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Closed);
    assert!(failure.unprocessed && failure.no_response && !sent);
    assert_eq!(refusal_reason(&failure), Some(RefusalReason::Shutdown));
}

fn refusal_reason(failure: &SendError) -> Option<RefusalReason> {
    failure
        .refusal
        .as_ref()
        .map(|refusal| refusal.refusal_reason)
}

async fn post(client: &Client, port: u16) -> Result<StatusCode, (SendError, bool)> {
    let clock = HopClock::new(Instant::now());
    clock.reset_for_new_hop(Instant::now());
    let origin = format!("http://127.0.0.1:{port}");
    let request = request("POST", Body::from("body"));
    let sent = client
        .wire
        .send(
            &plain_target(&origin, port),
            &mut Some(request),
            ConnectionSource::Pooled,
            &clock,
            &mut StickyConnection::default(),
        )
        .await;
    match sent {
        Ok((head, _)) => Ok(head.status),
        Err(failure) => Err((failure, clock.maybe_sent())),
    }
}

#[tokio::test]
async fn streams_covered_by_an_abrupt_goaway_may_have_been_processed() {
    let server = Http2Server::with_connection_handler(|stream, _| async move {
        let mut frames = Frames::handshake(stream).await;
        let first = frames.read_until(HEADERS).await;
        frames.go_away(first, Reason::INTERNAL_ERROR).await;
    });
    let (failure, sent) = post(&prior_knowledge_client(), server.port)
        .await
        .unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Closed);
    assert!(!failure.unprocessed && sent, "it may have been processed");
}

/// hypercorn sends a GOAWAY that covers open streams and closes without responses to them.
#[tokio::test]
async fn streams_covered_by_a_graceful_goaway_may_have_been_processed() {
    let server = Http2Server::with_connection_handler(|stream, _| async move {
        let mut frames = Frames::handshake(stream).await;
        frames.read_until(HEADERS).await;
        let second = frames.read_until(HEADERS).await;
        frames.go_away(second, Reason::NO_ERROR).await;
    });
    let client = prior_knowledge_client();
    let (one, two) = tokio::join!(post(&client, server.port), post(&client, server.port));
    for lost in [one, two] {
        let (failure, sent) = lost.unwrap_err();
        assert_eq!(failure.error.kind(), ErrorKind::Closed);
        assert!(!failure.unprocessed && failure.refusal.is_none() && sent);
    }
}

#[tokio::test]
async fn goaway_debug_data_is_not_shown() {
    let server = Http2Server::with_connection_handler(|stream, _| async move {
        let mut frames = Frames::handshake(stream).await;
        frames.read_until(HEADERS).await;
        let reason = Reason::ENHANCE_YOUR_CALM;
        frames
            .go_away_with_debug_data(0, reason, "Bearer s3cr3t")
            .await;
        frames.drain().await;
    });
    let (failure, _) = post(&prior_knowledge_client(), server.port)
        .await
        .unwrap_err();
    let source = std::error::Error::source(&failure.error).unwrap();
    let shown = format!("{failure:?} {source} {source:?}");
    assert!(shown.contains("goes away"), "{shown}");
    assert!(!shown.contains("s3cr3t"), "{shown}");
    let bytes = format!("{:?}", b"s3cr3t");
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}

#[tokio::test]
async fn a_refused_stream_is_unprocessed() {
    for (reason, unprocessed) in [
        (Reason::REFUSED_STREAM, true),
        (Reason::HTTP_1_1_REQUIRED, true),
        (Reason::INTERNAL_ERROR, false),
        (Reason::CANCEL, false),
        (Reason::NO_ERROR, false),
    ] {
        let server = Http2Server::with_responder(10, move |_, mut respond| {
            Box::pin(async move { respond.send_reset(reason) })
        });
        let (failure, sent) = post(&prior_knowledge_client(), server.port)
            .await
            .unwrap_err();
        assert_eq!(failure.error.kind(), ErrorKind::Closed, "{reason:?}");
        assert_eq!(
            (failure.unprocessed, sent),
            (unprocessed, !unprocessed),
            "{reason:?}"
        );
        let refusal = (reason == Reason::REFUSED_STREAM).then_some(RefusalReason::Failure);
        assert_eq!(refusal_reason(&failure), refusal, "{reason:?}");
    }
}

#[tokio::test]
async fn http_1_1_required_switches_the_origin_to_http1() {
    let server = Http2Server::with_connection_handler(|stream, _| async move {
        let mut start = [0; 3];
        stream.peek(&mut start).await.unwrap();
        if &start == b"PRI" {
            let mut connection = server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_reset(Reason::HTTP_1_1_REQUIRED);
            }
            return;
        }
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        thread::spawn(move || {
            let mut stream = stream;
            while respond(&mut stream, OK) {}
        });
    });
    let client = prior_knowledge_client();
    let (failure, _) = post(&client, server.port).await.unwrap_err();
    assert!(failure.unprocessed);
    for _ in 0..3 {
        let (head, mut body) = client.get(server.port).await.unwrap();
        assert_eq!(head.version, http::Version::HTTP_11);
        assert_eq!(client.read(&mut body).await.unwrap(), "ok");
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_connection_that_received_a_goaway_while_idle_is_not_reused() {
    let server = Http2Server::with_connection_handler(|stream, nth| async move {
        let mut connection: ServerConnection = server::handshake(stream).await.unwrap();
        respond_to_next(&mut connection).await;
        if nth == 0 {
            connection.graceful_shutdown();
        }
        while let Some(Ok((_, respond))) = connection.accept().await {
            respond_ok(respond);
        }
    });
    let client = prior_knowledge_client();
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    eventually("the connection is closed", || {
        client.open_socket_count() == 0
    })
    .await;
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 2);
}
