//! When connections are closed, and that nothing is left of them.

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
async fn an_idle_connection_is_closed_and_one_in_use_is_not() {
    let server = Http2Server::responding(10, 300);
    let client = Client::with(Config {
        idle_timeout: Duration::from_millis(50),
        ..prior_knowledge_config()
    });
    let before = alive_tasks();
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    eventually("the connection is closed", || client.open_sockets() == 0).await;
    eventually("its task ends", || alive_tasks() == before).await;
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_dropped_wire_leaves_no_task() {
    let server = Http2Server::responding(1, 0);
    let client = prior_knowledge_client();
    for answer in client.fetch_many(server.port, 5).await {
        answer.unwrap();
    }
    assert!(alive_tasks() > 0);
    drop(client);
    eventually("the drivers end", || alive_tasks() == 0).await;
}

#[tokio::test]
async fn a_body_outlives_the_wire_and_then_the_task_ends() {
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
        sticky,
        ..
    } = client;
    let mut sticky = sticky.into_inner().unwrap();
    drop(wire);
    assert_eq!(
        incoming.chunk(&clock, &mut sticky).await.unwrap().unwrap(),
        "late"
    );
    assert!(incoming.chunk(&clock, &mut sticky).await.is_none());
    eventually("the driver ends", || alive_tasks() == 0).await;
}

#[test]
fn runtimes_do_not_share_connections_and_take_theirs_along() {
    let server = Http2Server::responding(10, 0);
    let client = prior_knowledge_client();
    let (one, two) = (new_runtime(), new_runtime());
    for _ in 0..3 {
        assert_eq!(one.block_on(client.fetch(server.port)).unwrap(), "ok");
        assert_eq!(two.block_on(client.fetch(server.port)).unwrap(), "ok");
    }
    assert_eq!((server.accepted(), client.open_sockets()), (2, 2));
    drop(one);
    assert_eq!(client.open_sockets(), 1);
    let three = new_runtime();
    assert_eq!(three.block_on(client.fetch(server.port)).unwrap(), "ok");
    assert_eq!(two.block_on(client.fetch(server.port)).unwrap(), "ok");
    assert_eq!(server.accepted(), 3);
    drop((two, three));
    assert_eq!(client.open_sockets(), 0);
}

/// Waits for `condition`, and then until a connection counts as unresponsive.
async fn unresponsive_since(condition: impl Fn() -> bool) {
    eventually("the server waits", condition).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}

fn short_ping_client() -> Client {
    Client::with(Config {
        http2_ping_interval: Duration::from_secs(2),
        ..prior_knowledge_config()
    })
}

#[tokio::test]
async fn a_server_that_has_died_silently_is_noticed() {
    let server = Http2Server::with_connection_handler(|stream, _| async move {
        let mut frames = Frames::handshake(stream).await;
        frames.read_until(HEADERS).await;
        pending::<()>().await;
    });
    let client = short_ping_client();
    let failure = client.get(server.port).await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Closed);
    eventually("the connection is closed", || client.open_sockets() == 0).await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_body_is_noticed() {
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
async fn a_slow_server_that_answers_pings_is_waited_for() {
    let server = Http2Server::responding(10, 6_500);
    assert_eq!(short_ping_client().fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn one_who_waited_in_vain_leaves_the_connection_to_nobody_else() {
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
async fn when_nobody_can_connect_each_is_told_why() {
    let client = prior_knowledge_client();
    let answers = client.fetch_many(refused_address().port(), 50).await;
    assert_eq!(answers.len(), 50);
    for answer in answers {
        assert_eq!(answer.unwrap_err(), ErrorKind::Connect);
    }
    assert_eq!(client.open_sockets(), 0);
}

#[tokio::test]
async fn those_who_joined_one_who_gives_up_go_on_without_him() {
    // The first connection never says how many streams it allows.
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
        eventually("the first is on its way", || server.accepted() == 1).await;
        client.fetch_many(server.port, 20).await
    };
    let ((), others) = tokio::join!(first, others);
    for answer in others {
        assert_eq!(answer.unwrap(), "ok");
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn an_idle_connection_makes_way_for_a_new_one() {
    let (one, two) = (
        Http2Server::responding(10, 0),
        Http2Server::responding(10, 0),
    );
    let client = Client::with(Config {
        max_sockets: Some(1),
        ..prior_knowledge_config()
    });
    for _ in 0..3 {
        assert_eq!(client.fetch(one.port).await.unwrap(), "ok");
        assert_eq!(client.fetch(two.port).await.unwrap(), "ok");
        eventually("one makes way", || client.open_sockets() == 1).await;
    }
    assert_eq!((one.accepted(), two.accepted()), (3, 3));
}

#[test]
fn a_runtime_that_was_not_driven_finds_out_what_has_happened_meanwhile() {
    let (goaway, goaway_sent) = std::sync::mpsc::channel();
    let server = Http2Server::with_connection_handler(move |stream, _| {
        let goaway = goaway.clone();
        async move {
            let mut connection: ServerConnection = server::handshake(stream).await.unwrap();
            respond_to_next(&mut connection).await;
            connection.graceful_shutdown();
            // Polled once, it has written the GOAWAY frame.
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
        // Longer than a connection may rest before it is checked.
        thread::sleep(Duration::from_millis(200));
    }
}
