//! Shows that nothing aborts a batch: five inputs of which three fail, and five answers.
//!
//! asyncio: `asyncio.gather(..., return_exceptions=True)`, then `isinstance(result, Exception)` and
//! the chain of `__cause__`.
//!
//! ```text
//! cargo run --release --example errors
//! ```

mod demo;

use std::collections::BTreeMap;
use std::error::Error as _;

use fanout::{Error, ErrorKind, Fetcher, Response};

#[tokio::main]
async fn main() -> fanout::Result<()> {
    let server = demo::start().await;
    let urls = [
        format!("{server}/page/1"),
        format!("{server}/status/404"),
        "http://no-such-host.invalid/".to_owned(),
        "no scheme, no host".to_owned(),
        format!("{server}/page/2"),
    ];

    let mut failures: BTreeMap<ErrorKind, u32> = BTreeMap::new();
    // Behind a proxy of the environment it is the proxy that looks for hosts, and it answers with a status of its own.
    let fetcher = Fetcher::builder().no_proxy().build()?;
    let results = fetcher.gather(&urls).await;
    for (url, result) in urls.iter().zip(results) {
        // A status is not an error until this makes it one.
        match result.and_then(Response::error_for_status) {
            Ok(response) => println!("{url}\n    {}", response.status()),
            Err(error) => {
                println!("{url}");
                explain(&error);
                *failures.entry(error.kind()).or_default() += 1;
            }
        }
    }
    println!("{failures:?}");

    assert_eq!(failures.values().sum::<u32>(), 3, "two of five succeeded");
    assert_eq!(failures[&ErrorKind::Status], 1);
    assert_eq!(failures[&ErrorKind::InvalidRequest], 1);
    Ok(())
}

/// `Display` prints one level; the causes below are reached with `source`.
fn explain(error: &Error) {
    println!("    {:?}: {error}", error.kind());
    let mut cause = error.source();
    while let Some(below) = cause {
        println!("    caused by: {below}");
        cause = below.source();
    }
    println!(
        "    attempts: {}, the server may have seen it: {}",
        error.attempts().len(),
        error.maybe_sent()
    );
}
