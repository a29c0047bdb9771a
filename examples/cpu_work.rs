//! Parses each page on the blocking pool while the others are still being fetched.
//!
//! asyncio: `await loop.run_in_executor(pool, parse, page)`. The reason is the same: code that
//! computes for long must not run where the sockets are served.
//!
//! ```text
//! cargo run --release --example cpu_work
//! ```

mod demo;

use std::time::{Duration, Instant};

use fanout::Fetcher;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = demo::start().await;
    let urls = (0..40).map(|page| format!("{server}/page/{page}"));

    let fetcher = Fetcher::new();
    let started = Instant::now();
    let mut parsing = JoinSet::new();
    let mut done = fetcher.as_completed(urls);
    while let Some(completed) = done.next().await {
        let page = completed.result?.error_for_status()?;
        parsing.spawn_blocking(move || parse(&page.text()));
    }
    let fetched = started.elapsed();

    let mut titles = Vec::new();
    while let Some(parsed) = parsing.join_next().await {
        titles.push(parsed?.ok_or("a page without a title")?);
    }
    let parsed = started.elapsed();

    println!(
        "all {} fetched after {fetched:.1?}, all parsed after {parsed:.1?}",
        titles.len()
    );
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
