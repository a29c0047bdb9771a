//! Starts fetches in the background, does something else, and asks for the results later.
//!
//! asyncio: `task = asyncio.create_task(fetch(url))`, then `await task`; `task.cancel()` is `abort`.
//! A future that is not spawned starts when it is awaited, as a coroutine does.
//!
//! ```text
//! cargo run --release --example spawn
//! ```

mod demo;

use std::time::{Duration, Instant};

use fanout::Fetcher;
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = demo::start().await;
    let fetcher = Fetcher::new();
    let started = Instant::now();

    // One request, and a whole batch: both futures own what they need.
    let one = tokio::spawn(fetcher.fetch(format!("{server}/delay/500")));
    let urls: Vec<_> = (1..=3)
        .map(|page| format!("{server}/page/{page}"))
        .collect();
    let many = tokio::spawn(fetcher.gather(urls));

    sleep(Duration::from_millis(500)).await;
    println!("half a second of other work is done");

    // The first `?` is the task's own (a panic in it, an abort), the second the request's.
    println!("one: {}", one.await??.text());
    for result in many.await? {
        println!("many: {}", result?.status());
    }
    println!("all of it took {:.1?}", started.elapsed());

    // To abort the task cancels the request: its connection is closed.
    let endless = tokio::spawn(fetcher.fetch(format!("{server}/delay/60000")));
    sleep(Duration::from_millis(50)).await;
    endless.abort();
    assert!(endless.await.is_err_and(|error| error.is_cancelled()));
    Ok(())
}
