//! A producer, a batch and two consumers, with backpressure between all of them.
//!
//! asyncio: `asyncio.Queue(maxsize=10)` with a producer task and two worker tasks. Here a bounded
//! channel is the input of a batch, and the consumers share the batch as their queue.
//!
//! ```text
//! cargo run --release --example producer_consumer
//! ```

mod demo;

use std::sync::Arc;

use fanout::{AsCompleted, Fetcher};
use tokio::sync::{Mutex, mpsc};

#[tokio::main]
async fn main() {
    let server = demo::start().await;

    let (sender, receiver) = mpsc::channel(10);
    tokio::spawn(async move {
        for page in 0..100 {
            // Waits while the channel is full. Fails only after the batch was dropped.
            if sender.send(format!("{server}/page/{page}")).await.is_err() {
                break;
            }
        }
    });

    let fetcher = Fetcher::new();
    let batch = fetcher.batch_from_channel(receiver).concurrency(8);
    let done = Arc::new(Mutex::new(batch.look_ahead(20).as_completed()));
    let first = tokio::spawn(consume("first", Arc::clone(&done)));
    let second = consume("second", done).await;
    let first = first.await.expect("no panic");

    println!("{first} + {second} pages");
    assert_eq!(first + second, 100, "every page is consumed once");
}

/// Consumes results until the batch ends. Holds the lock only while it waits for a result.
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
