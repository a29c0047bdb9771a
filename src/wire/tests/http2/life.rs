//! When connections are closed, and that nothing is left of them.

use tokio::runtime::{Handle, Runtime};

use super::frames::{DATA, Frames, HEADERS};
use super::*;

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_in_use_is_not() {
    let peer = Peer::answering(10, 300);
    let client = Client::with(Config {
        idle: Duration::from_millis(50),
        ..prior()
    });
    let before = tasks();
    assert_eq!(client.fetch(peer.port).await.unwrap(), "ok");
    eventually("the connection is closed", || client.open() == 0).await;
    eventually("its task ends", || tasks() == before).await;
    assert_eq!(client.fetch(peer.port).await.unwrap(), "ok");
    assert_eq!(peer.accepted(), 2);
}

#[tokio::test]
async fn a_dropped_wire_leaves_no_task() {
    let peer = Peer::answering(1, 0);
    let client = client();
    for answer in client.fetch_many(peer.port, 5).await {
        answer.unwrap();
    }
    assert!(tasks() > 0);
    drop(client);
    eventually("the drivers end", || tasks() == 0).await;
}

#[tokio::test]
async fn a_body_outlives_the_wire_and_then_the_task_ends() {
    let peer = Peer::new(1, |_, mut respond| {
        Box::pin(async move {
            let mut body = respond.send_response(ok(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            body.send_data(Bytes::from_static(b"late"), true).unwrap();
        })
    });
    let client = client();
    let (_, mut incoming) = client.get(peer.port).await.unwrap();
    let Client { wire, progress } = client;
    drop(wire);
    assert_eq!(incoming.chunk(&progress).await.unwrap().unwrap(), "late");
    assert!(incoming.chunk(&progress).await.is_none());
    eventually("the driver ends", || tasks() == 0).await;
}

#[test]
fn runtimes_do_not_share_connections_and_take_theirs_along() {
    let peer = Peer::answering(10, 0);
    let client = client();
    let (one, two) = (runtime(), runtime());
    for _ in 0..3 {
        assert_eq!(one.block_on(client.fetch(peer.port)).unwrap(), "ok");
        assert_eq!(two.block_on(client.fetch(peer.port)).unwrap(), "ok");
    }
    assert_eq!((peer.accepted(), client.open()), (2, 2));
    drop(one);
    assert_eq!(client.open(), 1);
    let three = runtime();
    assert_eq!(three.block_on(client.fetch(peer.port)).unwrap(), "ok");
    assert_eq!(two.block_on(client.fetch(peer.port)).unwrap(), "ok");
    assert_eq!(peer.accepted(), 3);
    drop((two, three));
    assert_eq!(client.open(), 0);
}

fn pinging() -> Client {
    Client::with(Config {
        ping: Duration::from_millis(500),
        ..prior()
    })
}

#[tokio::test]
async fn a_server_that_has_died_silently_is_noticed() {
    let peer = Peer::raw(|stream, _| async move {
        let mut frames = Frames::handshake(stream).await;
        frames.until(HEADERS).await;
        pending::<()>().await;
    });
    let client = pinging();
    let failure = client.get(peer.port).await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Closed);
    eventually("the connection is closed", || client.open() == 0).await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_body_is_noticed() {
    let peer = Peer::raw(|stream, _| async move {
        let mut frames = Frames::handshake(stream).await;
        let id = frames.until(HEADERS).await;
        frames.head(id).await;
        frames.write(DATA, 0, id, b"part").await;
        pending::<()>().await;
    });
    assert_eq!(
        pinging().fetch(peer.port).await.unwrap_err(),
        ErrorKind::Reset
    );
}

#[tokio::test]
async fn a_slow_server_that_answers_pings_is_waited_for() {
    let peer = Peer::answering(10, 1600);
    assert_eq!(pinging().fetch(peer.port).await.unwrap(), "ok");
    assert_eq!(peer.accepted(), 1);
}

#[tokio::test]
async fn one_who_waited_in_vain_leaves_the_connection_to_nobody_else() {
    let peer = Peer::raw(|stream, nth| async move {
        if nth == 0 {
            let mut frames = Frames::handshake(stream).await;
            frames.drain().await;
            return;
        }
        let mut connection = server::handshake(stream).await.unwrap();
        while let Some(Ok((_, respond))) = connection.accept().await {
            say_ok(respond);
        }
    });
    let client = client();
    let waits = tokio::time::timeout(Duration::from_millis(1500), client.fetch(peer.port));
    assert!(waits.await.is_err());
    assert_eq!(client.fetch(peer.port).await.unwrap(), "ok");
    assert_eq!(peer.accepted(), 2);
}

#[tokio::test]
async fn when_nobody_can_connect_each_is_told_why() {
    let client = client();
    let answers = client.fetch_many(refusing().port(), 50).await;
    assert_eq!(answers.len(), 50);
    for answer in answers {
        assert_eq!(answer.unwrap_err(), ErrorKind::Connect);
    }
    assert_eq!(client.open(), 0);
}

#[tokio::test]
async fn those_who_joined_one_who_gives_up_go_on_without_him() {
    // The first connection never says how many streams it allows.
    let peer = Peer::raw(|stream, nth| async move {
        if nth == 0 {
            return pending().await;
        }
        let mut connection = server::handshake(stream).await.unwrap();
        while let Some(Ok((_, respond))) = connection.accept().await {
            say_ok(respond);
        }
    });
    let client = client();
    let first = tokio::time::timeout(Duration::from_millis(1500), client.fetch(peer.port));
    let others = async {
        eventually("the first is on its way", || peer.accepted() == 1).await;
        client.fetch_many(peer.port, 20).await
    };
    let (first, others) = tokio::join!(first, others);
    assert!(first.is_err());
    for answer in others {
        assert_eq!(answer.unwrap(), "ok");
    }
    assert_eq!(peer.accepted(), 2);
}

#[tokio::test]
async fn an_idle_connection_makes_way_for_a_new_one() {
    let (one, two) = (Peer::answering(10, 0), Peer::answering(10, 0));
    let client = Client::with(Config {
        descriptors: Some(1),
        ..prior()
    });
    for _ in 0..3 {
        assert_eq!(client.fetch(one.port).await.unwrap(), "ok");
        assert_eq!(client.fetch(two.port).await.unwrap(), "ok");
        eventually("one makes way", || client.open() == 1).await;
    }
    assert_eq!((one.accepted(), two.accepted()), (3, 3));
}

#[test]
fn a_runtime_that_was_not_driven_finds_out_what_has_happened_meanwhile() {
    let peer = Peer::raw(|stream, _| async move {
        let mut connection: Serving = server::handshake(stream).await.unwrap();
        serve_one(&mut connection).await;
        connection.graceful_shutdown();
        drive(connection).await;
    });
    let (client, runtime) = (client(), runtime());
    for round in 1..=3 {
        let post = client.send(peer.port, request("POST", Body::from("once")));
        assert!(runtime.block_on(post).is_ok());
        assert_eq!(peer.accepted(), round);
        thread::sleep(Duration::from_millis(200));
    }
}
