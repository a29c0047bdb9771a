//! Applies two limits: at most 5 requests on the wire, and at most 20 starts per second.
//!
//! asyncio: `asyncio.Semaphore(5)` around each fetch, and aiolimiter's `AsyncLimiter(1, 1 / 20)`
//! inside it. There a request holds the semaphore while it waits for the rate. Here it holds no
//! slot.
//!
//! ```text
//! cargo run --release --example rate_limited
//! ```

mod demo;

use std::time::{Duration, Instant};

use fanout::{Fetcher, Rate};

const REQUESTS: u32 = 40;
const PER_SECOND: u32 = 20;

#[tokio::main]
async fn main() -> fanout::Result<()> {
    let server = demo::start().await;
    let urls = (0..REQUESTS).map(|_| format!("{server}/delay/200"));

    let fetcher = Fetcher::new();
    let started = Instant::now();
    let mut done = fetcher
        .batch(urls)
        .concurrency(5)
        .rate(Rate::per_second(PER_SECOND)) // or "20/s".parse()?
        .as_completed();
    while let Some(completed) = done.next().await {
        let timings = completed.timings();
        println!(
            "{:>2} at {:.2}s: {:.2}s in the schedule, {:.2}s on the wire",
            completed.index,
            started.elapsed().as_secs_f64(),
            timings.queued().as_secs_f64(),
            timings.wire().as_secs_f64()
        );
        completed.result?;
    }
    let elapsed = started.elapsed();

    let peak = fetcher.fetch(format!("{server}/peak")).await?;
    println!(
        "{REQUESTS} requests in {elapsed:.1?}, at most {} at once",
        peak.text()
    );

    assert!(peak.text().parse::<u32>().is_ok_and(|peak| peak <= 5));
    let min_duration = Duration::from_secs(1) * (REQUESTS - 1) / PER_SECOND;
    assert!(
        elapsed >= min_duration,
        "at most {PER_SECOND} requests start per second"
    );
    Ok(())
}
