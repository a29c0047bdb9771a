//! Tests code that fetches, without a network and without waiting.
//!
//! asyncio: aioresponses or a fake session. Here the code under test gets a real Fetcher, with an
//! axum `Router` in place of the wire: limits, retries and back-off are the real ones. With tokio's
//! clock paused, a minute of them takes no time.
//!
//! ```text
//! cargo run --release --example testing
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};
use fanout::Fetcher;

/// The code under test. It takes the Fetcher it is to use.
async fn prices(fetcher: &Fetcher, items: &[&str]) -> Vec<Option<u32>> {
    let urls = items
        .iter()
        .map(|item| format!("https://shop.example/price/{item}"));
    let mut prices = Vec::new();
    for result in fetcher.gather(urls).await {
        let response = result.and_then(fanout::Response::error_for_status);
        prices.push(
            response
                .ok()
                .and_then(|response| response.text().parse().ok()),
        );
    }
    prices
}

// In a test this is `#[tokio::test(start_paused = true)]`.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> fanout::Result<()> {
    let asked = Arc::new(AtomicU32::new(0));
    let times = Arc::clone(&asked);
    let busy_at_first = move || async move {
        match times.fetch_add(1, Ordering::Relaxed) {
            0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "60")]).into_response(),
            _ => "25".into_response(),
        }
    };
    let shop = Router::new()
        .route("/price/tea", get(|| async { "3" }))
        .route("/price/pot", get(busy_at_first));
    let fetcher = Fetcher::builder().transport(shop).build()?;

    let started = tokio::time::Instant::now();
    let prices = prices(&fetcher, &["tea", "pot", "spoon"]).await;

    println!("{prices:?} after {:?} of paused time", started.elapsed());
    assert_eq!(prices, [Some(3), Some(25), None]);
    assert_eq!(asked.load(Ordering::Relaxed), 2, "it was asked again, once");
    assert!(
        started.elapsed() >= Duration::from_secs(60),
        "and left alone as it asked"
    );
    Ok(())
}
