//! Sends 200 prompts to an API that limits the requests and the tokens per period, without a
//! single 429.
//!
//! Python: the script `api_request_parallel_processor.py` of the OpenAI cookbook. It estimates the
//! tokens of each request, and does not correct the estimate by the response.
//!
//! ```text
//! cargo run --release --example llm
//! ```

#[path = "../tests/api/support/metered_api.rs"]
mod metered_api;

use std::time::{Duration, Instant};

use fanout::{BatchHandle, Budget, Fetcher, Host, Request, Response};
use metered_api::{Completion, MeterLimits, MeteredApi, Metering, Prompt};
use tokio::time::sleep;

const PROMPTS: usize = 200;
const MAX_TOKENS: u64 = 100;
const CENTS_PER_MILLION_TOKENS: u64 = 250;

// A real API has limits per minute. Here a period lasts two seconds.
const PERIOD: Duration = Duration::from_secs(2);
const REQUESTS_PER_PERIOD: u64 = 60;
const TOKENS_PER_PERIOD: u64 = 6_000;

/// Returns the tokens that a response states.
fn used_tokens(response: &Response) -> Option<u64> {
    let completion: Completion = response.json().ok()?;
    Some(completion.usage.total_tokens)
}

#[tokio::main]
async fn main() -> fanout::Result<()> {
    let limits = MeterLimits {
        requests: REQUESTS_PER_PERIOD,
        tokens: TOKENS_PER_PERIOD,
        period: PERIOD,
    };
    let api = MeteredApi::new(Metering::SlidingWindow, limits).latency(Duration::from_millis(200));
    let server = api.start().await;

    // A request that is delayed on its way arrives closer to the next one. With periods as short as
    // here, this matters, so the budgets are a tenth below the limits.
    let requests = Budget::per("requests", REQUESTS_PER_PERIOD * 9 / 10, PERIOD);
    let tokens = Budget::per("tokens", TOKENS_PER_PERIOD * 9 / 10, PERIOD)
        .burst(200) // no request costs more
        .settle(used_tokens);
    let host = Host::new()
        .bearer_auth("key")
        .budget(requests)
        .budget(tokens);
    let fetcher = Fetcher::builder().host(&server, host).build()?;

    let prompts: Vec<String> = (0..PROMPTS)
        .map(|n| format!("Summarise document {n}:{}", " lorem ipsum".repeat(n % 12)))
        .collect();
    let inputs = prompts.iter().map(|prompt| {
        // About four characters are a token. The response may be shorter than the maximum.
        let estimate = prompt.len() as u64 / 4 + MAX_TOKENS;
        let body = Prompt {
            prompt: prompt.clone(),
            max_tokens: MAX_TOKENS,
        };
        Request::post(format!("{server}/v1/completions"))
            .json(&body)
            .cost("tokens", estimate)
    });

    let started = Instant::now();
    let batch = fetcher.batch(inputs);
    let display = tokio::spawn(show(batch.handle()));
    let mut spent_tokens = 0;
    for result in batch.gather().await {
        let completion: Completion = result?.error_for_status()?.json()?;
        spent_tokens += completion.usage.total_tokens;
    }
    display.await.expect("no panic");

    let cents = spent_tokens as f64 * CENTS_PER_MILLION_TOKENS as f64 / 1e6;
    let seconds = started.elapsed().as_secs_f64();
    println!("{PROMPTS} prompts in {seconds:.1} s: {spent_tokens} tokens, {cents:.2} cents");
    let report = api.report();
    println!(
        "The server rejected {} of {} requests. It saw at most {} requests and {} tokens in {PERIOD:?}.",
        report.rejections, report.requests, report.peak_requests, report.peak_tokens
    );
    assert_eq!((report.requests, report.rejections), (PROMPTS as u64, 0));
    assert_eq!(report.tokens, spent_tokens);
    Ok(())
}

/// Prints a line per second until the batch ends.
async fn show(handle: BatchHandle) {
    loop {
        let progress = handle.progress();
        if progress.has_ended() {
            return;
        }
        let budgets = progress.budgets().iter().map(|budget| {
            let (name, level, capacity) = (budget.name(), budget.level(), budget.capacity());
            format!("{name} {level} of {capacity}")
        });
        println!(
            "{:>3} of {PROMPTS}, {} in flight, {}; {}",
            progress.completed(),
            progress.in_flight(),
            progress.waiting(),
            budgets.collect::<Vec<_>>().join(", ")
        );
        sleep(Duration::from_secs(1)).await;
    }
}
