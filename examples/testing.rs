//! Tests code that fetches, without a network and without waiting.
//!
//! asyncio: aioresponses or a fake session. Here the code under test gets a real Fetcher with a
//! transport that replaces the network: limits, retries and timeouts are the real ones. With
//! tokio's clock paused they take no real time.
//!
//! ```text
//! cargo run --release --example testing
//! ```

use std::time::Duration;

use axum::{Router, routing::get};
use fanout::{ErrorKind, Fetcher, Mock, MockResponse, Response};

/// The code under test. The caller provides the Fetcher.
async fn prices(fetcher: &Fetcher, items: &[&str]) -> Vec<Option<u32>> {
    let urls = items
        .iter()
        .map(|item| format!("https://shop.example/price/{item}"));
    let results = fetcher.gather(urls).await.into_iter();
    let price = |result: fanout::Result<Response>| {
        let response = result.and_then(Response::error_for_status).ok()?;
        response.text().parse().ok()
    };
    results.map(price).collect()
}

// In a test this is `#[tokio::test(start_paused = true)]`.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> fanout::Result<()> {
    // The feature `test-util` provides `Mock`: responses by URL, errors and a request log.
    let busy = MockResponse::status(503).header("retry-after", "60");
    let mock = Mock::new()
        .on("https://shop.example/price/tea", "3")
        .on("https://shop.example/price/pot", busy)
        .then(ErrorKind::Closed)
        .then("25")
        .on("https://shop.example/price/cup", MockResponse::hang());
    let fetcher = Fetcher::builder().transport(mock.clone()).build()?;

    let started = tokio::time::Instant::now();
    let found = prices(&fetcher, &["tea", "pot", "cup", "spoon"]).await;
    println!("{found:?} after {:?} of tokio time", started.elapsed());
    assert_eq!(found, [Some(3), Some(25), None, None]);
    assert_eq!(mock.request_count_to("https://shop.example/price/pot"), 3);
    assert!(started.elapsed() >= Duration::from_secs(60));

    // Any tower service is a transport, such as the `Router` of the real server.
    let shop = Router::new().route("/price/{item}", get(|| async { "7" }));
    let fetcher = Fetcher::builder().transport(shop).build()?;
    assert_eq!(prices(&fetcher, &["tea"]).await, [Some(7)]);
    Ok(())
}
