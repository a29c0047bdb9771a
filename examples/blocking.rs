//! Fetches from a synchronous program with a runtime of its own and `block_on`.
//!
//! asyncio: `asyncio.run(main())`, or `loop.run_until_complete(...)` with a loop that is kept.
//!
//! ```text
//! cargo run --release --example blocking
//! ```

mod demo;

use fanout::{Fetcher, Response};
use tokio::runtime::{Builder, Runtime};

/// A synchronous API for the rest of the program.
struct Client {
    runtime: Runtime,
    fetcher: Fetcher,
}

impl Client {
    fn new() -> std::io::Result<Self> {
        // Idle connections belong to the runtime, so keep one runtime for all calls.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            runtime,
            fetcher: Fetcher::new(),
        })
    }

    fn get(&self, url: &str) -> fanout::Result<Response> {
        self.runtime.block_on(self.fetcher.fetch(url))
    }

    fn get_all(&self, urls: &[String]) -> Vec<fanout::Result<Response>> {
        self.runtime.block_on(self.fetcher.gather(urls))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new()?;
    let server = client.runtime.block_on(demo::start());

    let todo = client.get(&format!("{server}/json/todo/1"))?;
    println!("{}", todo.text());

    let urls: Vec<_> = (1..=5)
        .map(|page| format!("{server}/page/{page}"))
        .collect();
    for result in client.get_all(&urls) {
        let response = result?.error_for_status()?;
        println!("{} {}", response.url(), response.status());
    }
    Ok(())
}
