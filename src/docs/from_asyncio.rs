//! # From asyncio and aiohttp
//!
//! Each section puts a call beside its twin. Three differences run through all of them:
//!
//! - A coroutine and a future both start when they are awaited. To start one in the background, spawn it.
//! - Here a failure is a value. Nothing is raised through a batch, so nothing aborts it.
//! - [Retries are on](crate#retries), and waiting in line never counts as a timeout.
//!
//! The sections below have a [`Fetcher`](crate::Fetcher) named `fetcher`, as Python has its `session`. Make one and
//! keep it.
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
//! In a program that has no runtime, make one and call `block_on`, as with `loop.run_until_complete`; see the example
//! `blocking`.
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
//! There is one result for each input, in the order of the inputs. No task is made for each of them beforehand, so a
//! million inputs are no trouble, and no more than 100 are on the wire at once unless you say so.
//!
//! # `asyncio.gather` and `TaskGroup`
//!
//! Without `return_exceptions` the first failure comes out of `gather`, and a `TaskGroup` cancels the others:
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
//! The first error cancels the rest.
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
//!     println!("{} {:?}", urls[completed.index], completed.result.map(|response| response.status()));
//! }
//! # }
//! ```
//!
//! A result comes with its index and its request. To carry a value of your own, give pairs; the value is in `tag`:
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
//! The first `?` is for the task (a panic in it, or `task.abort()`, the twin of `task.cancel()`), the second for the
//! request. A task runs on when its handle is dropped; a fetch that was not spawned is cancelled when it is dropped.
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
//! A semaphore is held while a retry sleeps and while a rate limiter waits, unless one takes care. Here a slot is held
//! on the wire only.
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
//! Starts are spread evenly: 100 a minute is one every 0.6 s. `AsyncLimiter(100, 60)` lets 100 go at once;
//! [`Rate::burst`](crate::Rate::burst) does so here.
//!
//! # `asyncio.Queue`
//!
//! ```python
//! queue = asyncio.Queue(maxsize=10)
//! workers = [asyncio.create_task(worker(queue)) for _ in range(8)]
//! ```
//!
//! The workers are the batch's concurrency. What is left of the queue is a stream of inputs, which a bounded channel
//! can be:
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher) {
//! use std::pin::Pin;
//! use std::task::{Context, Poll};
//! use futures_core::Stream;
//! use tokio::sync::mpsc;
//!
//! struct Inputs(mpsc::Receiver<String>);
//!
//! impl Stream for Inputs {
//!     type Item = String;
//!
//!     fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<String>> {
//!         self.0.poll_recv(cx)
//!     }
//! }
//!
//! let (sender, receiver) = mpsc::channel(10);
//! // `sender.send(url).await` waits while the channel is full; when the last sender is dropped the batch ends.
//! # drop(sender);
//! let mut done = fetcher.batch_from_stream(Inputs(receiver)).concurrency(8).look_ahead(16).as_completed();
//! while let Some(completed) = done.next().await {
//!     println!("{}", completed.request);
//! }
//! # }
//! ```
//!
//! The batch takes inputs as far ahead as its [look-ahead window](crate::Batch::look_ahead) reaches; set it where the
//! queue must stay short. The example `producer_consumer` has two consumers.
//!
//! # `asyncio.wait_for` and `asyncio.timeout`
//!
//! `ClientTimeout(total=…)` and `wait_for` count from the call, so a request that waits for a connection of the pool
//! can time out before it is sent. Here there is a clock for each need:
//!
//! | Python | here | counts |
//! |---|---|---|
//! | `ClientTimeout(sock_connect=3)` | [`Timeouts::connect`](crate::Timeouts::connect) | name, connection, TLS |
//! | `ClientTimeout(sock_read=5)` | [`Timeouts::response_head`](crate::Timeouts::response_head), [`body_idle`](crate::Timeouts::body_idle) | silence of the server |
//! | `ClientTimeout(total=30)` | [`RequestBuilder::timeout`](crate::RequestBuilder::timeout) | one attempt on the wire |
//! | | [`Timeouts::total`](crate::Timeouts::total) | all attempts on the wire |
//! | `asyncio.timeout(60)` around `gather` | [`Batch::deadline`](crate::Batch::deadline) | the batch, by the clock on the wall |
//! | `asyncio.wait_for(fetch(url), 5)` | `tokio::time::timeout` | this call, with its waiting in line |
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use fanout::{Request, Timeouts};
//!
//! let patient = Timeouts::default().response_head(Duration::from_secs(60)).total(None);
//! let results = fetcher
//!     .batch(urls.iter().map(|url| Request::get(url).timeout(Duration::from_secs(30))))
//!     .timeouts(patient)
//!     .deadline(Duration::from_secs(600))
//!     .gather()
//!     .await;
//! # let _ = results;
//!
//! let response = tokio::time::timeout(Duration::from_secs(5), fetcher.fetch("https://example.com/")).await??;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! A `timeout` around `gather` throws all results away when it ends; a deadline keeps those that are there, and answers
//! the others with [`ErrorKind::Deadline`](crate::ErrorKind::Deadline).
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
//! The body is here with the response, so reading it is a plain call. The error of a status keeps the response:
//! [`Error::response`](crate::Error::response).
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
//! Threads compute side by side here, so no process pool is needed. Bound how many run at once: the example `cpu_work`
//! does.
//!
//! # `TCPConnector(limit, limit_per_host)`
//!
//! ```python
//! session = ClientSession(connector=TCPConnector(limit=200, limit_per_host=8), headers={"Accept": "text/html"})
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
//! Set on the builder, a limit bounds everything the Fetcher does. Credentials belong to a [`Host`](crate::Host): the
//! builder refuses a default `Authorization`, which would go to every host of a batch.
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
//!     .retry(Retry::default().max_retries(4).base_delay(Duration::from_millis(250)).max_delay(Duration::from_secs(10)))
//!     .gather()
//!     .await;
//! # let _ = results;
//! # }
//! ```
//!
//! Five attempts are four retries. What is retried is [fixed](crate#retries); a `POST` is retried only if it is marked
//! with [`RequestBuilder::idempotent`](crate::RequestBuilder::idempotent) or has an `Idempotency-Key`. To turn retries off say
//! [`Retry::off`](crate::Retry::off).
//!
//! # Debug mode and logging
//!
//! ```python
//! logging.basicConfig(level=logging.DEBUG)
//! ```
//!
//! ```
//! # fn main() {
//! // With the crate `tracing-subscriber`.
//! tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
//! # }
//! ```
//!
//! ```text
//! DEBUG request{index=0 method=GET url="http://127.0.0.1:8000/"}: fanout::attempt: attempt ended attempt=1
//!     outcome=503 Service Unavailable waited=0ns wire=3.1ms again_in=562.7ms
//! ```
//!
//! Each request is a span (target `fanout::request`, level DEBUG) with its index, method and URL, and each attempt an
//! event in it (target `fanout::attempt`, level DEBUG) with its outcome, the time it waited, its time on the wire and
//! the wait before the next. With the feature `env-filter` of `tracing-subscriber` and its `EnvFilter`,
//! `RUST_LOG=fanout=debug` shows these alone. The span is a child of the span in which the batch is read.
//!
//! asyncio's own debug mode looks for callbacks that block the loop. Its twin is the `tokio-console` program.
