//! A thousand requests over loopback sockets, from URL to result, with bodies of 100 bytes.
//!
//! The server runs in the same process. Compare the figures with each other only.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanout::Fetcher;
use tokio::runtime::{Builder, Runtime};

const REQUESTS: u64 = 1_000;

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\n\
    01234567890123456789012345678901234567890123456789\
    01234567890123456789012345678901234567890123456789";

/// Starts a server that responds to each request with [`RESPONSE`], on one thread per connection.
/// Returns its origin.
fn start_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    origin
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        // Requests are not pipelined, so the buffer never holds more than one request head.
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(RESPONSE).is_err() {
                return;
            }
        }
    }
}

async fn gather(fetcher: &Fetcher, urls: &[String]) {
    for result in fetcher.batch(urls).concurrency(64).gather().await {
        assert_eq!(black_box(result.unwrap()).bytes().len(), 100);
    }
}

async fn as_completed(fetcher: &Fetcher, urls: &[String]) {
    let mut done = fetcher.batch(urls).concurrency(64).as_completed();
    while let Some(completed) = done.next().await {
        assert_eq!(black_box(completed.result.unwrap()).bytes().len(), 100);
    }
}

async fn fetch_sequentially(fetcher: &Fetcher, urls: &[String]) {
    for url in urls {
        assert_eq!(
            black_box(fetcher.fetch(url).await.unwrap()).bytes().len(),
            100
        );
    }
}

fn runtimes() -> [(&'static str, Runtime); 2] {
    let current_thread = Builder::new_current_thread().enable_all().build().unwrap();
    [
        ("current_thread", current_thread),
        ("multi_thread", Runtime::new().unwrap()),
    ]
}

fn loopback(criterion: &mut Criterion) {
    let origin = start_server();
    let urls: Vec<String> = (0..REQUESTS).map(|n| format!("{origin}/{n}")).collect();
    let mut group = criterion.benchmark_group("loopback");
    group
        .throughput(Throughput::Elements(REQUESTS))
        .sample_size(20);
    for (name, runtime) in runtimes() {
        let fetcher = Fetcher::new();
        group.bench_function(BenchmarkId::new("gather", name), |bencher| {
            bencher.iter(|| runtime.block_on(gather(&fetcher, &urls)));
        });
        group.bench_function(BenchmarkId::new("as_completed", name), |bencher| {
            bencher.iter(|| runtime.block_on(as_completed(&fetcher, &urls)));
        });
        group.bench_function(BenchmarkId::new("fetch_sequentially", name), |bencher| {
            bencher.iter(|| runtime.block_on(fetch_sequentially(&fetcher, &urls)));
        });
    }
    group.finish();
}

criterion_group!(benches, loopback);
criterion_main!(benches);
