//! Connections belong to one runtime each, and expire.

use tokio::runtime::{Builder, Handle, Runtime};

use super::*;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn wire_is_created_outside_a_runtime() {
    drop(Client::new());
}

#[test]
fn runtimes_do_not_share_connections() {
    let server = Server::responding(OK);
    let client = Client::new();
    let (one, two) = (runtime(), runtime());
    for _ in 0..3 {
        assert_eq!(one.block_on(client.fetch(server.port)).unwrap(), "ok");
        assert_eq!(two.block_on(client.fetch(server.port)).unwrap(), "ok");
    }
    assert_eq!((server.accepted(), client.idle_connections()), (2, 2));
}

#[test]
fn connections_of_a_runtime_are_closed_at_its_shutdown() {
    let server = Server::responding(OK);
    let client = Client::new();
    let (one, two) = (runtime(), runtime());
    one.block_on(client.fetch(server.port)).unwrap();
    two.block_on(client.fetch(server.port)).unwrap();
    drop(one);
    assert_eq!(
        (client.idle_connections(), client.open_socket_count()),
        (1, 1)
    );
    two.block_on(client.fetch(server.port)).unwrap();
    let three = runtime();
    three.block_on(client.fetch(server.port)).unwrap();
    assert_eq!(server.accepted(), 3);
    drop((two, three));
    assert_eq!(
        (client.idle_connections(), client.open_socket_count()),
        (0, 0)
    );
}

#[test]
fn dropped_wire_leaves_no_task() {
    let server = Server::responding(OK);
    let client = Client::new();
    let runtime = runtime();
    runtime.block_on(async {
        client.fetch(server.port).await.unwrap();
        let tasks = || Handle::current().metrics().num_alive_tasks();
        assert_eq!(tasks(), 1);
        drop(client);
        eventually("the sweep ends", || tasks() == 0).await;
    });
}

#[tokio::test]
async fn sweep_closes_expired_connections_and_ends() {
    let server = Server::responding(OK);
    let client = Client::with(WireConfig {
        idle_timeout: Duration::from_millis(30),
        ..WireConfig::default()
    });
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for round in 1..=2 {
        client.fetch(server.port).await.unwrap();
        assert_eq!(tasks(), before + 1);
        eventually("the connection is closed", || {
            client.open_socket_count() == 0
        })
        .await;
        eventually("the sweep ends", || tasks() == before).await;
        assert_eq!((client.idle_connections(), server.accepted()), (0, round));
    }
}

#[tokio::test]
async fn sweep_closes_connections_that_the_server_closed() {
    let server = Server::responding_once(OK);
    let client = Client::new();
    client.fetch(server.port).await.unwrap();
    eventually("the connection is closed", || {
        client.open_socket_count() == 0
    })
    .await;
    assert_eq!(client.idle_connections(), 0);
}

#[tokio::test]
async fn sweep_keeps_open_connections() {
    let server = Server::responding(OK);
    let closing = Server::responding_once(OK);
    let client = Client::new();
    client.fetch(closing.port).await.unwrap();
    client.fetch(server.port).await.unwrap();
    eventually("the dead connection is closed", || {
        client.open_socket_count() == 1
    })
    .await;
    assert_eq!(client.idle_connections(), 1);
    client.fetch(server.port).await.unwrap();
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn expired_connection_is_not_reused_before_the_sweep() {
    let server = Server::responding(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: max=9, timeout=1\r\n\r\nok",
    );
    let client = Client::new();
    client.fetch(server.port).await.unwrap();
    assert_eq!(client.idle_connections(), 1);
    tokio::time::sleep(Duration::from_millis(600)).await;
    client.fetch(server.port).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[test]
fn tasks_on_many_threads_share_one_wire() {
    let server = Arc::new(Server::responding(OK));
    let wire = Arc::new(Wire::new(WireConfig::default()));
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (server, wire) = (Arc::clone(&server), Arc::clone(&wire));
                tokio::spawn(async move { fetch_repeatedly(&wire, server.port, 100).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert!(server.accepted() <= 8, "{}", server.accepted());
}

async fn fetch_repeatedly(wire: &Wire, port: u16, times: usize) {
    let clock = HopClock::new(Instant::now());
    let mut sticky_connection = StickyConnection::default();
    let origin = format!("http://127.0.0.1:{port}");
    for _ in 0..times {
        clock.reset_for_new_hop(Instant::now());
        let target = plain_target(&origin, port);
        let (_, mut incoming) = wire
            .send(
                &target,
                &mut Some(get()),
                ConnectionSource::Pooled,
                &clock,
                &mut sticky_connection,
            )
            .await
            .unwrap();
        let mut length = 0;
        while let Some(chunk) = incoming.next_chunk(&clock, &mut sticky_connection).await {
            length += chunk.unwrap().len();
        }
        assert_eq!(length, 2);
    }
}
