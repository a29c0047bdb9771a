//! Prints each result as it completes, the fastest first.
//!
//! asyncio: `for future in asyncio.as_completed(map(fetch, urls)): result = await future`. Unlike
//! there, each result has the index of its input.
//!
//! ```text
//! cargo run --release --example as_completed
//! ```

mod demo;

use fanout::Fetcher;

#[tokio::main]
async fn main() -> fanout::Result<()> {
    let server = demo::start().await;
    let urls = [900, 300, 1200, 600].map(|millis| format!("{server}/delay/{millis}"));

    let fetcher = Fetcher::new();
    let mut order = Vec::new();
    let mut done = fetcher.as_completed(&urls);
    while let Some(completed) = done.next().await {
        let response = completed.result?;
        println!("input {}: {}", completed.index, response.text());
        order.push(completed.index);
    }

    assert_eq!(
        order,
        [1, 3, 0, 2],
        "results come in the order of completion"
    );
    Ok(())
}
