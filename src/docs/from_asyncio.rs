//! # From asyncio and aiohttp
//!
//! Each section shows a Python call and its equivalent. Three differences apply everywhere:
//!
//! - A failure is a value. No exception propagates through a batch, so nothing aborts it.
//! - [Retries are on](crate#retries).
//! - Timeouts do not run while a request waits for a slot, a rate or a backoff.
//!
//! A Rust future, like a coroutine, starts when it is awaited. To start a future in the background,
//! spawn it. The examples use a [`Fetcher`](crate::Fetcher) named `fetcher`, as Python uses a
//! `session`. Create one Fetcher and keep it.
//!
//! # `asyncio.run`
//!
//! ```python
//! asyncio.run(main())
//! ```
//!
//! ```
//! #[tokio::main]
//! async fn main() {
//!     let fetcher = fanout::Fetcher::new();
//! #   let _ = fetcher;
//! }
//! ```
//!
//! In a program without a runtime, create a runtime and call its `block_on`, the equivalent of
//! `loop.run_until_complete`. The example `blocking` shows this.
//!
//! # `asyncio.gather(return_exceptions=True)`
//!
//! ```python
//! results = await asyncio.gather(*map(fetch, urls), return_exceptions=True)
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
//! let results = fetcher.gather(&urls).await;
//! for (url, result) in urls.iter().zip(results) {
//!     match result {
//!         Ok(response) => println!("{url} {}", response.status()),
//!         Err(error) => println!("{url} {error}"),
//!     }
//! }
//! # }
//! ```
//!
//! There is one result per input, in input order. At most 100 requests are on the wire at once by
//! default ([`Batch::concurrency`](crate::Batch::concurrency)). No task is created per input, so a
//! million inputs are fine.
//!
//! # `asyncio.gather` and `TaskGroup`
//!
//! Without `return_exceptions`, `gather` raises the first exception. A `TaskGroup` also cancels the
//! other tasks.
//!
//! ```python
//! results = await asyncio.gather(*map(fetch, urls))
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) -> fanout::Result<()> {
//! let responses = fetcher.batch(&urls).try_gather().await?;
//! # let _: Vec<fanout::Response> = responses;
//! # Ok(())
//! # }
//! ```
//!
//! The first error is returned, and the other requests are cancelled.
//!
//! # `asyncio.as_completed`
//!
//! ```python
//! for future in asyncio.as_completed(map(fetch, urls)):
//!     result = await future
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
//! let mut done = fetcher.as_completed(&urls);
//! while let Some(completed) = done.next().await {
//!     let url = &urls[completed.index];
//!     println!("{url} {:?}", completed.result.map(|response| response.status()));
//! }
//! # }
//! ```
//!
//! Each result has its index and its request. To attach a value of your own, pass pairs. The value
//! is returned in the field `tag` of the result:
//!
//! ```
//! # struct Product { name: String, url: String }
//! # async fn example(fetcher: fanout::Fetcher, products: Vec<Product>) {
//! let mut done = fetcher.as_completed(products.iter().map(|product| (product, &product.url)));
//! while let Some(completed) = done.next().await {
//!     println!("{} {}", completed.tag.name, completed.result.is_ok());
//! }
//! # }
//! ```
//!
//! # `asyncio.create_task`
//!
//! ```python
//! task = asyncio.create_task(fetch(url))
//! ...
//! response = await task
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher) -> Result<(), Box<dyn std::error::Error>> {
//! let task = tokio::spawn(fetcher.fetch("https://example.com/"));
//! // …
//! let response = task.await??;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! The first `?` handles an error of the task: a panic or an abort. `task.abort()` is the
//! equivalent of `task.cancel()`. The second `?` handles an error of the request. Dropping the
//! handle of a task does not stop the task. Dropping a fetch that was not spawned cancels it.
//!
//! # `asyncio.Semaphore`
//!
//! ```python
//! async with semaphore:          # Semaphore(50)
//!     response = await session.get(url)
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
//! let results = fetcher.batch(&urls).concurrency(50).gather().await;
//! # let _ = results;
//! # }
//! ```
//!
//! A coroutine usually holds its semaphore while a retry sleeps and while a rate limiter waits. A
//! Fetcher holds a slot only while the request is on the wire.
//!
//! # `aiolimiter.AsyncLimiter`
//!
//! ```python
//! async with limiter:            # AsyncLimiter(100, 60)
//!     response = await session.get(url)
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
//! use fanout::Rate;
//!
//! let results = fetcher
//!     .batch(&urls)
//!     .rate(Rate::per_minute(100))
//!     .rate_per_host(Rate::per_second(2))
//!     .gather()
//!     .await;
//! # let _ = results;
//! # }
//! ```
//!
//! Starts are spaced evenly: 100 per minute is one every 0.6 s. `AsyncLimiter(100, 60)` allows 100
//! starts at once, as [`Rate::burst(100)`](crate::Rate::burst) does.
//!
//! # `asyncio.Queue`
//!
//! ```python
//! queue = asyncio.Queue(maxsize=10)
//! workers = [asyncio.create_task(worker(queue)) for _ in range(8)]
//! ```
//!
//! The concurrency of the batch replaces the workers. The queue becomes a bounded channel, from
//! which the batch takes its inputs:
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher) {
//! use tokio::sync::mpsc;
//!
//! let (sender, receiver) = mpsc::channel::<String>(10);
//! // `sender.send(url).await` waits while the channel is full.
//! // The batch ends when the last sender is dropped.
//! # drop(sender);
//! let mut done = fetcher
//!     .batch_from_channel(receiver)
//!     .concurrency(8)
//!     .look_ahead(16)
//!     .as_completed();
//! while let Some(completed) = done.next().await {
//!     println!("{}", completed.request);
//! }
//! # }
//! ```
//!
//! The batch reads inputs ahead of its results, up to its
//! [look-ahead window](crate::Batch::look_ahead). Set the window if the channel must stay the only
//! queue. The example `producer_consumer` has two consumers.
//!
//! # `asyncio.wait_for` and `asyncio.timeout`
//!
//! `ClientTimeout(total=…)` and `wait_for` start with the call, so a request that waits for a
//! pooled connection can time out before it is sent. fanout has a separate timeout for each
//! purpose:
//!
//! | Python | fanout | measures |
//! |---|---|---|
//! | `ClientTimeout(sock_connect=3)` | [`Timeouts::connect`](crate::Timeouts::connect) | name resolution, connection and TLS handshake |
//! | `ClientTimeout(sock_read=5)` | [`Timeouts::response_head`](crate::Timeouts::response_head), [`body_idle`](crate::Timeouts::body_idle) | silence of the server |
//! | `ClientTimeout(total=30)` | [`RequestBuilder::timeout`](crate::RequestBuilder::timeout) | one attempt on the wire |
//! | | [`Timeouts::total`](crate::Timeouts::total) | all attempts on the wire |
//! | `asyncio.timeout(60)` around `gather` | [`Batch::deadline`](crate::Batch::deadline) | the batch, in wall time |
//! | `asyncio.wait_for(fetch(url), 5)` | `tokio::time::timeout` | the call, including time in the schedule |
//!
//! ```
//! # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) -> Result {
//! use std::time::Duration;
//! use fanout::{Request, Timeouts};
//!
//! let timeouts = Timeouts::default().response_head(Duration::from_secs(60)).total(None);
//! let results = fetcher
//!     .batch(urls.iter().map(|url| Request::get(url).timeout(Duration::from_secs(30))))
//!     .timeouts(timeouts)
//!     .deadline(Duration::from_secs(600))
//!     .gather()
//!     .await;
//! # let _ = results;
//!
//! let fetch = fetcher.fetch("https://example.com/");
//! let response = tokio::time::timeout(Duration::from_secs(5), fetch).await??;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! A `timeout` around `gather` discards all results when it expires. A deadline keeps the finished
//! results. All other inputs end with [`ErrorKind::Deadline`](crate::ErrorKind::Deadline).
//!
//! # `raise_for_status`, `text` and `json`
//!
//! ```python
//! response.raise_for_status()
//! todo = await response.json()
//! ```
//!
//! ```
//! # #[derive(serde::Deserialize)] struct Todo { id: u32 }
//! # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
//! # #[cfg(feature = "json")] {
//! let todo: Todo = fetcher.fetch("https://example.com/todos/1").await?.error_for_status()?.json()?;
//! # println!("{}", todo.id);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! A response includes its complete body, so `json` is not async. An error for a status keeps the
//! response: [`Error::response`](crate::Error::response).
//!
//! # `response.content`
//!
//! ```python
//! async with session.get(url) as response:
//!     async for chunk in response.content.iter_any():
//!         size += len(chunk)
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
//! # let (url, mut size) = ("https://example.com/large", 0);
//! let mut response = fetcher.fetch(url).stream_body().await?;
//! while let Some(chunk) = response.next().await {
//!     size += chunk?.len();
//! }
//! # let _ = size;
//! # Ok(())
//! # }
//! ```
//!
//! Without [`stream_body`](crate::Fetch::stream_body), a response includes its complete body. In a
//! batch, [`read_with`](crate::Batch::read_with) passes each response to a handler.
//!
//! # `loop.run_in_executor`
//!
//! ```python
//! title = await loop.run_in_executor(pool, parse, page)
//! ```
//!
//! ```
//! # fn parse(page: &str) -> String { page.to_owned() }
//! # async fn example(fetcher: fanout::Fetcher) -> Result<(), Box<dyn std::error::Error>> {
//! let page = fetcher.fetch("https://example.com/").await?;
//! let title = tokio::task::spawn_blocking(move || parse(&page.text())).await?;
//! # let _ = title;
//! # Ok(())
//! # }
//! ```
//!
//! Rust threads compute in parallel, so no process pool is needed. Limit the number of parallel
//! computations, as the example `cpu_work` does.
//!
//! # `TCPConnector(limit, limit_per_host)`
//!
//! ```python
//! connector = TCPConnector(limit=200, limit_per_host=8)
//! session = ClientSession(connector=connector, headers={"Accept": "text/html"})
//! ```
//!
//! ```
//! # fn main() -> fanout::Result<()> {
//! use fanout::{Fetcher, Host};
//!
//! let fetcher = Fetcher::builder()
//!     .concurrency(200)
//!     .concurrency_per_host(8)
//!     .default_header("accept", "text/html")
//!     .host("https://api.example.com", Host::new().bearer_auth("token"))
//!     .build()?;
//! # let _ = fetcher;
//! # Ok(())
//! # }
//! ```
//!
//! A limit on the builder applies to everything the Fetcher does. Credentials belong to a
//! [`Host`](crate::Host): the builder rejects a default `Authorization` header, because it would be
//! sent to every host of a batch.
//!
//! # tenacity and aiohttp-retry
//!
//! ```python
//! @retry(stop=stop_after_attempt(5), wait=wait_random_exponential(multiplier=0.25, max=10))
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
//! use std::time::Duration;
//! use fanout::Retry;
//!
//! let results = fetcher
//!     .batch(&urls)
//!     .retry(
//!         Retry::default()
//!             .max_retries(4)
//!             .base_delay(Duration::from_millis(250))
//!             .max_delay(Duration::from_secs(10)),
//!     )
//!     .gather()
//!     .await;
//! # let _ = results;
//! # }
//! ```
//!
//! Five attempts are four retries. [Transient failures](crate#retries) are retried;
//! [`Retry::classify`](crate::Retry::classify) changes which results are retried. A `POST` that may
//! have been sent is retried only if it has an `Idempotency-Key` header, is marked with
//! [`RequestBuilder::idempotent`](crate::RequestBuilder::idempotent), or got a status that says
//! that the server [did not process it](crate::Retry::retry_unprocessed_posts).
//! [`Retry::off`](crate::Retry::off) turns retries off.
//!
//! # Debug mode and logging
//!
//! ```python
//! logging.basicConfig(level=logging.DEBUG)
//! ```
//!
//! ```
//! # fn main() {
//! // Requires the crate `tracing-subscriber`.
//! tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
//! # }
//! ```
//!
//! ```text
//! DEBUG request{index=0 method=GET url=http://127.0.0.1:8000/}: fanout::attempt: attempt ended attempt=1
//!     outcome=503 Service Unavailable queued=0ns wire=3.1ms retry_in=562.7ms
//! ```
//!
//! Each request is a span (target `fanout::request`, level DEBUG) with its index, method and URL.
//! Each attempt is an event in that span (target `fanout::attempt`, level DEBUG) with its outcome,
//! the time in the schedule, the wire time and the wait before the next attempt. The parent of each
//! request span is the current span of the task that polls the batch. To show only the spans and
//! events of fanout, enable the feature `env-filter` of `tracing-subscriber`, use its `EnvFilter`
//! and set `RUST_LOG=fanout=debug`.
//!
//! The debug mode of asyncio reports callbacks that block the loop. The equivalent is the program
//! `tokio-console`.
