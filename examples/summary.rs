//! Summarizes a batch in a short table: counts, percentiles and hosts.
//!
//! asyncio: a list of durations, `statistics.quantiles` and a `Counter`.
//!
//! ```text
//! cargo run --release --example summary
//! ```

mod demo;

use std::time::Instant;

use fanout::{Fetcher, Summary};

#[tokio::main]
async fn main() {
    let servers = [demo::start().await, demo::start().await];
    let urls = (0..200).map(|n| match n % 20 {
        0 => format!("{}/status/404", servers[0]),
        1 => format!("{}/bytes/100000", servers[1]),
        2 => "http://127.0.0.1:1/nobody-listens-here".to_owned(),
        _ => format!("{}/delay/{n}", servers[n % 2]),
    });

    let started = Instant::now();
    let mut summary = Summary::default();
    let fetcher = Fetcher::new();
    let mut done = fetcher.as_completed(urls);
    while let Some(completed) = done.next().await {
        summary.add(&completed);
    }
    let summary = summary.with_wall_time(started.elapsed());

    print!("{summary}");
    assert_eq!((summary.requests(), summary.failed()), (200, 10));
    assert!(summary.wire_time().p50() <= summary.wire_time().p99());
}
