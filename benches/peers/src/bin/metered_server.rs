//! An API that limits requests and tokens.
//!
//!     metered_server PORT fixed|sliding|bucket REQUESTS TOKENS PERIOD_SECS

#[path = "../../../../tests/api/support/metered_api.rs"]
mod metered_api;

use std::time::Duration;

use metered_api::{MeterLimits, MeteredApi, Metering};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, metering, requests, tokens, period] = &args[..] else {
        panic!("a port, a kind of metering, requests, tokens and seconds")
    };
    let metering = match metering.as_str() {
        "fixed" => Metering::FixedWindows,
        "sliding" => Metering::SlidingWindow,
        "bucket" => Metering::TokenBucket,
        other => panic!("there is no metering {other:?}"),
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let limits = MeterLimits {
        requests: number(requests),
        tokens: number(tokens),
        period: Duration::from_secs(number(period)),
    };
    let api = MeteredApi::new(metering, limits)
        .latency(Duration::from_millis(200))
        .with_limit_headers();
    let listener = TcpListener::bind(("127.0.0.1", number(port) as u16)).await?;
    axum::serve(listener, api.router()).await
}
