//! Crawls a site: follows the links of each page, within limits, and fetches no page twice.
//!
//! asyncio: a queue, a set of visited URLs, worker tasks, and a way to detect that all of them are
//! idle.
//!
//! ```text
//! cargo run --release --example crawl
//! ```

mod demo;

use fanout::{Completed, Fetcher, FollowLimits};

/// The links of a page. A real crawler uses an HTML parser.
fn links(page: &Completed) -> Vec<String> {
    let Ok(response) = &page.result else {
        return Vec::new();
    };
    let text = response.text();
    let hrefs = text
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let urls = hrefs.filter_map(|href| response.url().join(href).ok());
    urls.map(String::from).collect()
}

#[tokio::main]
async fn main() -> fanout::Result<()> {
    let server = demo::start().await;
    let home = format!("{server}/page/1");

    let fetcher = Fetcher::builder().concurrency_per_host(8).build()?;
    let mut found = 0;
    let limits = FollowLimits::default().max_depth(10).max_requests(100);
    let mut pages = fetcher.as_completed([home]).follow_links(limits, links);
    while let Some(page) = pages.next().await {
        let parent = page
            .parent_index
            .map_or("the start page".to_owned(), |parent| {
                format!("page {parent}")
            });
        println!(
            "{:>3} {} from {parent}, depth {}",
            page.index,
            page.result?.url(),
            page.depth
        );
        found += 1;
    }

    println!(
        "{found} pages; {} links skipped by the limits",
        pages.skipped_requests()
    );
    assert_eq!(found, 101, "the start page and 100 others");
    Ok(())
}
