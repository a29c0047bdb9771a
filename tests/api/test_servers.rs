//! Tests of the test servers: each path sends the response or the fault of its name.

#[path = "../../examples/demo/mod.rs"]
mod demo;

use crate::support::own_process::{self, test_path};
use crate::support::server::{
    FaultServer, expected_body, max_in_any_window, pattern_bytes, refused_url,
};
use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

struct RawResponse {
    head: String,
    body: Vec<u8>,
}

impl RawResponse {
    fn status(&self) -> u16 {
        self.head[9..12].parse().expect("a status line")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

async fn connect(server: &FaultServer) -> TcpStream {
    TcpStream::connect(server.address())
        .await
        .expect("a listening server")
}

async fn send(stream: &mut TcpStream, request: impl AsRef<[u8]>) {
    stream
        .write_all(request.as_ref())
        .await
        .expect("a reading server");
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("a head of text")
}

/// Reads a response with a `Content-Length`.
async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> RawResponse {
    let head = read_head(stream).await;
    let mut response = RawResponse {
        head,
        body: Vec::new(),
    };
    let length = response.header("content-length").expect("a length");
    response.body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut response.body).await.expect("a body");
    response
}

async fn fetch(server: &FaultServer, path: &str) -> RawResponse {
    let mut stream = connect(server).await;
    send(&mut stream, get(path)).await;
    read_response(&mut stream).await
}

/// Returns the bytes until the close, and the error if the close is not a FIN.
async fn read_to_close(server: &FaultServer, path: &str) -> (Vec<u8>, Option<ErrorKind>) {
    let mut stream = connect(server).await;
    send(&mut stream, get(path)).await;
    let mut read = Vec::new();
    let end = stream.read_to_end(&mut read).await;
    (read, end.err().map(|error| error.kind()))
}

fn body_of(read: &[u8]) -> &[u8] {
    let end = read.windows(4).position(|window| window == b"\r\n\r\n");
    &read[end.expect("a whole head") + 4..]
}

#[tokio::test]
async fn ok_path_sends_the_body_of_its_number() {
    let server = FaultServer::start();
    for n in [0, 1, 77, u64::MAX] {
        let response = fetch(&server, &format!("/ok/{n}")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.body, expected_body(n));
        assert!(response.body.starts_with(format!("{n}:").as_bytes()));
    }
    assert_ne!(expected_body(1), expected_body(2));
    assert_eq!(
        fetch(&server, "/bytes/70000").await.body,
        pattern_bytes(70_000)
    );
    assert_eq!(fetch(&server, "/nowhere").await.status(), 404);
    assert_eq!(fetch(&server, "/gone").await.status(), 410);
}

#[tokio::test]
async fn a_connection_serves_pipelined_requests_with_bodies() {
    let server = FaultServer::start();
    let mut stream = connect(&server).await;
    let first =
        "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 7\r\nx-a: \"q\"\r\n\r\n{\"a\":1}";
    let second = "PUT /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n\
                  3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\ntrailer: t\r\n\r\n";
    send(&mut stream, [first, second, &get("/ok/3")].concat()).await;

    let echo = String::from_utf8(read_response(&mut stream).await.body).expect("text");
    assert_eq!(
        echo,
        r#"{"method":"POST","path":"/echo","headers":[["host","test"],["content-length","7"],["x-a","\"q\""]],"body":"{\"a\":1}"}"#
    );
    let echo = String::from_utf8(read_response(&mut stream).await.body).expect("text");
    assert!(echo.contains(r#""method":"PUT""#) && echo.ends_with(r#""body":"abcdefg"}"#));
    assert_eq!(read_response(&mut stream).await.body, expected_body(3));

    let log = server.log();
    let bodies: Vec<&[u8]> = log.iter().map(|entry| &entry.body[..]).collect();
    assert_eq!(bodies, [&b"{\"a\":1}"[..], b"abcdefg", b""]);
    assert!(log.iter().all(|entry| entry.connection == 0));
    assert_eq!(server.counts().total_connections, 1);
}

#[tokio::test]
async fn request_split_across_writes_is_read() {
    let server = FaultServer::start();
    let mut stream = connect(&server).await;
    stream.set_nodelay(true).expect("a socket");
    for piece in [
        "POST /echo HT",
        "TP/1.1\r\ncontent-le",
        "ngth: 4\r\n\r",
        "\nab",
        "cd",
    ] {
        send(&mut stream, piece).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(read_response(&mut stream).await.status(), 200);
    assert_eq!(server.log()[0].body, b"abcd");
}

#[tokio::test]
async fn malformed_request_receives_400() {
    let server = FaultServer::start();
    let mut stream = connect(&server).await;
    send(&mut stream, "hello\r\n\r\n").await;
    assert_eq!(read_response(&mut stream).await.status(), 400);
    assert_eq!(stream.read(&mut [0]).await.expect("FIN"), 0);
}

#[tokio::test]
async fn head_request_receives_no_body() {
    let server = FaultServer::start();
    let mut stream = connect(&server).await;
    send(&mut stream, "HEAD /ok/1 HTTP/1.1\r\n\r\n").await;
    let head = read_head(&mut stream).await;
    assert!(head.contains(&format!("content-length: {}\r\n", expected_body(1).len())));
    send(&mut stream, get("/status/204")).await;
    assert!(!read_head(&mut stream).await.contains("content-length"));
    send(&mut stream, get("/ok/2")).await;
    assert_eq!(read_response(&mut stream).await.body, expected_body(2));
    let mut stream = connect(&server).await;
    send(&mut stream, "HEAD /stall-body HTTP/1.1\r\n\r\n").await;
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connection_close_is_sent_by_path_and_on_request() {
    let server = FaultServer::start();
    let (read, error) = read_to_close(&server, "/close/1").await;
    assert!(String::from_utf8_lossy(&read).contains("connection: close"));
    assert_eq!((body_of(&read), error), (&expected_body(1)[..], None));
    let (read, error) = read_to_close(&server, "/ok-then-close/1").await;
    assert!(!String::from_utf8_lossy(&read).contains("connection: close"));
    assert_eq!((body_of(&read), error), (&expected_body(1)[..], None));
    let (read, error) = read_to_close(&server, "/until-close/1").await;
    assert!(!String::from_utf8_lossy(&read).contains("content-length"));
    assert_eq!((body_of(&read), error), (&expected_body(1)[..], None));

    let mut stream = connect(&server).await;
    send(
        &mut stream,
        "GET /ok/1 HTTP/1.1\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(
        read_response(&mut stream).await.header("connection"),
        Some("close")
    );
    assert_eq!(stream.read(&mut [0]).await.expect("FIN"), 0);
}

#[tokio::test]
async fn delay_path_delays_the_response_of_its_rest() {
    let server = FaultServer::start();
    let started = Instant::now();
    assert_eq!(fetch(&server, "/delay/60/7").await.body, expected_body(7));
    assert_eq!(
        fetch(&server, "/delay/60/ok/8").await.body,
        expected_body(8)
    );
    assert_eq!(fetch(&server, "/delay/60").await.body, expected_body(0));
    assert_eq!(fetch(&server, "/delay/60/status/503").await.status(), 503);
    assert!(started.elapsed() >= Duration::from_millis(240));
}

#[tokio::test]
async fn status_path_sends_either_form_of_retry_after() {
    let server = FaultServer::start();
    let response = fetch(&server, "/status/429?retry_after=2").await;
    assert_eq!(
        (response.status(), response.header("retry-after")),
        (429, Some("2"))
    );
    let response = fetch(&server, "/status/503?retry_after=soon%20enough").await;
    assert_eq!(response.header("retry-after"), Some("soon enough"));
    let before = std::time::SystemTime::now();
    let response = fetch(&server, "/status/503?retry_after_date=100").await;
    let date = httpdate::parse_http_date(response.header("retry-after").expect("a date"));
    let ahead = date.expect("a date").duration_since(before).expect("later");
    assert!(ahead >= Duration::from_secs(99), "{ahead:?}");
    assert_eq!(
        fetch(&server, "/status/503").await.header("retry-after"),
        None
    );
}

#[tokio::test]
async fn redirect_paths_send_a_location() {
    let server = FaultServer::start();
    let response = fetch(&server, "/redirect/307?to=http%3A%2F%2Fother%2Fpath").await;
    assert_eq!(
        (response.status(), response.header("location")),
        (307, Some("http://other/path"))
    );
    let response = fetch(&server, "/hops/2").await;
    assert_eq!(
        (response.status(), response.header("location")),
        (302, Some("/hops/1"))
    );
    assert_eq!(fetch(&server, "/hops/0").await.body, expected_body(0));
}

#[tokio::test]
async fn chunked_paths_send_the_whole_body() {
    let server = FaultServer::start();
    for (path, body) in [
        ("/chunked/5", expected_body(5)),
        ("/big/20000", pattern_bytes(20_000)),
    ] {
        let mut stream = connect(&server).await;
        send(&mut stream, get(path)).await;
        assert!(
            read_head(&mut stream)
                .await
                .contains("transfer-encoding: chunked")
        );
        assert_eq!(read_chunks(&mut stream).await, body);
    }
}

async fn read_chunks(stream: &mut TcpStream) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        while !size.ends_with("\r\n") {
            size.push(stream.read_u8().await.expect("a size").into());
        }
        let size = usize::from_str_radix(size.trim(), 16).expect("a size");
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.expect("a chunk");
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return body;
        }
    }
}

#[tokio::test]
async fn fault_paths_end_as_their_names_say() {
    let server = FaultServer::start();
    let reset = Some(ErrorKind::ConnectionReset);
    assert_eq!(
        read_to_close(&server, "/reset-before").await,
        (vec![], reset)
    );
    assert_eq!(
        read_to_close(&server, "/close-before").await,
        (vec![], None)
    );
    let (read, error) = read_to_close(&server, "/half-head").await;
    assert_eq!(
        (&read[..], error),
        (&b"HTTP/1.1 200 OK\r\ncontent-le"[..], None)
    );
    let (read, error) = read_to_close(&server, "/malformed").await;
    assert!(!read.starts_with(b"HTTP") && error.is_none());

    let whole = expected_body(0);
    let half = &whole[..whole.len() - whole.len() / 2];
    for (path, ending) in [("/reset-after-head", reset), ("/truncated", None)] {
        let (read, error) = read_to_close(&server, path).await;
        let announced = format!("content-length: {}\r\n", whole.len());
        assert!(String::from_utf8_lossy(&read).contains(&announced));
        assert_eq!((body_of(&read), error), (half, ending), "{path}");
    }
    let (read, error) = read_to_close(&server, "/truncated-chunks").await;
    assert_eq!((body_of(&read), error), (&b"8\r\nhalf"[..], None));
}

#[tokio::test]
async fn a_stall_lasts_until_the_client_closes() {
    let server = FaultServer::start();
    let mut head = connect(&server).await;
    send(&mut head, get("/stall-head")).await;
    let mut body = connect(&server).await;
    send(&mut body, get("/stall-body")).await;
    read_head(&mut body).await;
    let mut delayed = connect(&server).await;
    send(&mut delayed, get("/delay/600000/1")).await;
    server.wait_for_in_flight(3).await;

    let half = expected_body(0).len() - expected_body(0).len() / 2;
    body.read_exact(&mut vec![0; half]).await.expect("half");
    for stream in [&mut head, &mut body] {
        let more = tokio::time::timeout(Duration::from_millis(30), stream.read_u8()).await;
        assert!(more.is_err(), "{more:?}");
    }
    drop((head, body, delayed));
    let counts = server.wait_for_open_connections(0).await;
    assert_eq!((counts.in_flight, counts.max_in_flight), (0, 3));
}

#[tokio::test]
async fn endless_ends_when_the_client_closes() {
    let server = FaultServer::start();
    let mut stream = connect(&server).await;
    send(&mut stream, get("/endless")).await;
    stream
        .read_exact(&mut vec![0; 1 << 20])
        .await
        .expect("more");
    assert_eq!(server.counts().in_flight, 1);
    drop(stream);
    server.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn drip_path_sends_the_body_at_an_interval() {
    let server = FaultServer::start();
    let started = Instant::now();
    assert_eq!(fetch(&server, "/drip/4/20").await.body, b"....");
    assert!(started.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn unusual_responses_match_their_paths() {
    let server = FaultServer::start();
    let mut stream = connect(&server).await;
    send(&mut stream, get("/interim/2")).await;
    for _ in 0..2 {
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 103 "));
    }
    assert_eq!(read_response(&mut stream).await.body, expected_body(0));
    send(&mut stream, get("/two-lengths")).await;
    assert_eq!(
        read_head(&mut stream)
            .await
            .matches("content-length")
            .count(),
        2
    );
    let mut stream = connect(&server).await;
    send(&mut stream, get("/length-and-chunked")).await;
    let head = read_head(&mut stream).await;
    assert!(head.contains("content-length: 4") && head.contains("chunked"));
    let response = fetch(&server, "/header/3000").await;
    assert_eq!(response.header("x-long").map(str::len), Some(3000));
    let response = fetch(&server, "/keep-alive/5").await;
    assert_eq!(response.header("keep-alive"), Some("timeout=5"));
}

#[tokio::test]
async fn flaky_path_fails_the_first_requests_of_each_key() {
    let server = FaultServer::start();
    for path in ["/flaky/a/2/503", "/flaky/b/2/status/503"] {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(fetch(&server, path).await.status());
        }
        assert_eq!(statuses, [503, 503, 200, 200], "{path}");
        assert_eq!(server.request_count_for(path), 4);
    }
    let reset = (vec![], Some(ErrorKind::ConnectionReset));
    assert_eq!(
        read_to_close(&server, "/flaky/c/1/reset-before").await,
        reset
    );
    assert_eq!(
        fetch(&server, "/flaky/c/1/reset-before").await.body,
        expected_body(0)
    );
    let response = fetch(&server, "/flaky/d/1/429?retry_after=1").await;
    assert_eq!(response.header("retry-after"), Some("1"));
    server.reset();
    assert_eq!(fetch(&server, "/flaky/a/2/503").await.status(), 503);
}

#[tokio::test]
async fn reset_clears_requests_and_maxima_and_keeps_connections() {
    let server = FaultServer::start();
    let mut stream = connect(&server).await;
    send(&mut stream, get("/ok/1")).await;
    read_response(&mut stream).await;
    let before = Instant::now();
    server.reset();
    let counts = server.counts();
    assert_eq!((counts.requests, counts.max_in_flight), (0, 0));
    assert_eq!((counts.total_connections, counts.open_connections), (0, 1));
    send(&mut stream, get("/ok/2?q=1")).await;
    read_response(&mut stream).await;
    let log = server.log();
    assert_eq!((log.len(), log[0].path.as_str()), (1, "/ok/2?q=1"));
    assert!(log[0].received_at >= before && server.arrival_times() == [log[0].received_at]);
    assert_eq!(log[0].headers["host"], "test");
}

#[tokio::test]
async fn sequential_requests_are_never_counted_together() {
    let servers = FaultServer::start_group(2);
    let mut streams = [connect(&servers[0]).await, connect(&servers[1]).await];
    for i in 0..500 {
        let stream = &mut streams[i % 2];
        send(stream, get(&format!("/bytes/{}", i * 20))).await;
        read_response(stream).await;
        assert_eq!(servers[i % 2].counts().in_flight, 0);
    }
    assert_eq!(servers[0].counts().max_in_flight_in_group, 1);
}

#[tokio::test]
async fn group_counts_requests_per_server_and_together() {
    let servers = FaultServer::start_group(3);
    let origins: std::collections::HashSet<String> =
        servers.iter().map(FaultServer::origin).collect();
    assert_eq!(origins.len(), 3);
    let mut streams = Vec::new();
    for server in [&servers[0], &servers[0], &servers[1]] {
        let mut stream = connect(server).await;
        send(&mut stream, get("/stall-head")).await;
        streams.push(stream);
    }
    servers[0].wait_for_in_flight(2).await;
    servers[1].wait_for_in_flight(1).await;
    let maxima: Vec<usize> = servers
        .iter()
        .map(|server| server.counts().max_in_flight)
        .collect();
    assert_eq!(maxima, [2, 1, 0]);
    assert_eq!(servers[2].counts().max_in_flight_in_group, 3);
    #[cfg(target_os = "linux")]
    assert!(servers[0].origin().starts_with("http://127.0.0.2:"));
}

#[tokio::test]
async fn close_connections_keeps_the_listener() {
    let server = FaultServer::start();
    let mut idle = connect(&server).await;
    send(&mut idle, get("/ok/1")).await;
    read_response(&mut idle).await;
    let mut in_use = connect(&server).await;
    send(&mut in_use, get("/stall-head")).await;
    server.wait_for_in_flight(1).await;
    server.close_connections().await;
    assert_eq!(server.counts().in_flight, 0);
    for mut stream in [idle, in_use] {
        assert_eq!(stream.read(&mut [0]).await.expect("FIN"), 0);
    }
    assert_eq!(fetch(&server, "/ok/2").await.status(), 200);
}

#[tokio::test]
async fn shut_down_closes_all_connections() {
    let server = FaultServer::start();
    let mut stream = connect(&server).await;
    send(&mut stream, get("/stall-head")).await;
    server.wait_for_in_flight(1).await;
    server.shut_down();
    let counts = server.counts();
    assert_eq!((counts.in_flight, counts.open_connections), (0, 0));
    assert_eq!(server.log().len(), 1);
    assert_eq!(stream.read(&mut [0]).await.expect("FIN"), 0);
}

// Uses its own address, so that no other test reuses the port.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn shut_down_closes_the_listener() {
    let server = FaultServer::start_on([127, 0, 0, 99]);
    assert_eq!(fetch(&server, "/ok/1").await.status(), 200);
    server.shut_down();
    let refused = TcpStream::connect(server.address()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn waits_work_with_a_paused_client_clock() {
    let server = FaultServer::start();
    let mut stream = connect(&server).await;
    send(&mut stream, get("/delay/50/1")).await;
    server.wait_for_requests(1).await;
    assert_eq!(read_response(&mut stream).await.body, expected_body(1));
}

#[tokio::test]
async fn refused_url_refuses_connections() {
    let url = refused_url();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    for _ in 0..3 {
        let refused = TcpStream::connect(address).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn silent_listener_leaves_connects_pending() {
    let silent = crate::support::server::SilentListener::start();
    let url = silent.url("");
    let connecting = TcpStream::connect(url.trim_start_matches("http://"));
    let waited = tokio::time::timeout(Duration::from_millis(50), connecting).await;
    assert!(waited.is_err(), "{waited:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn open_files_counts_descriptors() {
    if !own_process::is_child() {
        return own_process::run(test_path!(open_files_counts_descriptors));
    }
    let before = crate::support::server::open_files();
    let files: Vec<_> = (0..500)
        .map(|_| std::fs::File::open("/dev/null").expect("/dev/null opens"))
        .collect();
    let grown = crate::support::server::open_files();
    assert_eq!(grown, before + files.len());
}

#[test]
fn max_in_any_window_uses_half_open_windows() {
    let start = Instant::now();
    let at = |ms: &[u64]| -> Vec<Instant> {
        ms.iter()
            .map(|&ms| start + Duration::from_millis(ms))
            .collect()
    };
    let second = Duration::from_secs(1);
    assert_eq!(max_in_any_window(&[], second), 0);
    assert_eq!(max_in_any_window(&at(&[0, 1000, 2000]), second), 1);
    assert_eq!(
        max_in_any_window(&at(&[1400, 0, 600, 1500, 999]), second),
        4
    );
}

#[tokio::test]
async fn example_server_responds_on_every_route() {
    let base = demo::start().await;
    let address: SocketAddr = base["http://".len()..].parse().expect("an address");
    let mut stream = TcpStream::connect(address)
        .await
        .expect("a listening server");
    for (path, status, text) in [
        ("/delay/10", 200, "waited 10 ms"),
        (
            "/json/todo/3",
            200,
            r#"{"id":3,"title":"read a book","done":true}"#,
        ),
        ("/status/418", 418, "418"),
        ("/status/9", 400, "no such status"),
        ("/bytes/5", 200, "xxxxx"),
        ("/page/7", 200, "<title>Page 7</title>"),
        ("/headers", 200, r#""host":"test""#),
        ("/none", 404, ""),
    ] {
        send(&mut stream, get(path)).await;
        let response = read_response(&mut stream).await;
        let body = String::from_utf8(response.body.clone()).expect("text");
        assert_eq!(response.status(), status, "{path}");
        assert!(body.contains(text), "{path}: {body}");
    }
    let post =
        "POST /post HTTP/1.1\r\nhost: test\r\ncontent-type: text/x\r\ncontent-length: 2\r\n\r\nhi";
    send(&mut stream, post).await;
    let response = read_response(&mut stream).await;
    assert_eq!(
        (&response.body[..], response.header("content-type")),
        (&b"hi"[..], Some("text/x"))
    );
}

#[cfg(feature = "tls")]
mod tls {
    use super::{expected_body, get, read_response};
    use crate::support::server::{ServerCertificate, TlsServer, ca_pem};
    use rustls::{
        CertificateError, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    };
    use std::{io, sync::Arc};
    use tokio::{io::AsyncWriteExt, net::TcpStream};
    use tokio_rustls::{TlsConnector, client::TlsStream};

    async fn connect(server: &TlsServer, name: &'static str) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(ca_pem().as_bytes()).expect("PEM");
        roots.add(ca).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring's versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(server.address()).await?;
        let name = ServerName::try_from(name).expect("a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    #[tokio::test]
    async fn good_certificate_is_trusted_by_name_and_by_address() {
        let server = TlsServer::start(ServerCertificate::Good);
        assert!(server.url("/ok/1").starts_with("https://localhost:"));
        assert!(
            server
                .url_by_address("/ok/1")
                .starts_with("https://127.0.0.1:")
        );
        for name in ["localhost", "127.0.0.1"] {
            let mut stream = connect(&server, name).await.expect("trusted");
            for n in 0..2 {
                let request = get(&format!("/ok/{n}"));
                stream
                    .write_all(request.as_bytes())
                    .await
                    .expect("a reading server");
                assert_eq!(read_response(&mut stream).await.body, expected_body(n));
            }
        }
        assert_eq!(server.counts().requests, 4);
        assert_eq!(server.counts().total_connections, 2);
    }

    #[tokio::test]
    async fn each_bad_certificate_fails_for_its_own_reason() {
        for (leaf, is_reason) in [
            (
                ServerCertificate::WrongHost,
                is_wrong_host as fn(&CertificateError) -> bool,
            ),
            (ServerCertificate::Expired, is_expired),
            (ServerCertificate::NotYetValid, is_not_yet_valid),
            (ServerCertificate::SelfSigned, is_unknown_issuer),
            (ServerCertificate::UnknownIssuer, is_unknown_issuer),
        ] {
            let server = TlsServer::start(leaf);
            let error = connect(&server, "localhost")
                .await
                .expect_err("not trusted");
            let error = error.downcast::<rustls::Error>().expect("a rustls error");
            match error {
                rustls::Error::InvalidCertificate(reason) if is_reason(&reason) => {}
                other => panic!("{leaf:?}: {other:?}"),
            }
        }
    }

    fn is_wrong_host(error: &CertificateError) -> bool {
        matches!(error, CertificateError::NotValidForNameContext { .. })
    }

    fn is_expired(error: &CertificateError) -> bool {
        matches!(error, CertificateError::ExpiredContext { .. })
    }

    fn is_not_yet_valid(error: &CertificateError) -> bool {
        matches!(error, CertificateError::NotValidYetContext { .. })
    }

    fn is_unknown_issuer(error: &CertificateError) -> bool {
        matches!(error, CertificateError::UnknownIssuer)
    }
}
