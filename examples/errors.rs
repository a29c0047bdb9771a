//! Handles failures: of five inputs three fail, and there are five results.
//!
//! asyncio: `asyncio.gather(..., return_exceptions=True)`, then `isinstance(result, Exception)` and
//! the `__cause__` chain.
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
    // A proxy of the environment would resolve the host name itself and respond with a status.
    let fetcher = Fetcher::builder().no_proxy().build()?;
    let results = fetcher.gather(&urls).await;
    for (url, result) in urls.iter().zip(results) {
        // A status is an error only after `error_for_status`.
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

    assert_eq!(
        failures.values().sum::<u32>(),
        3,
        "two of five inputs succeed"
    );
    assert_eq!(failures[&ErrorKind::Status], 1);
    assert_eq!(failures[&ErrorKind::InvalidRequest], 1);
    Ok(())
}

/// Prints an error and its causes. `Display` shows one level; `source` returns the next.
fn explain(error: &Error) {
    println!("    {:?}: {error}", error.kind());
    let mut cause = error.source();
    while let Some(inner) = cause {
        println!("    caused by: {inner}");
        cause = inner.source();
    }
    println!(
        "    attempts: {}, maybe sent: {}",
        error.attempts().len(),
        error.maybe_sent()
    );
}
