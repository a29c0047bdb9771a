//! # Metered APIs
//!
//! An API for language models, maps or search usually limits how much a client may use per minute,
//! and charges for each use. This guide shows how a batch uses all of the permitted throughput
//! without a 429, and how it stops before it becomes too expensive.
//!
//! # One budget
//!
//! A [`Budget`](crate::Budget) has a name, a number of units and a period. Each request costs some
//! of the units. A budget named `requests` counts requests: each costs 1, so nothing needs to be
//! stated.
//!
//! ```
//! use fanout::{Budget, Fetcher, Host};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> fanout::Result<()> {
//! # use fanout::Mock;
//! # let mock = Mock::new().fallback("{}");
//! let api = Host::new().bearer_auth("key").budget(Budget::per_minute("requests", 500));
//! let fetcher = Fetcher::builder()
//!     .host("https://api.example", api)
//! #   .transport(mock.clone())
//!     .build()?;
//! let results = fetcher.gather((0..40).map(|n| format!("https://api.example/{n}"))).await;
//! assert!(results.iter().all(Result::is_ok));
//! # assert_eq!(mock.request_count(), 40);
//! # Ok(())
//! # }
//! ```
//!
//! A request that the budget does not cover is queued. It holds no slot and no connection, and none
//! of its timeouts run. Requests to other hosts proceed.
//!
//! The budget belongs to the host: all batches and single fetches share it. A budget can also
//! belong to one batch ([`Batch::budget`](crate::Batch::budget)) or to all hosts together
//! ([`FetcherBuilder::budget`](crate::FetcherBuilder::budget)). If several budgets apply to a
//! request, it needs all of them.
//!
//! # Requests and tokens
//!
//! Most APIs for language models have a second limit, on tokens. The request states what it costs:
//!
//! ```
//! use fanout::{Budget, Fetcher, Host, Request};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> fanout::Result<()> {
//! # use fanout::Mock;
//! # let mock = Mock::new().fallback("{}");
//! const MAX_TOKENS: u64 = 400;
//!
//! let api = Host::new()
//!     .budget(Budget::per_minute("requests", 500))
//!     .budget(Budget::per_minute("tokens", 200_000));
//! let fetcher = Fetcher::builder()
//!     .host("https://api.example", api)
//! #   .transport(mock.clone())
//!     .build()?;
//!
//! let prompts = ["Name three rivers.", "Name three mountains."];
//! let requests = prompts.map(|prompt| {
//!     // About four characters are a token. The response has at most `MAX_TOKENS`.
//!     let estimate = prompt.len() as u64 / 4 + MAX_TOKENS;
//!     Request::post("https://api.example/v1/completions")
//!         .body(format!(r#"{{"prompt": "{prompt}", "max_tokens": {MAX_TOKENS}}}"#))
//!         .cost("tokens", estimate)
//! });
//! let results = fetcher.gather(requests).await;
//! assert!(results.iter().all(Result::is_ok));
//! # Ok(())
//! # }
//! ```
//!
//! A request starts when both budgets cover its cost, and is then charged on both at once. While it
//! waits for tokens, it keeps no part of the budget of requests from others.
//!
//! Any name will do: `tokens`, `input-tokens`, `points`, `cents`. A request that states no cost on
//! a budget costs nothing there, unless the budget has a
//! [`default_cost`](crate::Budget::default_cost). The exception is `requests`.
//!
//! # Large requests
//!
//! A budget is refilled continuously, up to its capacity. The capacity is small: `units / 40`,
//! which is 5,000 of 200,000 tokens. A full budget in front of a server that counts fixed minutes
//! would otherwise admit up to twice the limit in one minute.
//! [Which requests a period admits](crate::Budget#which-requests-a-period-admits) has the details.
//!
//! The capacity is also the largest cost of a single request. A request that costs more fails at
//! once, with [`ErrorKind::Budget`](crate::ErrorKind::Budget). Set
//! [`burst`](crate::Budget::burst) to the cost of the largest request:
//!
//! ```
//! use fanout::{Budget, ErrorKind, Fetcher, Host, Request};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> fanout::Result<()> {
//! # use fanout::Mock;
//! let tokens = Budget::per_minute("tokens", 200_000).burst(16_000);
//! let fetcher = Fetcher::builder()
//!     .host("https://api.example", Host::new().budget(tokens))
//! #   .transport(Mock::new().fallback("{}"))
//!     .build()?;
//!
//! let request = |cost| Request::post("https://api.example/chat").cost("tokens", cost);
//! let results = fetcher.gather([request(16_000), request(16_001)]).await;
//! assert!(results[0].is_ok());
//! assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Budget);
//! # Ok(())
//! # }
//! ```
//!
//! The guarantee is about the times at which requests start. If requests are delayed by different
//! times on their way to the server, the server sees some of them closer together. A budget leaves
//! 1 % of the period for this: 0.6 s of a minute. For a period of a few seconds, choose the units
//! some percent below the limit.
//!
//! # The actual cost
//!
//! The stated cost is an estimate. The response says what the request has cost.
//! [`settle`](crate::Budget::settle) takes a function that reads this number:
//!
//! ```
//! use fanout::{Budget, Fetcher, Host, Request, Response};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> fanout::Result<()> {
//! # use fanout::{Mock, MockResponse};
//! #[derive(serde::Deserialize)]
//! struct Completion {
//!     usage: Usage,
//! }
//!
//! #[derive(serde::Deserialize)]
//! struct Usage {
//!     total_tokens: u64,
//! }
//!
//! fn used_tokens(response: &Response) -> Option<u64> {
//!     let completion: Completion = response.json().ok()?;
//!     Some(completion.usage.total_tokens)
//! }
//!
//! let tokens = Budget::per_minute("tokens", 200_000).settle(used_tokens);
//! let fetcher = Fetcher::builder()
//!     .host("https://api.example", Host::new().budget(tokens))
//! #   .transport(Mock::new().fallback(r#"{"usage": {"total_tokens": 70}}"#))
//!     .build()?;
//!
//! // The estimate was 400 tokens, and the response used 70.
//! fetcher.fetch(Request::post("https://api.example/chat").cost("tokens", 400)).await?;
//! let snapshot = fetcher.snapshot();
//! let level = &snapshot.progress().budgets()[0];
//! assert_eq!((level.level(), level.capacity()), (5_000 - 70, 5_000));
//! # Ok(())
//! # }
//! ```
//!
//! If the actual cost is lower than the estimate, the difference is refunded. If it is higher, the
//! difference is charged, and the level may fall below zero. Then no request that costs something
//! on this budget starts until the debt is paid off.
//!
//! So estimates need not be exact. High estimates are safe; they only delay requests until the
//! first responses arrive. Estimates that are too low let more requests start than the limit
//! permits, until their responses arrive. If the function returns `None`, for example for a
//! response without a `usage`, the estimate remains.
//!
//! # Retries and refunds
//!
//! - A [retry](crate#retries) pays again, because the server counts it again. So does a redirect to
//!   the same host.
//! - A request that was repeated with a new bearer token after a 401 does not pay again.
//! - A request that was never sent, for example because the connection was refused, gets its whole
//!   cost back.
//! - A request that may have reached the server keeps its cost if there is no response.
//!   [`Error::maybe_sent`](crate::Error::maybe_sent) tells which of both applies.
//!
//! A `POST` that receives a 429 is retried by default, after the wait that `Retry-After` asks for.
//! With budgets, a 429 is rare: it means that someone else uses the same key, or that the limits
//! differ from the budgets.
//!
//! # Headers of the provider
//!
//! Many providers state in each response what is left:
//!
//! ```text
//! x-ratelimit-remaining-requests: 499
//! x-ratelimit-remaining-tokens: 149984
//! x-ratelimit-reset-tokens: 6m0s
//! ```
//!
//! The last part of such a name is the name of a budget. If less is left than the budget has, the
//! level is lowered. So a batch slows down if another program uses the same key. Headers never
//! raise a level. `anthropic-ratelimit-tokens-remaining` and its siblings are read in the same way.
//! [`respect_rate_limit_headers(false)`](crate::FetcherBuilder::respect_rate_limit_headers) turns
//! this off.
//!
//! # A spending cap
//!
//! [`Budget::total`](crate::Budget::total) is never refilled. When it is exhausted, the other
//! requests fail at once with [`ErrorKind::Budget`](crate::ErrorKind::Budget), unsent:
//!
//! ```
//! use fanout::{Budget, ErrorKind, Fetcher, Request};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> fanout::Result<()> {
//! # use fanout::Mock;
//! # let mock = Mock::new().fallback("{}");
//! # let fetcher = Fetcher::builder().transport(mock.clone()).build()?;
//! let requests = (0..100).map(|n| Request::post(format!("https://api.example/chat/{n}")));
//! let results = fetcher
//!     .batch(requests)
//!     .budget(Budget::total("cents", 50).default_cost(2))
//!     .gather()
//!     .await;
//! let is_unsent = |error: &fanout::Error| error.kind() == ErrorKind::Budget;
//! let unsent = results.iter().filter_map(|result| result.as_ref().err());
//! assert_eq!(unsent.filter(|error| is_unsent(error)).count(), 75);
//! # assert_eq!(mock.request_count(), 25);
//! # Ok(())
//! # }
//! ```
//!
//! The estimates count until the responses arrive, so a cap on estimates that are not too low is
//! never exceeded. With `settle`, refunds let further requests start.
//!
//! # Stopping early
//!
//! Some responses doom all further requests: the key was revoked, or the account is empty.
//! [`Batch::stop_when`](crate::Batch::stop_when) ends the batch at the first such result:
//!
//! ```
//! use fanout::{ErrorKind, Fetcher};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> fanout::Result<()> {
//! # use fanout::Mock;
//! # let mock = Mock::new().fallback(401);
//! # let fetcher = Fetcher::builder().transport(mock.clone()).build()?;
//! let results = fetcher
//!     .batch((0..1_000).map(|n| format!("https://api.example/chat/{n}")))
//!     .concurrency(10)
//!     .stop_when(|result| matches!(result, Ok(response) if response.status() == 401))
//!     .gather()
//!     .await;
//! assert_eq!(results.len(), 1_000);
//! assert_eq!(results[999].as_ref().unwrap_err().kind(), ErrorKind::Cancelled);
//! # assert!(mock.request_count() <= 20);
//! # Ok(())
//! # }
//! ```
//!
//! Requests in flight finish, and all others end unsent.
//!
//! # Progress
//!
//! [`Progress::budgets`](crate::Progress::budgets) lists the level of each budget and the number of
//! requests that wait for it. `examples/llm.rs` prints them while 200 prompts are sent.
