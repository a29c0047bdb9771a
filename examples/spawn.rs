//! Spawns fetches, does other work, and awaits the results later.
//!
//! asyncio: `task = asyncio.create_task(fetch(url))`, then `await task`. `task.cancel()` is
//! `abort`. A future that is not spawned starts when it is awaited, like a coroutine.
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

    // The futures of a request and of a batch own their data, so both can be spawned.
    let one = tokio::spawn(fetcher.fetch(format!("{server}/delay/500")));
    let urls: Vec<_> = (1..=3)
        .map(|page| format!("{server}/page/{page}"))
        .collect();
    let many = tokio::spawn(fetcher.gather(urls));

    sleep(Duration::from_millis(500)).await;
    println!("half a second of other work is done");

    // The first `?` handles an error of the task, the second an error of the request.
    println!("one: {}", one.await??.text());
    for result in many.await? {
        println!("many: {}", result?.status());
    }
    println!("total: {:.1?}", started.elapsed());

    // Aborting the task cancels the request and closes its connection.
    let endless = tokio::spawn(fetcher.fetch(format!("{server}/delay/60000")));
    sleep(Duration::from_millis(50)).await;
    endless.abort();
    assert!(endless.await.is_err_and(|error| error.is_cancelled()));
    Ok(())
}
