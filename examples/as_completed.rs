//! Takes each result as soon as it is there: the fastest first, whatever the order of the inputs.
//!
//! asyncio: `for future in asyncio.as_completed(map(fetch, urls)): result = await future`, except
//! that each result here knows which input it belongs to.
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

    assert_eq!(order, [1, 3, 0, 2], "the fastest came first");
    Ok(())
}
