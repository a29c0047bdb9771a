//! The cost of a request from URL to result, in instructions and allocations.
//!
//! ```text
//! hot_path memory 4000     # 4,000 requests, with responses from this process
//! hot_path socket 4000     # 4,000 requests, with responses from another process over loopback
//! ```
//!
//! The program prints the number of its allocations. Run it under a profiler to count instructions.
//! It uses one thread, keeps 64 requests in flight, and drops the results. The cost of one request
//! follows from the difference between two runs of different length.

#![allow(unsafe_code, missing_docs)]

mod counting;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};
use std::thread;

use counting::allocation_count;
use fanout::{Body, Fetcher};
use tokio::runtime::Builder;
use tower_service::Service;

const BODY: &[u8; 100] = &[b'x'; 100];

/// A transport that responds at once from memory, with five headers and a body of 100 bytes.
#[derive(Clone)]
struct MemoryTransport;

impl Service<http::Request<Body>> for MemoryTransport {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let mut response = http::Response::new(Body::from(&BODY[..]));
        for (name, value) in [
            ("server", "bench"),
            ("date", "Sat, 21 Nov 2026 00:00:00 GMT"),
            ("content-type", "text/plain"),
            ("content-length", "100"),
            ("connection", "keep-alive"),
        ] {
            let value = http::HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        ready(Ok(response))
    }
}

/// A server in another process: this program with the argument `serve`. It exits when its standard
/// input closes.
struct Server {
    process: Child,
    origin: String,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut origin = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut origin)
            .unwrap();
        Self {
            process,
            origin: origin.trim().to_owned(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || respond_to_all(stream));
        }
    });
    let _ = std::io::stdin().read(&mut [0]);
}

/// Responds to the requests on a connection. They are not pipelined, so the buffer never holds more
/// than one request head.
fn respond_to_all(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut response =
        b"HTTP/1.1 200 OK\r\nserver: bench\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\n\
        content-type: text/plain\r\ncontent-length: 100\r\nconnection: keep-alive\r\n\r\n"
            .to_vec();
    response.extend_from_slice(BODY);
    let mut buffer = [0; 4096];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(&response).is_err() {
                return;
            }
        }
    }
}

async fn fetch(fetcher: Fetcher, origin: String, requests: usize) {
    let urls = (0..requests).map(move |n| format!("{origin}/{n}"));
    let mut done = fetcher.batch(urls).concurrency(64).as_completed();
    let mut ok_count = 0;
    while let Some(completed) = done.next().await {
        let response = completed.result.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.bytes().len()),
            (200, 100)
        );
        ok_count += 1;
    }
    assert_eq!(ok_count, requests);
}

fn run(transport: &str, requests: usize) -> u64 {
    let before = allocation_count();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let server;
    let (builder, origin) = match transport {
        "memory" => {
            let builder = Fetcher::builder().transport(MemoryTransport);
            (builder, "http://127.0.0.1:8080".to_owned())
        }
        "socket" => {
            server = Server::start();
            (Fetcher::builder().no_proxy(), server.origin.clone())
        }
        other => panic!("unknown transport {other:?}"),
    };
    let fetcher = builder.build().unwrap();
    // As a task, like in an application: the root future of `block_on` costs an additional wake-up.
    let task = runtime.spawn(fetch(fetcher, origin, requests));
    runtime.block_on(task).unwrap();
    allocation_count() - before
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve(),
        [transport @ ("memory" | "socket"), requests] => {
            println!(
                "{}",
                run(transport, requests.parse().expect("a number of requests"))
            );
        }
        // Without arguments, as `cargo bench` runs it: prints the allocations per request.
        _ => {
            for transport in ["memory", "socket"] {
                let (once, twice) = (run(transport, 2_000), run(transport, 4_000));
                println!(
                    "{transport}: {:.1} allocations per request",
                    (twice - once) as f64 / 2_000.0
                );
            }
        }
    }
}
