//! Sends prompts to a metered API with fanout. Prints the number of successful responses.
//!
//!     metered_client SERVER budgets|defaults REQUESTS TOKENS PERIOD_SECS <PROMPTS
//!
//! The input has one JSON object per line, with `prompt` and `max_tokens`.

use std::time::Duration;

use fanout::{Budget, Fetcher, Host, Request, Response};
use serde::{Deserialize, Serialize};

#[derive(Clone, Deserialize, Serialize)]
struct Prompt {
    prompt: String,
    max_tokens: u64,
}

#[derive(Deserialize)]
struct Completion {
    usage: Usage,
}

#[derive(Deserialize)]
struct Usage {
    total_tokens: u64,
}

fn used_tokens(response: &Response) -> Option<u64> {
    let completion: Completion = response.json().ok()?;
    Some(completion.usage.total_tokens)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, settings, requests, tokens, period] = &args[..] else {
        panic!("a server, budgets or defaults, requests, tokens and seconds")
    };
    let period = Duration::from_secs(period.parse()?);
    let host = if settings == "budgets" {
        Host::new()
            .budget(Budget::per("requests", requests.parse()?, period))
            .budget(Budget::per("tokens", tokens.parse()?, period).settle(used_tokens))
    } else {
        Host::new()
    };
    let fetcher = Fetcher::builder().host(server, host).build()?;
    let prompts: Vec<Prompt> = std::io::read_to_string(std::io::stdin())?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let inputs = prompts.iter().map(|prompt| {
        let estimate = prompt.prompt.len() as u64 / 4 + prompt.max_tokens;
        Request::post(format!("{server}/v1/completions"))
            .json(prompt)
            .cost("tokens", estimate)
    });
    let results = fetcher.gather(inputs).await;
    let succeeded = results
        .iter()
        .flatten()
        .filter(|response| response.status() == 200);
    println!("{}", succeeded.count());
    Ok(())
}
