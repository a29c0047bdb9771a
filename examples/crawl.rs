//! Crawls a site: each page leads to more, within bounds, and no page is asked for twice.
//!
//! asyncio: a queue, a set of what has been seen, a number of workers, and some care to know when all
//! of them are done.
//!
//! ```text
//! cargo run --release --example crawl
//! ```

mod demo;

use fanout::{Completed, Fetcher, Follow};

/// Where a page links to. A real crawler has an HTML parser for this.
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
    let mut pages = fetcher
        .as_completed([home])
        .follow(Follow::new(links).max_depth(10).max_requests(100));
    while let Some(page) = pages.next().await {
        let parent = page
            .parent
            .map_or("the start".to_owned(), |parent| format!("page {parent}"));
        println!(
            "{:>3} {} from {parent}, {} steps away",
            page.index,
            page.result?.url(),
            page.depth
        );
        found += 1;
    }

    println!(
        "{found} pages; {} links lead beyond the bounds",
        pages.skipped()
    );
    assert_eq!(found, 101, "the start and a hundred more");
    Ok(())
}
