//! Fetches URLs concurrently and prints one line per URL, in input order.
//!
//! asyncio: `await asyncio.gather(*map(fetch, urls), return_exceptions=True)`.
//!
//! ```text
//! cargo run --release --example gather
//! cargo run --release --example gather https://example.com https://example.org
//! ```

mod demo;

use std::time::{Duration, Instant};

use fanout::Fetcher;

#[tokio::main]
async fn main() {
    let mut urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        let server = demo::start().await;
        urls = [1, 2, 1, 2, 1]
            .map(|seconds| format!("{server}/delay/{}", seconds * 1000))
            .to_vec();
    }

    let fetcher = Fetcher::new();
    let started = Instant::now();
    let results = fetcher.gather(&urls).await;
    let total = started.elapsed();

    let mut one_after_another = Duration::ZERO;
    for (url, result) in urls.iter().zip(&results) {
        let elapsed = match result {
            Ok(response) => {
                let elapsed = response.timings().wire();
                let (status, bytes) = (response.status().as_u16(), response.bytes().len());
                println!("{url} {status} {bytes} bytes {:.1}s", elapsed.as_secs_f64());
                elapsed
            }
            Err(error) => {
                println!("{error}");
                error.timings().wire()
            }
        };
        one_after_another += elapsed;
    }
    println!(
        "Total: {:.1}s (one after another: {:.1}s)",
        total.as_secs_f64(),
        one_after_another.as_secs_f64()
    );

    assert_eq!(results.len(), urls.len(), "one result per input");
    if std::env::args().len() == 1 {
        assert!(total < one_after_another, "they were fetched side by side");
    }
}
