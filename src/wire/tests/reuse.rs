//! Reuse, pooling and closing of connections.

use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::mpsc;

use super::*;

#[tokio::test]
async fn connection_is_reused() {
    let server = Server::responding(OK);
    let client = Client::new();
    for _ in 0..10 {
        assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(
        (client.idle_connections(), client.open_socket_count()),
        (1, 1)
    );
}

#[tokio::test]
async fn fresh_connection_is_opened_despite_an_idle_one() {
    let server = Server::responding(OK);
    let client = Client::new();
    client.fetch(server.port).await.unwrap();
    let origin = format!("http://127.0.0.1:{}", server.port);
    let (_, mut incoming) = client
        .send_to(
            plain_target(&origin, server.port),
            get(),
            ConnectionSource::Fresh,
        )
        .await
        .unwrap();
    client.read(&mut incoming).await.unwrap();
    assert_eq!(server.accepted(), 2);
    assert_eq!(client.idle_connections(), 2);
}

#[tokio::test]
async fn connection_is_pooled_before_the_last_data_is_returned() {
    let server = Server::responding(OK);
    let client = Client::new();
    let (_, mut incoming) = client.get(server.port).await.unwrap();
    assert_eq!(incoming.remaining_length(), Some(2));
    let chunk = client.next_chunk(&mut incoming).await.unwrap().unwrap();
    assert_eq!((chunk.as_ref(), client.idle_connections()), (&b"ok"[..], 1));
    assert!(client.next_chunk(&mut incoming).await.is_none());
}

#[tokio::test]
async fn response_without_body_releases_its_connection_at_once() {
    let server = Server::responding("HTTP/1.1 204 No Content\r\n\r\n");
    let client = Client::new();
    let (_, incoming) = client.get(server.port).await.unwrap();
    assert_eq!(
        (incoming.remaining_length(), client.idle_connections()),
        (Some(0), 1)
    );
}

#[tokio::test]
async fn chunked_body_releases_its_connection_and_skips_trailers() {
    let server = Server::responding(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n\
         3\r\nfoo\r\n3\r\nbar\r\n0\r\na: b\r\n\r\n",
    );
    let client = Client::new();
    for _ in 0..3 {
        assert_eq!(client.fetch(server.port).await.unwrap(), "foobar");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn connection_that_the_server_closes_is_not_reused() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=0\r\n\r\nok",
    ] {
        let server = Server::responding(response);
        let client = Client::new();
        for _ in 0..3 {
            assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
        }
        assert_eq!(server.accepted(), 3, "{response}");
        assert_eq!(
            (client.idle_connections(), client.open_socket_count()),
            (0, 0),
            "{response}"
        );
    }
}

#[tokio::test]
async fn connection_with_surplus_bytes_is_not_reused() {
    let server =
        Server::responding("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK");
    let client = Client::new();
    for _ in 0..3 {
        assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    }
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn request_uses_another_connection_if_the_idle_one_was_closed() {
    let server = Server::responding_once(OK);
    let client = Client::new();
    for round in 1..=5 {
        assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
        assert_eq!(server.accepted(), round);
        eventually("the close arrives", || {
            client.idle_connections() == 0 || client.wire.http1.pool.woken_idle_count() == 1
        })
        .await;
    }
}

#[tokio::test]
async fn idle_connection_with_unsolicited_bytes_is_not_reused() {
    let (poke, poked) = mpsc::channel::<()>();
    let poked = Mutex::new(poked);
    let server = Server::new(move |mut stream, before| {
        respond(&mut stream, OK);
        if before == 0 {
            poked.lock().unwrap().recv().unwrap();
            stream
                .write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
                .unwrap();
        }
        read_head(&mut stream);
    });
    let client = Client::new();
    client.fetch(server.port).await.unwrap();
    poke.send(()).unwrap();
    eventually("the bytes arrive", || {
        client.idle_connections() == 0 || client.wire.http1.pool.woken_idle_count() == 1
    })
    .await;
    let (head, _) = client.get(server.port).await.unwrap();
    assert_eq!((head.status.as_u16(), server.accepted()), (200, 2));
}

/// The reactor of the test's runtime does not run between the two requests.
#[tokio::test(flavor = "current_thread")]
async fn reactor_runs_before_a_long_idle_connection_is_reused() {
    let (close, closing) = mpsc::channel::<()>();
    let (closed, is_closed) = mpsc::channel();
    let closing = Mutex::new(closing);
    let server = Server::new(move |mut stream, before| {
        respond(&mut stream, OK);
        if before == 0 {
            closing.lock().unwrap().recv().unwrap();
            stream.shutdown(Shutdown::Both).unwrap();
            closed.send(()).unwrap();
        }
    });
    let client = Client::new();
    client.fetch(server.port).await.unwrap();
    assert_eq!(client.idle_connections(), 1);
    close.send(()).unwrap();
    is_closed.recv().unwrap();
    thread::sleep(Duration::from_millis(150));
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 2);
}

/// The server reads the second request on the first connection, and closes without a response.
#[tokio::test]
async fn close_without_response_on_a_reused_connection_is_reported() {
    let server = Server::new(|mut stream, before| {
        respond(&mut stream, OK);
        if before == 0 {
            read_head(&mut stream);
        }
    });
    let client = Client::new();
    client.fetch(server.port).await.unwrap();
    let failure = client.get(server.port).await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Closed);
    assert!(failure.on_reused_connection && failure.no_response && failure.request.is_none());
    assert!(client.clock.maybe_sent());
}

