//! The error kinds of connection and protocol failures, and floods of frames.

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, Frames, HEADERS, PING, RST_STREAM, SETTINGS, STATUS_200,
};
use tokio::io::AsyncWriteExt;

use super::*;

type CloseFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
type CloseFn = fn(Frames) -> CloseFuture;

/// Closes a connection with a TCP reset.
fn close_with_reset(frames: Frames) -> CloseFuture {
    Box::pin(async move {
        let stream = frames.into_stream();
        stream.set_zero_linger().unwrap();
        drop(stream);
    })
}

/// Closes a connection in order, and reads until the client has closed it too. Closing with unread
/// bytes would send a reset.
fn close_gracefully(mut frames: Frames) -> CloseFuture {
    Box::pin(async move {
        frames.shutdown().await;
        frames.drain().await;
    })
}

#[tokio::test]
async fn a_connection_lost_before_the_head_is_closed() {
    for close in [close_gracefully as CloseFn, close_with_reset] {
        let server = Http2Server::with_connection_handler(move |stream, _| async move {
            let mut frames = Frames::handshake(stream).await;
            frames.read_until(HEADERS).await;
            close(frames).await;
        });
        let client = prior_knowledge_client();
        let failure = client.get(server.port).await.unwrap_err();
        assert_eq!(failure.error.kind(), ErrorKind::Closed);
        assert!(!failure.on_reused_connection && !failure.unprocessed && client.clock.maybe_sent());
        eventually("the connection is closed", || {
            client.open_socket_count() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_lost_in_the_body_is_truncated_or_reset() {
    let cases: [(CloseFn, ErrorKind); 2] = [
        (close_gracefully, ErrorKind::Truncated),
        (close_with_reset, ErrorKind::Reset),
    ];
    for (close, kind) in cases {
        let part_read = Arc::new(AtomicUsize::new(0));
        let may_close = Arc::clone(&part_read);
        let server = Http2Server::with_connection_handler(move |stream, _| {
            let may_close = Arc::clone(&may_close);
            async move {
                let mut frames = Frames::handshake(stream).await;
                let id = frames.read_until(HEADERS).await;
                frames.respond_head(id).await;
                frames.write(DATA, 0, id, b"part").await;
                while may_close.load(SeqCst) == 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                close(frames).await;
            }
        });
        let client = prior_knowledge_client();
        let (_, mut incoming) = client.get(server.port).await.unwrap();
        assert_eq!(
            client.next_chunk(&mut incoming).await.unwrap().unwrap(),
            "part"
        );
        part_read.store(1, SeqCst);
        let error = client.read(&mut incoming).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(
            client.next_chunk(&mut incoming).await.is_none(),
            "the body ends with its error"
        );
    }
}

#[tokio::test]
async fn a_stream_reset_in_the_body_is_reset() {
    let server = Http2Server::with_responder(10, |_, mut respond| {
        Box::pin(async move {
            let mut body = respond.send_response(ok(), false).unwrap();
            body.send_data(Bytes::from_static(b"part"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            body.send_reset(h2::Reason::INTERNAL_ERROR);
        })
    });
    assert_eq!(
        prior_knowledge_client()
            .fetch(server.port)
            .await
            .unwrap_err(),
        ErrorKind::Reset
    );
}

#[tokio::test]
async fn a_wrong_content_length_is_a_protocol_error() {
    for length in [1, 5] {
        let server = Http2Server::with_responder(10, move |_, mut respond| {
            Box::pin(async move {
                let mut response = ok();
                response
                    .headers_mut()
                    .insert("content-length", length.into());
                let mut body = respond.send_response(response, false).unwrap();
                let _ = body.send_data(Bytes::from_static(b"two"), true);
            })
        });
        let client = prior_knowledge_client();
        assert_eq!(
            client.fetch(server.port).await.unwrap_err(),
            ErrorKind::Protocol
        );
    }
}

#[tokio::test]
async fn an_http1_response_is_a_protocol_error() {
    let server = Server::new(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        // Reads until the client closes. Closing with unread bytes would send a reset.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let failure = prior_knowledge_client().get(server.port).await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Protocol, "{failure:?}");
}

/// Floods a client while it has an exchange in progress with another server. Returns the error of
/// the flooded exchange.
async fn run_flood<F>(flood: impl Fn(Frames, u32) -> F + Send + Sync + 'static) -> ErrorKind
where
    F: Future<Output = ()> + Send + 'static,
{
    run_flood_against(1, flood).await[0]
}

/// Floods a client like [`run_flood`], with `count` exchanges on the flooded connection.
async fn run_flood_against<F>(
    count: usize,
    flood: impl Fn(Frames, u32) -> F + Send + Sync + 'static,
) -> Vec<ErrorKind>
where
    F: Future<Output = ()> + Send + 'static,
{
    let flood = Arc::new(flood);
    let server = Http2Server::with_connection_handler(move |stream, _| {
        let flood = Arc::clone(&flood);
        async move {
            let mut frames = Frames::handshake(stream).await;
            let id = frames.read_until(HEADERS).await;
            flood(frames, id).await;
        }
    });
    let other = Http2Server::responding(10, 100);
    // The other connection stays open however long the flood takes.
    let client = Client::with(WireConfig {
        idle_timeout: Duration::from_secs(3600),
        ..prior_knowledge_config()
    });
    let (flooded, unharmed) = tokio::join!(
        client.fetch_many(server.port, count),
        client.fetch_many(other.port, 1)
    );
    assert_eq!(unharmed[0].as_ref().unwrap(), "ok");
    eventually("the flooded connection is closed", || {
        client.open_socket_count() == 1
    })
    .await;
    flooded.into_iter().map(Result::unwrap_err).collect()
}

#[tokio::test]
async fn a_flood_of_continuations_is_a_protocol_error() {
    let kind = run_flood(|mut frames, id| async move {
        frames.write(HEADERS, 0, id, STATUS_200).await;
        let line = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]]
            .concat()
            .repeat(100);
        while frames.write(CONTINUATION, 0, id, &line).await {}
    });
    assert_eq!(kind.await, ErrorKind::Protocol);
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_a_protocol_error() {
    let kind = run_flood(|mut frames, id| async move {
        frames.write(HEADERS, 0, id, STATUS_200).await;
        let line = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]]
            .concat()
            .repeat(100);
        for _ in 0..40 {
            frames.write(CONTINUATION, 0, id, &line).await;
        }
        frames.write(CONTINUATION, END_HEADERS, id, &line).await;
        // A head that is too large fails its stream and not the connection, so the server closes
        // the connection.
        frames.go_away(id, h2::Reason::NO_ERROR).await;
        frames.drain().await;
    });
    assert_eq!(kind.await, ErrorKind::Protocol);
}

#[tokio::test]
async fn a_flood_of_empty_data_is_a_protocol_error() {
    let kind = run_flood(|mut frames, id| async move {
        frames.respond_head(id).await;
        while frames.write(DATA, 0, id, &[]).await {}
    });
    assert_eq!(kind.await, ErrorKind::Protocol);
}

#[tokio::test]
async fn a_flood_of_pings_is_a_protocol_error() {
    let kind = run_flood(|frames, _| async move {
        let mut stream = frames.into_stream();
        let (mut pongs, mut pings) = stream.split();
        let ping = [&[0, 0, 8, PING, 0, 0, 0, 0, 0][..], &[7; 8]].concat();
        let many = ping.repeat(1000);
        let flood = async { while pings.write_all(&many).await.is_ok() {} };
        let mut sink = tokio::io::sink();
        // Reads the pongs. The client stops reading pings while it cannot write pongs.
        let _ = tokio::join!(flood, tokio::io::copy(&mut pongs, &mut sink));
    });
    assert_eq!(kind.await, ErrorKind::Protocol);
}

#[tokio::test]
async fn a_flood_of_settings_is_a_protocol_error() {
    let kind = run_flood(|mut frames, _| async move {
        // SETTINGS_HEADER_TABLE_SIZE.
        let setting = [&[0, 1][..], &4096_u32.to_be_bytes()].concat().repeat(100);
        while frames.write(SETTINGS, 0, 0, &setting).await {}
    });
    assert_eq!(kind.await, ErrorKind::Protocol);
}

#[tokio::test]
async fn a_flood_of_resets_is_a_protocol_error() {
    let kinds = run_flood_against(2, |mut frames, id| async move {
        let reset = [
            &[0, 0, 4, RST_STREAM, 0][..],
            &id.to_be_bytes(),
            &[0, 0, 0, 2],
        ]
        .concat();
        let many = reset.repeat(1000);
        frames.read_until(HEADERS).await;
        let mut stream = frames.into_stream();
        while stream.write_all(&many).await.is_ok() {}
    });
    assert_eq!(kinds.await, [ErrorKind::Closed, ErrorKind::Protocol]);
}

#[tokio::test]
async fn a_flood_of_resets_after_the_last_response_closes_the_connection() {
    let kind = run_flood(|frames, id| async move {
        let reset = [
            &[0, 0, 4, RST_STREAM, 0][..],
            &id.to_be_bytes(),
            &[0, 0, 0, 2],
        ]
        .concat();
        let many = reset.repeat(1000);
        let mut stream = frames.into_stream();
        while stream.write_all(&many).await.is_ok() {}
    });
    assert_eq!(kind.await, ErrorKind::Closed);
}

#[tokio::test]
async fn a_flood_of_unknown_frames_is_a_protocol_error() {
    const PRIORITY: u8 = 2;
    const UNKNOWN: u8 = 0xfa;
    for (kind, payload) in [
        (PRIORITY, &[0; 5][..]),
        (UNKNOWN, &[0; 0]),
        (UNKNOWN, &[0; 16000]),
    ] {
        let kind = run_flood(move |frames, id| async move {
            let head = [&[0][..], &(payload.len() as u16).to_be_bytes(), &[kind, 0]].concat();
            let many = [&head[..], &id.to_be_bytes(), payload].concat().repeat(100);
            let mut stream = frames.into_stream();
            while stream.write_all(&many).await.is_ok() {}
        });
        assert_eq!(kind.await, ErrorKind::Protocol);
    }
}

#[tokio::test]
async fn endless_informational_responses_are_a_protocol_error() {
    let kind = run_flood(|mut frames, id| async move {
        // `:status: 103` as a literal.
        let interim = [&[0x08, 3][..], b"103"].concat();
        while frames.write(HEADERS, END_HEADERS, id, &interim).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(kind.await, ErrorKind::Protocol);
}

#[tokio::test]
async fn frames_for_unopened_streams_are_a_protocol_error() {
    let kind = run_flood(|mut frames, id| async move {
        frames.write(DATA, 0, id + 100, b"unasked").await;
        frames.drain().await;
    });
    assert_eq!(kind.await, ErrorKind::Protocol);
}

#[tokio::test]
async fn a_push_promise_is_a_protocol_error() {
    const PUSH_PROMISE: u8 = 5;
    let kind = run_flood(|mut frames, id| async move {
        let promised = [&2_u32.to_be_bytes()[..], &[0x82, 0x84, 0x86]].concat();
        frames.write(PUSH_PROMISE, END_HEADERS, id, &promised).await;
        frames.drain().await;
    });
    assert_eq!(kind.await, ErrorKind::Protocol);
}
