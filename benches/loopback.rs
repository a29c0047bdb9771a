//! End to end on loopback: a thousand requests of 100 bytes, from URL to result, over real sockets.
//!
//! The server shares the machine, so the figures are of use beside one another, not alone.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanout::Fetcher;
use tokio::runtime::{Builder, Runtime};

const REQUESTS: u64 = 1_000;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\n\
    0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

/// Answers every request head with [`ANSWER`], on a thread a connection.
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
        // One request at a time is under way on a connection, so a head that is complete ends the buffer.
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(ANSWER).is_err() {
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

async fn one_by_one(fetcher: &Fetcher, urls: &[String]) {
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
        group.bench_function(BenchmarkId::new("fetch_one_by_one", name), |bencher| {
            bencher.iter(|| runtime.block_on(one_by_one(&fetcher, &urls)));
        });
    }
    group.finish();
}

criterion_group!(benches, loopback);
criterion_main!(benches);
