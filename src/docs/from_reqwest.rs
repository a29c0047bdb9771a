//! # From reqwest
//!
//! # `Client` is `Fetcher`
//!
//! ```text
//! let client = reqwest::Client::builder().user_agent("price-watch/1.0").build()?;
//! let response = client.get(url).send().await?;
//! ```
//!
//! ```
//! # async fn example() -> fanout::Result<()> {
//! # let url = "https://example.com/";
//! use fanout::Fetcher;
//!
//! let fetcher = Fetcher::builder().user_agent("price-watch/1.0").build()?;
//! let response = fetcher.fetch(url).await?;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! Both are handles, cheap to clone, and meant to be kept. Four things differ at once:
//!
//! - [Retries are on.](crate#retries) [`Retry::off`](crate::Retry::off) turns them off.
//! - There are timeouts by default; reqwest has none.
//! - The response is complete: its body has been read when `fetch` returns, within [a
//!   cap](crate::FetcherBuilder::max_body_size) of 32 MiB.
//! - [Some things are not there](#what-is-not-there-yet).
//!
//! A request with more to it is a value, which you build first:
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
//! use fanout::Request;
//!
//! let request = Request::post("https://example.com/search")
//!     .query([("page", 2)])
//!     .header("accept", "application/json")
//!     .bearer_auth("token")
//!     .form([("q", "crabs")]);
//! let response = fetcher.fetch(request).await?;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! Building never fails: a bad URL or header is the result of that request,
//! [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest). [`RequestBuilder::header`](crate::RequestBuilder::header) sets,
//! where reqwest's appends.
//!
//! # `join_all`
//!
//! ```text
//! let responses = join_all(urls.iter().map(|url| client.get(url).send())).await;
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
//! let results = fetcher.gather(&urls).await;
//! # assert_eq!(results.len(), urls.len());
//! # }
//! ```
//!
//! `join_all` starts them all at once; here 100 are on the wire at most, unless you say otherwise. `try_join_all` is
//! [`try_gather`](crate::Batch::try_gather).
//!
//! # `buffered` and `buffer_unordered`
//!
//! ```text
//! let mut done = stream::iter(urls).map(|url| client.get(url).send()).buffer_unordered(50);
//! while let Some(result) = done.next().await { … }
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
//! let mut done = fetcher.batch(urls).concurrency(50).as_completed();
//! while let Some(completed) = done.next().await {
//!     println!("{} {}", completed.request, completed.result.is_ok());
//! }
//! # }
//! ```
//!
//! `buffered` is [`in_order`](crate::Batch::in_order). Both are a `Stream`. Two differences matter:
//!
//! - A `buffer_unordered` makes progress only while it is polled, so a slow loop body lets its requests time out. Here
//!   they run on tasks of their own, and finish while you are elsewhere.
//! - It holds a place for as long as its future lives, also while a retry sleeps or a rate limiter waits. Here that
//!   waits in line, and another request is on the wire.
//!
//! # `tokio::spawn` and `Semaphore`
//!
//! ```text
//! let permit = semaphore.clone().acquire_owned().await?;
//! tokio::spawn(async move { let _permit = permit; client.get(url).send().await });
//! ```
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let (one, two) = ("https://example.com/1", "https://example.com/2");
//! use fanout::Fetcher;
//!
//! let fetcher = Fetcher::builder().concurrency(50).build()?;
//! let one = tokio::spawn(fetcher.fetch(one));
//! let two = tokio::spawn(fetcher.fetch(two));
//! println!("{} {}", one.await??.status(), two.await??.status());
//! # Ok(())
//! # }
//! ```
//!
//! A limit on the builder bounds batches and single fetches together. Without one, the single fetches of a runtime
//! share a limit of 100.
//!
//! # reqwest-middleware and reqwest-retry
//!
//! ```text
//! let policy = ExponentialBackoff::builder().build_with_max_retries(3);
//! let client = ClientBuilder::new(client).with(RetryTransientMiddleware::new_with_policy(policy)).build();
//! ```
//!
//! ```
//! # fn main() -> fanout::Result<()> {
//! use fanout::{Fetcher, Retry};
//!
//! let fetcher = Fetcher::builder().retry(Retry::default().max_retries(3)).build()?;
//! # let _ = fetcher;
//! # Ok(())
//! # }
//! ```
//!
//! A `POST` or `PATCH` is not retried once it may have been sent, unless it is marked with
//! [`RequestBuilder::idempotent`](crate::RequestBuilder::idempotent) or has an `Idempotency-Key`. `Retry-After` is honoured, and
//! pauses the whole host. What came of each attempt is in [`Response::attempts`](crate::Response::attempts) and
//! [`Error::attempts`](crate::Error::attempts). There is no middleware: what must change a request changes it before it
//! is handed in.
//!
//! # governor
//!
//! ```text
//! let limiter = RateLimiter::keyed(Quota::per_second(nonzero!(5u32)).allow_burst(nonzero!(10u32)));
//! limiter.until_key_ready(&host).await;
//! ```
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
//! use fanout::Rate;
//!
//! let results = fetcher.batch(&urls).rate_per_host(Rate::per_second(5).burst(10)).gather().await;
//! # let _ = results;
//! # }
//! ```
//!
//! A governor quota of 5 a second lets 5 go at once; a [`Rate`](crate::Rate) spreads its starts evenly unless it is
//! given a burst. Retries count. The hosts are kept for you, and one that must wait delays no other.
//!
//! # `error_for_status`
//!
//! ```
//! # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
//! let response = fetcher.fetch("https://example.com/").await?.error_for_status()?;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! The same, except that the error keeps the response with its body: [`Error::response`](crate::Error::response). For a
//! batch: `result.and_then(Response::error_for_status)`.
//!
//! # Timeouts
//!
//! | reqwest | here |
//! |---|---|
//! | `timeout`: from the call of `send` until the body has been read; none by default | [`RequestBuilder::timeout`](crate::RequestBuilder::timeout): one attempt on the wire; none by default |
//! | | [`Timeouts::total`](crate::Timeouts::total): all attempts on the wire; 120 s |
//! | `connect_timeout`: the connection; none by default | [`Timeouts::connect`](crate::Timeouts::connect): name, connection, TLS; 10 s |
//! | `read_timeout`: each read; none by default | [`Timeouts::response_head`](crate::Timeouts::response_head): until the head is complete; 30 s |
//! | | [`Timeouts::body_idle`](crate::Timeouts::body_idle): between two pieces of the body; 20 s |
//! | `tokio::time::timeout` around all of it | [`Batch::deadline`](crate::Batch::deadline): the batch, by the clock on the wall |
//!
//! Wire time is connecting, sending, waiting for the head and reading the body. What a request waits for a slot, a rate
//! or a back-off is not in it. The error says which clock ran out: [`ErrorKind`](crate::ErrorKind) has one kind for
//! each.
//!
//! # `json`
//!
//! ```
//! # #[derive(serde::Serialize, serde::Deserialize)] struct Todo { id: u32 }
//! # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
//! # #[cfg(feature = "json")] {
//! use fanout::Request;
//!
//! let todo: Todo = fetcher.fetch("https://example.com/todos/1").await?.json()?;
//! let answer = fetcher.fetch(Request::put("https://example.com/todos/1").json(&todo)).await?;
//! # let _ = answer;
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The feature `json` is on by default. Reading is a plain call, without `.await`; so are
//! [`text`](crate::Response::text), which takes the body for UTF-8 whatever its `Content-Type` says, and
//! [`bytes`](crate::Response::bytes).
//!
//! # `default_headers` and `bearer_auth`
//!
//! ```
//! # fn main() -> fanout::Result<()> {
//! use fanout::{Fetcher, Host, Request};
//!
//! let fetcher = Fetcher::builder()
//!     .default_header("accept", "application/json")
//!     .host("https://api.example.com", Host::new().bearer_auth("token"))
//!     .build()?;
//! let request = Request::get("https://api.example.com/").basic_auth("user", "password");
//! # let _ = (fetcher, request);
//! # Ok(())
//! # }
//! ```
//!
//! A default `Authorization` or `Cookie` is refused by `build`, since it would go to every host of a batch: give it to
//! the [`Host`](crate::Host) it is for. A header of the request itself wins over both.
//!
//! # `redirect::Policy`
//!
//! ```text
//! let client = reqwest::Client::builder().redirect(redirect::Policy::none()).https_only(true).build()?;
//! ```
//!
//! ```
//! # fn main() -> fanout::Result<()> {
//! let fetcher = fanout::Fetcher::builder().max_redirects(0).https_only(true).build()?;
//! # let _ = fetcher;
//! # Ok(())
//! # }
//! ```
//!
//! Ten redirects are followed by default, as in reqwest, and each is held to the limits of the host it leads to. There
//! is no policy of one's own; [`RequestBuilder::max_redirects`](crate::RequestBuilder::max_redirects) says it for one request.
//!
//! # Connections
//!
//! | reqwest | here |
//! |---|---|
//! | `Proxy::all`, `http`, `https`; the environment's | [`Proxy`](crate::Proxy), the same; one request's with [`RequestBuilder::proxy`](crate::RequestBuilder::proxy) |
//! | `no_proxy` | [`no_proxy`](crate::FetcherBuilder::no_proxy); the environment's are never for this machine |
//! | `dns_resolver`, `resolve` | [`resolver`](crate::FetcherBuilder::resolver), which may be a closure |
//! | `identity` | [`client_certificate`](crate::FetcherBuilder::client_certificate), for one origin |
//! | `danger_accept_invalid_certs` | [`danger_accept_invalid_certificates`](crate::FetcherBuilder::danger_accept_invalid_certificates) |
//! | `danger_accept_invalid_hostnames` | [`danger_accept_invalid_host_names`](crate::FetcherBuilder::danger_accept_invalid_host_names) |
//! | a resolver that refuses, for URLs of others | [`public_addresses_only`](crate::FetcherBuilder::public_addresses_only) |
//!
//! # Bodies and cookies
//!
//! | reqwest | here |
//! |---|---|
//! | `gzip`, `brotli`, `deflate`, `zstd` | the features of these names, the first three on; [`decode`](crate::FetcherBuilder::decode_content) |
//! | `bytes_stream` | [`Batch::read_with`](crate::Batch::read_with), a handler that reads while the slot is held |
//! | `Body::wrap_stream` | [`Body::stream`](crate::Body::stream), or [`factory`](crate::Body::factory) for one that can be sent again |
//! | `copy_to` a file | [`RequestBuilder::save_to`](crate::RequestBuilder::save_to), which resumes |
//! | `cookie_store` | the feature `cookies`, `FetcherBuilder::cookies` |
//! | `charset` | the feature `charset` |
//!
//! # What is not there yet
//!
//! | reqwest | here |
//! |---|---|
//! | HTTP/3 | none |
//! | `multipart` | none |
//! | `local_address`, Unix sockets | none |
//! | native-tls | rustls only |
//! | `blocking` | a runtime and `block_on`; see the example `blocking` |
//! | WebAssembly | none; it needs tokio's sockets |
//!
//! Where you need one of these, keep reqwest for it; the two work side by side on one runtime.
