//! A producer, the fetches, and two consumers, each at its own pace and none far ahead.
//!
//! asyncio: `asyncio.Queue(maxsize=10)` with a producer task and two worker tasks. Here the bounded
//! channel feeds a batch, and the batch itself is the queue that the consumers take from.
//!
//! ```text
//! cargo run --release --example producer_consumer
//! ```

mod demo;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fanout::{AsCompleted, Fetcher};
use futures_core::Stream;
use tokio::sync::{Mutex, mpsc};

/// The receiving end of a channel as a stream, which is what a batch can read from.
struct Inputs(mpsc::Receiver<String>);

impl Stream for Inputs {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<String>> {
        self.0.poll_recv(cx)
    }
}

#[tokio::main]
async fn main() {
    let server = demo::start().await;

    let (sender, receiver) = mpsc::channel(10);
    tokio::spawn(async move {
        for page in 0..100 {
            // Waits while the channel is full. It fails only if the batch was dropped.
            if sender.send(format!("{server}/page/{page}")).await.is_err() {
                break;
            }
        }
    });

    let fetcher = Fetcher::new();
    let batch = fetcher.batch_from_stream(Inputs(receiver)).concurrency(8);
    let done = Arc::new(Mutex::new(batch.look_ahead(20).as_completed()));
    let first = tokio::spawn(consume("first", Arc::clone(&done)));
    let second = consume("second", done).await;
    let first = first.await.expect("no panic");

    println!("{first} + {second} pages");
    assert_eq!(first + second, 100, "each page was consumed once");
}

/// Takes results until there are no more. The lock is held only while it waits for one.
async fn consume(name: &str, done: Arc<Mutex<AsCompleted<'static>>>) -> usize {
    let mut pages = 0;
    loop {
        let next = done.lock().await.next().await;
        let Some(completed) = next else { return pages };
        match completed.result {
            Ok(response) => println!("{name} got {} bytes", response.bytes().len()),
            Err(error) => println!("{name} got an error: {error}"),
        }
        pages += 1;
    }
}