#[tokio::test]
async fn dropping_an_unfinished_body_closes_its_connection() {
    let (seen, saw_end) = mpsc::channel();
    let server = Server::new(move |mut stream, _| {
        respond(
            &mut stream,
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        );
        seen.send(read_head(&mut stream)).unwrap();
    });
    let client = Client::new();
    let (_, mut incoming) = client.get(server.port).await.unwrap();
    assert_eq!(
        client.next_chunk(&mut incoming).await.unwrap().unwrap(),
        "hello"
    );
    assert_eq!(
        (client.open_socket_count(), incoming.remaining_length()),
        (1, Some(5))
    );
    drop(incoming);
    assert_eq!(
        (client.open_socket_count(), client.idle_connections()),
        (0, 0)
    );
    assert!(!saw_end.recv_timeout(HANG_GUARD).unwrap());
}

#[tokio::test]
async fn dropping_the_send_future_closes_its_connection() {
    let heads_read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heads_read);
    let (closed, is_closed) = mpsc::channel();
    let server = Server::new(move |mut stream, _| {
        counter.fetch_add(usize::from(read_head(&mut stream)), SeqCst);
        closed.send(read_head(&mut stream)).unwrap();
    });
    let client = Client::new();
    tokio::select! {
        _ = client.get(server.port) => panic!("there is no response"),
        () = eventually("the request arrives", || heads_read.load(SeqCst) == 1) => {}
    }
    assert_eq!(
        (client.open_socket_count(), client.idle_connections()),
        (0, 0)
    );
    assert!(!is_closed.recv_timeout(HANG_GUARD).unwrap());
}

#[tokio::test]
async fn early_response_is_returned_and_its_connection_closed() {
    let server = Server::responding(OK);
    let client = Client::new();
    let upload = request("POST", Body::from(vec![0; 64 << 20]));
    let (head, mut incoming) = client.send(server.port, upload).await.unwrap();
    assert_eq!(head.status.as_u16(), 200);
    client.read(&mut incoming).await.unwrap();
    assert_eq!(
        (client.idle_connections(), client.open_socket_count()),
        (0, 0)
    );
}

/// Linux keeps the bytes that were received before a reset. Not every system does.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn response_is_read_although_the_server_reset_the_upload() {
    let server = Server::new(|mut stream, _| {
        let response = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";
        respond(&mut stream, response);
        reset(stream);
    });
    let client = Client::new();
    for _ in 0..20 {
        let upload = request("POST", Body::from(vec![0; 16 << 20]));
        let (head, mut incoming) = client.send(server.port, upload).await.unwrap();
        assert_eq!(head.status.as_u16(), 413);
        assert_eq!(client.read(&mut incoming).await.unwrap(), "no");
        assert_eq!(
            (client.idle_connections(), client.open_socket_count()),
            (0, 0)
        );
    }
}

