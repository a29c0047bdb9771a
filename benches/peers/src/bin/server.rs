//! A server that delays its responses and records the arrival time of each request.
//!
//!     server PORT DELAY_MS
//!
//! `GET /arrivals` returns the arrival times in microseconds since the first, and clears them.
//! `GET /warm` is not recorded.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\n\
    0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

type Arrivals = Arc<Mutex<Vec<Instant>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args: Vec<u64> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse().expect("a number"))
        .collect();
    let [port, delay] = args[..] else {
        panic!("a port and a delay in milliseconds")
    };
    let listener = TcpListener::bind(("0.0.0.0", port as u16)).await?;
    let arrivals = Arrivals::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(
            stream,
            Duration::from_millis(delay),
            Arc::clone(&arrivals),
        ));
    }
}

/// Requests are not pipelined, so a complete head ends the buffer.
async fn serve(mut stream: TcpStream, delay: Duration, arrivals: Arrivals) {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await {
        filled += read;
        if !buffer[..filled].ends_with(b"\r\n\r\n") {
            continue;
        }
        let answer = if buffer.starts_with(b"GET /arrivals ") {
            report(&arrivals)
        } else {
            if !buffer.starts_with(b"GET /warm ") {
                arrivals.lock().expect("no panic").push(Instant::now());
            }
            sleep(delay).await;
            ANSWER.to_vec()
        };
        filled = 0;
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

fn report(arrivals: &Arrivals) -> Vec<u8> {
    let arrivals = std::mem::take(&mut *arrivals.lock().expect("no panic"));
    let since_first = |at: &Instant| (*at - arrivals[0]).as_micros().to_string();
    let body = arrivals
        .iter()
        .map(since_first)
        .collect::<Vec<_>>()
        .join(",");
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n[{body}]",
        body.len() + 2
    )
    .into_bytes()
}
