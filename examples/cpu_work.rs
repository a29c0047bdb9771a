//! Parses each page on the blocking pool while the others are still being fetched.
//!
//! asyncio: `await loop.run_in_executor(pool, parse, page)`. The reason is the same: code that
//! computes for long must not run where the sockets are served.
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

    // The blocking pool has hundreds of threads; there is work for as many as there are cores.
    let cores = Arc::new(Semaphore::new(available_parallelism()?.get()));
    let started = Instant::now();
    let mut parsing = JoinSet::new();
    let mut fetched = Duration::ZERO;
    let mut done = Fetcher::new().as_completed(urls);
    while let Some(completed) = done.next().await {
        // Counted from when the input was taken to the last byte, whenever it is looked at.
        fetched = fetched.max(completed.timings().total());
        let page = completed.result?.error_for_status()?;
        let core = Arc::clone(&cores).acquire_owned().await?;
        parsing.spawn_blocking(move || {
            let _core = core;
            parse(&page.text())
        });
    }

    let mut titles = Vec::new();
    while let Some(title) = parsing.join_next().await {
        titles.push(title?.ok_or("a page without a title")?);
    }
    let parsed = started.elapsed();

    println!("40 pages were here after {fetched:.1?}, and parsed after {parsed:.1?}");
    assert_eq!(titles.len(), 40);
    assert!(fetched < parsed, "the fetches did not wait for the parsing");
    Ok(())
}

/// The title of a page, by a parser that takes its time.
fn parse(page: &str) -> Option<String> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    let (_, rest) = page.split_once("<title>")?;
    let (title, _) = rest.split_once("</title>")?;
    Some(title.to_owned())
}