#[tokio::test]
async fn connection_is_reused_after_a_complete_upload() {
    let server = Server::new(|mut stream, _| {
        while read_head(&mut stream) {
            let mut body = vec![0; 1 << 20];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let client = Client::new();
    for _ in 0..3 {
        let upload = request("PUT", Body::from(vec![7; 1 << 20]));
        let (_, mut incoming) = client.send(server.port, upload).await.unwrap();
        client.read(&mut incoming).await.unwrap();
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn large_body_is_read_completely() {
    const LENGTH: usize = 8 << 20;
    let server = Server::new(|mut stream, _| {
        while read_head(&mut stream) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&vec![b'x'; LENGTH]).unwrap();
        }
    });
    let client = Client::new();
    for _ in 0..2 {
        let body = client.fetch(server.port).await.unwrap();
        assert_eq!(body.len(), LENGTH);
    }
    assert_eq!(server.accepted(), 1);
    let timestamps = client.clock.timestamps();
    assert!(timestamps.last_activity_at >= timestamps.response_head_at);
}

#[tokio::test]
async fn oldest_idle_connection_is_evicted_at_the_socket_limit() {
    let servers: Vec<_> = (0..4).map(|_| Server::responding(OK)).collect();
    let client = Client::with(WireConfig {
        max_sockets: Some(3),
        ..WireConfig::default()
    });
    for server in &servers {
        client.fetch(server.port).await.unwrap();
        assert!(client.open_socket_count() <= 3);
    }
    assert_eq!(
        (client.idle_connections(), client.open_socket_count()),
        (3, 3)
    );
    for server in servers[1..].iter().rev().chain([&servers[0]]) {
        client.fetch(server.port).await.unwrap();
    }
    let accepted: Vec<_> = servers.iter().map(Server::accepted).collect();
    assert_eq!(accepted, [2, 1, 1, 1]);
}

#[tokio::test]
async fn connections_above_the_socket_limit_are_closed_after_use() {
    let server = Server::responding(OK);
    let client = Client::with(WireConfig {
        max_sockets: Some(2),
        ..WireConfig::default()
    });
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(client.get(server.port).await.unwrap().1);
    }
    assert_eq!(client.open_socket_count(), 4);
    for incoming in &mut bodies {
        client.read(incoming).await.unwrap();
    }
    assert_eq!(
        (client.idle_connections(), client.open_socket_count()),
        (2, 2)
    );
}

/// Exhausts the descriptors of a child process that only runs this test, on one thread, so that no
/// other thread opens or closes descriptors meanwhile. The servers run in the parent process.
#[cfg(unix)]
#[test]
fn idle_connections_are_evicted_when_the_process_is_out_of_descriptors() {
    use std::process::Command;

    /// The ports of the servers, set in the child process.
    const PORTS: &str = "FANOUT_TEST_PORTS";
    if let Ok(ports) = std::env::var(PORTS) {
        let (port, other_port) = ports.split_once(' ').unwrap();
        return run_out_of_descriptors(port.parse().unwrap(), other_port.parse().unwrap());
    }
    let (server, other) = (Server::responding(OK), Server::responding(OK));
    let name = "idle_connections_are_evicted_when_the_process_is_out_of_descriptors";
    let (_, module) = module_path!().split_once("::").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{name}")])
        .args(["--nocapture", "--test-threads=1"])
        .env(PORTS, format!("{} {}", server.port, other.port))
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{stdout}\n{stderr}"
    );
    assert_eq!((server.accepted(), other.accepted()), (4, 1));
}

#[cfg(unix)]
#[tokio::main(flavor = "current_thread")]
async fn run_out_of_descriptors(port: u16, other_port: u16) {
    let client = Client::new();
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(client.get(port).await.unwrap().1);
    }
    for mut incoming in bodies {
        client.read(&mut incoming).await.unwrap();
    }
    assert_eq!(client.idle_connections(), 4);
    rlimit::setrlimit(rlimit::Resource::NOFILE, 100, 100).unwrap();
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }

    let without_idle = Client::new();
    let failure = without_idle.get(other_port).await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Connect);
    assert!(failure.request.is_some() && !without_idle.clock.maybe_sent());

    assert_eq!(client.fetch(other_port).await.unwrap(), "ok");
    assert_eq!(
        (client.idle_connections(), client.open_socket_count()),
        (1, 1)
    );
}

/// A client that keeps a sticky connection, as a worker does.
fn sticky_client() -> Client {
    Client {
        keeps_sticky: true,
        ..Client::new()
    }
}

#[tokio::test]
async fn sticky_connection_is_reused_for_its_origin() {
    let server = Server::responding(OK);
    let client = sticky_client();
    for _ in 0..3 {
        assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
        assert_eq!(
            (client.open_socket_count(), client.idle_connections()),
            (1, 0)
        );
    }
    assert_eq!(server.accepted(), 1);
    client.take_sticky().return_to_pool();
    assert_eq!(
        (client.open_socket_count(), client.idle_connections()),
        (1, 1)
    );
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn sticky_connection_is_pooled_for_another_origin() {
    let (one, other) = (Server::responding(OK), Server::responding(OK));
    let client = sticky_client();
    client.fetch(one.port).await.unwrap();
    client.fetch(other.port).await.unwrap();
    assert_eq!(
        (client.open_socket_count(), client.idle_connections()),
        (2, 1)
    );
    client.fetch(one.port).await.unwrap();
    assert_eq!(
        (client.open_socket_count(), client.idle_connections()),
        (2, 1)
    );
    assert_eq!((one.accepted(), other.accepted()), (1, 1));
}

#[tokio::test]
async fn sticky_connection_that_was_closed_is_replaced() {
    let (closed, is_closed) = mpsc::channel();
    let server = Server::new(move |mut stream, _| {
        respond(&mut stream, OK);
        drop(stream);
        let _ = closed.send(());
    });
    let client = sticky_client();
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    is_closed.recv_timeout(HANG_GUARD).unwrap();
    // Longer than `VALIDATE_AFTER_IDLE`.
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn surplus_bytes_are_not_read_as_the_next_response() {
    let server = Server::responding(concat!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
    ));
    let client = sticky_client();
    for accepted in 1..4 {
        assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
        assert_eq!(server.accepted(), accepted);
    }
}

#[tokio::test]
async fn connection_of_a_streamed_body_is_pooled() {
    let server = Server::responding(OK);
    let client = sticky_client();
    let (_, mut incoming) = client.get(server.port).await.unwrap();
    client.clock.enter_streaming_phase();
    assert_eq!(client.read(&mut incoming).await.unwrap(), "ok");
    assert_eq!(
        (client.open_socket_count(), client.idle_connections()),
        (1, 1)
    );
}

#[tokio::test]
async fn connection_close_is_not_kept_sticky() {
    let server =
        Server::responding("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let client = sticky_client();
    assert_eq!(client.fetch(server.port).await.unwrap(), "ok");
    assert_eq!(
        (client.open_socket_count(), client.idle_connections()),
        (0, 0)
    );
}
