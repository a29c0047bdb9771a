//! Rates as the servers see them: never more than was allowed, and no less than could be.

mod server;

use std::time::{Duration, Instant};

use fanout::{Fetcher, Rate};
use server::FaultServer;

#[tokio::test]
async fn measure() {
    let server = FaultServer::start();
    let fetcher = Fetcher::new();
    for (rate, seconds) in [(10u32, 3), (100, 3), (1000, 3), (5000, 3)] {
        let count = (rate * seconds) as usize;
        let urls = (0..count)
            .map(|n| server.url(&format!("/ok/{n}")))
            .collect::<Vec<_>>();
        let begun = Instant::now();
        let results = fetcher
            .batch(&urls)
            .rate(Rate::per_second(rate))
            .gather()
            .await;
        let took = begun.elapsed();
        assert!(results.iter().all(Result::is_ok));
        let mut at = server.instants();
        at.sort();
        let span = at[count - 1] - at[0];
        let real = (count - 1) as f64 / span.as_secs_f64();
        println!(
            "{rate}/s: {:.2} %  ({took:?})",
            (real / f64::from(rate) - 1.0) * 100.0
        );
        server.reset();
    }
    let _ = Duration::ZERO;
}
