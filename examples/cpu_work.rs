//! Parses pages on the blocking pool while other pages are still being fetched.
//!
//! asyncio: `await loop.run_in_executor(pool, parse, page)`. The reason is the same: a long
//! computation must not block the threads that serve the sockets.
//!
//! ```text
//! cargo run --release --example cpu_work
//! ```

mod demo;

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use fanout::Fetcher;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = demo::start().await;
    let urls = (0..40).map(|page| format!("{server}/page/{page}"));

    // The blocking pool has hundreds of threads. The semaphore limits the parsers to one per core.
    let cores = Arc::new(Semaphore::new(available_parallelism()?.get()));
    let started = Instant::now();
    let mut parsing = JoinSet::new();
    let mut fetched = Duration::ZERO;
    let mut done = Fetcher::new().as_completed(urls);
    while let Some(completed) = done.next().await {
        // The time from reading the input to the last byte of its response. It does not include the
        // time that the result waits for this loop.
        fetched = fetched.max(completed.timings().total());
        let page = completed.result?.error_for_status()?;
        let permit = Arc::clone(&cores).acquire_owned().await?;
        parsing.spawn_blocking(move || {
            let _permit = permit;
            parse(&page.text())
        });
    }

    let mut titles = Vec::new();
    while let Some(title) = parsing.join_next().await {
        titles.push(title?.ok_or("a page without a title")?);
    }
    let parsed = started.elapsed();

    println!("40 pages: fetched after {fetched:.1?}, parsed after {parsed:.1?}");
    assert_eq!(titles.len(), 40);
    assert!(fetched < parsed, "the fetches do not wait for the parsers");
    Ok(())
}

/// Returns the title of a page after 50 ms of computation.
fn parse(page: &str) -> Option<String> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    let (_, rest) = page.split_once("<title>")?;
    let (title, _) = rest.split_once("</title>")?;
    Some(title.to_owned())
}
