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
//! A `Client` and a `Fetcher` are handles that are cheap to clone. Create one Fetcher and keep it.
//! The main differences:
//!
//! - [Retries are on.](crate#retries) [`Retry::off`](crate::Retry::off) turns them off.
//! - Timeouts are on; reqwest has none by default.
//! - A response includes its complete body, up to
//!   [32 MiB](crate::FetcherBuilder::max_body_size) by default.
//! - [Some features are missing.](#what-is-not-supported)
//!
//! A request with more than a URL is built as a [`Request`](crate::Request) value:
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
//! Building a request never fails. An invalid URL or header becomes the result of that request,
//! [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest).
//! [`RequestBuilder::header`](crate::RequestBuilder::header) replaces a header; the method of
//! reqwest appends.
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
//! `join_all` starts all requests at once. A batch has at most 100 requests on the wire by default.
//! [`try_gather`](crate::Batch::try_gather) is the equivalent of `try_join_all`.
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
//! [`in_order`](crate::Batch::in_order) is the equivalent of `buffered`. Both return a `Stream`.
//! There are two differences:
//!
//! - `buffer_unordered` makes progress only while it is polled, so a slow loop body can let its
//!   requests time out. The requests of a batch run on tasks of their own.
//! - `buffer_unordered` counts a future against its limit until the future ends, even while a retry
//!   sleeps or a rate limiter waits. In a batch, a request that waits holds no slot, so another
//!   request can start.
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
//! A limit on the builder applies to batches and single fetches together. Without a limit on the
//! builder, at most 100 single fetches of a runtime are in flight at once.
//!
//! # reqwest-middleware and reqwest-retry
//!
//! ```text
//! let policy = ExponentialBackoff::builder().build_with_max_retries(3);
//! let retry = RetryTransientMiddleware::new_with_policy(policy);
//! let client = ClientBuilder::new(client).with(retry).build();
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
//! A `POST` or `PATCH` that may have been sent is retried only if it has an `Idempotency-Key`
//! header, is marked with [`RequestBuilder::idempotent`](crate::RequestBuilder::idempotent), or got
//! a status that says that the server [did not process
//! it](crate::Retry::retry_unprocessed_posts).
//! `Retry-After` is honoured and pauses the whole host.
//! [`Response::attempts`](crate::Response::attempts) and
//! [`Error::attempts`](crate::Error::attempts) list the outcome of each attempt. There is no
//! middleware: change a request before you pass it to the Fetcher.
//!
//! # governor
//!
//! ```text
//! let quota = Quota::per_second(nonzero!(5u32)).allow_burst(nonzero!(10u32));
//! let limiter = RateLimiter::keyed(quota);
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
//! A governor quota of 5 per second allows 5 starts at once. A [`Rate`](crate::Rate) of 5 per
//! second spaces starts evenly unless a burst is set. Retries count as starts. The Fetcher keeps
//! the state of each host, and a host that waits for its rate does not delay other hosts.
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
//! `error_for_status` works as in reqwest, but the error keeps the response and its body:
//! [`Error::response`](crate::Error::response). For a batch, use
//! `result.and_then(Response::error_for_status)`.
//!
//! # Timeouts
//!
//! | reqwest | fanout |
//! |---|---|
//! | `timeout`: from the call of `send` to the end of the body; none by default | [`FetcherBuilder::request_timeout`](crate::FetcherBuilder::request_timeout) and [`RequestBuilder::timeout`](crate::RequestBuilder::timeout): one attempt on the wire; none by default |
//! | | [`Timeouts::total`](crate::Timeouts::total): all attempts on the wire; 120 s |
//! | `connect_timeout`: the connection; none by default | [`Timeouts::connect`](crate::Timeouts::connect): name resolution, connection and TLS handshake; 10 s |
//! | `read_timeout`: each read; none by default | [`Timeouts::response_head`](crate::Timeouts::response_head): until the response head is complete; 30 s |
//! | | [`Timeouts::body_idle`](crate::Timeouts::body_idle): between two chunks of the body; 20 s |
//! | `tokio::time::timeout` around the batch | [`Batch::deadline`](crate::Batch::deadline): the batch, in wall time |
//!
//! Wire time is the time to connect, to send, to wait for the response head and to read the body.
//! It excludes the time a request waits for a slot, a rate or a backoff. Each timeout has an
//! [`ErrorKind`](crate::ErrorKind) of its own.
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
//! let put = Request::put("https://example.com/todos/1").json(&todo);
//! let response = fetcher.fetch(put).await?;
//! # let _ = response;
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The feature `json` is on by default. `json`,
//! [`text`](crate::Response::text) and [`bytes`](crate::Response::bytes) are not async. `text`
//! decodes the body as UTF-8; with the feature `charset` it decodes the character set that
//! `Content-Type` names.
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
//! `build` rejects a default `Authorization` or `Cookie` header, because such a header would be
//! sent to every host of a batch. Set credentials on the [`Host`](crate::Host) they belong to. A
//! header of the request takes precedence over default headers and over headers of the host.
//!
//! # `redirect::Policy`
//!
//! ```text
//! let client = reqwest::Client::builder()
//!     .redirect(redirect::Policy::none())
//!     .https_only(true)
//!     .build()?;
//! ```
//!
//! ```
//! # fn main() -> fanout::Result<()> {
//! use fanout::{Fetcher, RedirectPolicy};
//!
//! let fetcher = Fetcher::builder()
//!     .redirect_policy(RedirectPolicy::none())
//!     .https_only(true)
//!     .build()?;
//! # let _ = fetcher;
//! # Ok(())
//! # }
//! ```
//!
//! | reqwest | fanout |
//! |---|---|
//! | `Policy::none()` | [`RedirectPolicy::none`](crate::RedirectPolicy::none) |
//! | `Policy::limited(5)` | [`max_redirects(5)`](crate::FetcherBuilder::max_redirects), with any policy |
//! | `Policy::custom` | [`RedirectPolicy::custom`](crate::RedirectPolicy::custom) |
//! | `attempt.follow()`, `stop()`, `error(e)` | [`RedirectDecision::Follow`](crate::RedirectDecision::Follow), `Stop`, `Fail` |
//! | `attempt.url()`, `previous()` | [`ProposedRedirect::target_url`](crate::ProposedRedirect::target_url), [`earlier_redirects`](crate::ProposedRedirect::earlier_redirects) |
//!
//! Ten redirects are followed by default, as in reqwest. Each hop is subject to the limits of its
//! host. [`RequestBuilder::redirect_policy`](crate::RequestBuilder::redirect_policy) and
//! [`RequestBuilder::max_redirects`](crate::RequestBuilder::max_redirects) apply to one request.
//!
//! # Connections
//!
//! | reqwest | fanout |
//! |---|---|
//! | `Proxy::all`, `http`, `https`, environment variables | [`Proxy`](crate::Proxy) with the same constructors and environment variables, except `HTTP_PROXY` in upper case; for one request [`RequestBuilder::proxy`](crate::RequestBuilder::proxy) |
//! | `no_proxy` | [`no_proxy`](crate::FetcherBuilder::no_proxy); proxies of the environment are never used for localhost |
//! | `dns_resolver`, `resolve` | [`resolver`](crate::FetcherBuilder::resolver), for example a closure |
//! | `identity` | [`client_certificate`](crate::FetcherBuilder::client_certificate), for one origin |
//! | `danger_accept_invalid_certs` | [`danger_accept_invalid_certificates`](crate::FetcherBuilder::danger_accept_invalid_certificates) |
//! | `danger_accept_invalid_hostnames` | [`danger_accept_invalid_host_names`](crate::FetcherBuilder::danger_accept_invalid_host_names) |
//! | a custom resolver that rejects private addresses | [`public_addresses_only`](crate::FetcherBuilder::public_addresses_only) |
//!
//! # Bodies and cookies
//!
//! | reqwest | fanout |
//! |---|---|
//! | `gzip`, `brotli`, `deflate`, `zstd` | features of the same names, the first three on by default; [`decode_content`](crate::FetcherBuilder::decode_content) |
//! | `bytes_stream`, `chunk` | [`Fetch::stream_body`](crate::Fetch::stream_body), which returns the response with its body unread; in a batch [`Batch::read_with`](crate::Batch::read_with), a handler that reads the body while the request is on the wire |
//! | `Body::wrap_stream` | [`Body::stream`](crate::Body::stream), or [`factory`](crate::Body::factory) if a retry must send the body again |
//! | `copy_to` a file | [`RequestBuilder::save_to`](crate::RequestBuilder::save_to), which resumes after a failure |
//! | `cookie_store` | the feature `cookies`, `FetcherBuilder::cookies` |
//! | `charset` | the feature `charset` |
//!
//! # What is not supported
//!
//! | reqwest | fanout |
//! |---|---|
//! | HTTP/3 | not supported |
//! | `multipart` | not supported |
//! | `local_address`, Unix sockets | not supported |
//! | native-tls | rustls only |
//! | `blocking` | a runtime and `block_on`; see the example `blocking` |
//! | WebAssembly | not supported: fanout needs tokio's sockets |
//!
//! If you need one of these features, use reqwest for the requests that need it. Both libraries
//! work on the same runtime.
