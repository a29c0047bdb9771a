//! The closing of connections and the end of their driver tasks.

use std::task::Poll;

use tokio::runtime::{Handle, Runtime};

use super::frames::{DATA, Frames, HEADERS};
use super::*;

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn new_runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[tokio::test]
async fn the_idle_timeout_closes_idle_connections_only() {
    let server = Http2Server::responding(10, 300);
    let client = Client::with(WireConfig {
        idle_timeout: Duration::from_millis(50),
        ..prior_knowledge_config()
    });
    let before = alive_tasks();
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    eventually("the connection is closed", || {
        client.open_socket_count() == 0
    })
    .await;
    eventually("the driver ends", || alive_tasks() == before).await;
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn dropping_the_wire_ends_all_drivers() {
    let server = Http2Server::responding(1, 0);
    let client = prior_knowledge_client();
    for result in client.fetch_many(server.port, 5).await {
        result.unwrap();
    }
    assert!(alive_tasks() > 0);
    drop(client);
    eventually("the drivers end", || alive_tasks() == 0).await;
}

#[tokio::test]
async fn a_body_outlives_the_wire_and_its_end_ends_the_driver() {
    let server = Http2Server::with_responder(1, |_, mut respond| {
        Box::pin(async move {
            let mut body = respond.send_response(ok(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            body.send_data(Bytes::from_static(b"late"), true).unwrap();
        })
    });
    let client = prior_knowledge_client();
    let (_, mut incoming) = client.get(server.port).await.unwrap();
    let Client {
        wire,
        clock,
        sticky_connection,
        ..
    } = client;
    let mut sticky_connection = sticky_connection.into_inner().unwrap();
    drop(wire);
    assert_eq!(
        incoming
            .next_chunk(&clock, &mut sticky_connection)
            .await
            .unwrap()
            .unwrap(),
        "late"
    );
    assert!(
        incoming
            .next_chunk(&clock, &mut sticky_connection)
            .await
            .is_none()
    );
    eventually("the driver ends", || alive_tasks() == 0).await;
}

#[test]
fn connections_belong_to_one_runtime_and_close_with_it() {
    let server = Http2Server::responding(10, 0);
    let client = prior_knowledge_client();
    let (one, two) = (new_runtime(), new_runtime());
    for _ in 0..3 {
        assert_eq!(one.block_on(client.fetch(server.port)).unwrap(), "ok");
        assert_eq!(two.block_on(client.fetch(server.port)).unwrap(), "ok");
    }
    assert_eq!((server.accepted(), client.open_socket_count()), (2, 2));
    drop(one);
    assert_eq!(client.open_socket_count(), 1);
    let three = new_runtime();
    assert_eq!(three.block_on(client.fetch(server.port)).unwrap(), "ok");
    assert_eq!(two.block_on(client.fetch(server.port)).unwrap(), "ok");
    assert_eq!(server.accepted(), 3);
    drop((two, three));
    assert_eq!(client.open_socket_count(), 0);
}

/// Waits for `condition`, and then until a connection counts as unresponsive.
async fn unresponsive_since(condition: impl Fn() -> bool) {
    eventually("the server has received the request", condition).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}

fn short_ping_client() -> Client {
    Client::with(WireConfig {
        http2_silence_limit: Duration::from_secs(2),
        ..prior_knowledge_config()
    })
}

#[tokio::test]
async fn an_unresponsive_server_fails_the_request() {
    let server = Http2Server::with_connection_handler(|stream, _| async move {
        let mut frames = Frames::handshake(stream).await;
        frames.read_until(HEADERS).await;
        pending::<()>().await;
    });
    let client = short_ping_client();
    let failure = client.get(server.port).await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Closed);
    eventually("the connection is closed", || {
        client.open_socket_count() == 0
    })
    .await;
}

#[tokio::test]
async fn an_unresponsive_server_fails_the_body() {
    let server = Http2Server::with_connection_handler(|stream, _| async move {
        let mut frames = Frames::handshake(stream).await;
        let id = frames.read_until(HEADERS).await;
        frames.respond_head(id).await;
        frames.write(DATA, 0, id, b"part").await;
        pending::<()>().await;
    });
    assert_eq!(
        short_ping_client().fetch(server.port).await.unwrap_err(),
        ErrorKind::Reset
    );
}

#[tokio::test]
async fn a_slow_server_that_answers_pings_does_not_fail() {
    let server = Http2Server::responding(10, 6_500);
    assert_eq!(short_ping_client().fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_timed_out_request_retires_its_unresponsive_connection() {
    let requests_read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests_read);
    let server = Http2Server::with_connection_handler(move |stream, nth| {
        let counter = Arc::clone(&counter);
        async move {
            if nth == 0 {
                let mut frames = Frames::handshake(stream).await;
                frames.read_until(HEADERS).await;
                counter.fetch_add(1, SeqCst);
                frames.drain().await;
                return;
            }
            let mut connection = server::handshake(stream).await.unwrap();
            while let Some(Ok((_, respond))) = connection.accept().await {
                respond_ok(respond);
            }
        }
    });
    let client = prior_knowledge_client();
    tokio::select! {
        _ = client.fetch(server.port) => panic!("there is no response"),
        () = unresponsive_since(|| requests_read.load(SeqCst) == 1) => {}
    }
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn every_request_gets_the_connect_error() {
    let client = prior_knowledge_client();
    let results = client.fetch_many(refused_address().port(), 50).await;
    assert_eq!(results.len(), 50);
    for result in results {
        assert_eq!(result.unwrap_err(), ErrorKind::Connect);
    }
    assert_eq!(client.open_socket_count(), 0);
}

#[tokio::test]
async fn requests_waiting_for_a_cancelled_dial_open_their_own() {
    // The first connection never receives settings.
    let server = Http2Server::with_connection_handler(|stream, nth| async move {
        if nth == 0 {
            return pending().await;
        }
        let mut connection = server::handshake(stream).await.unwrap();
        while let Some(Ok((_, respond))) = connection.accept().await {
            respond_ok(respond);
        }
    });
    let client = prior_knowledge_client();
    let first = async {
        tokio::select! {
            _ = client.fetch(server.port) => panic!("there is no response"),
            () = unresponsive_since(|| server.accepted() == 1) => {}
        }
    };
    let others = async {
        eventually("the first connection is accepted", || {
            server.accepted() == 1
        })
        .await;
        client.fetch_many(server.port, 20).await
    };
    let ((), others) = tokio::join!(first, others);
    for result in others {
        assert_eq!(result.unwrap(), "ok");
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn an_idle_connection_is_evicted_at_the_socket_limit() {
    let (one, two) = (
        Http2Server::responding(10, 0),
        Http2Server::responding(10, 0),
    );
    let client = Client::with(WireConfig {
        max_sockets: Some(1),
        ..prior_knowledge_config()
    });
    for _ in 0..3 {
        assert_eq!(client.fetch(one.port).await.unwrap(), "ok");
        assert_eq!(client.fetch(two.port).await.unwrap(), "ok");
        eventually("the idle connection is closed", || {
            client.open_socket_count() == 1
        })
        .await;
    }
    assert_eq!((one.accepted(), two.accepted()), (3, 3));
}

#[test]
fn a_goaway_received_while_the_runtime_was_not_driven_is_seen() {
    let (goaway, goaway_sent) = std::sync::mpsc::channel();
    let server = Http2Server::with_connection_handler(move |stream, _| {
        let goaway = goaway.clone();
        async move {
            let mut connection: ServerConnection = server::handshake(stream).await.unwrap();
            respond_to_next(&mut connection).await;
            connection.graceful_shutdown();
            // The first poll writes the GOAWAY frame.
            let _ = std::future::poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await;
            goaway.send(()).unwrap();
            serve_until_closed(connection).await;
        }
    });
    let (client, runtime) = (prior_knowledge_client(), new_runtime());
    for round in 1..=3 {
        let post = client.send(server.port, request("POST", Body::from("once")));
        assert!(runtime.block_on(post).is_ok());
        assert_eq!(server.accepted(), round);
        goaway_sent.recv_timeout(HANG_GUARD).unwrap();
        // Longer than the idle time after which a connection is validated.
        thread::sleep(Duration::from_millis(200));
    }
}
