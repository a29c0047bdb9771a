//! Reads a paginated list: the `Link` header of each response has the URL of the next page.
//!
//! asyncio: `while url: response = await fetch(url); url = next_of(response)`, once per list. One
//! batch can read any number of lists concurrently.
//!
//! ```text
//! cargo run --release --example pagination
//! ```

mod demo;

use fanout::{Fetcher, FollowLimits};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = demo::start().await;
    let first = format!("{server}/list/1");

    let fetcher = Fetcher::new();
    let mut items: Vec<u64> = Vec::new();
    let mut pages = fetcher
        .as_completed([first])
        .follow_next_link(FollowLimits::default());
    while let Some(page) = pages.next().await {
        let page: Vec<u64> = page.result?.error_for_status()?.json()?;
        items.extend(page);
    }

    println!(
        "{} items, from {} to {}",
        items.len(),
        items[0],
        items[items.len() - 1]
    );
    assert!(
        items.into_iter().eq(10..210),
        "the pages of a list arrive in order"
    );
    Ok(())
}
