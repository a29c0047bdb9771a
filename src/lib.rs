//! `fanout` fetches many URLs concurrently and returns one result per URL.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let server = format!("http://{}", listener.local_addr()?);
//! # let app = axum::Router::new().route("/{page}", axum::routing::get(|| async { "hello" }));
//! # tokio::spawn(async move { axum::serve(listener, app).await });
//! use fanout::Fetcher;
//!
//! let fetcher = Fetcher::new();
//! let urls = ["https://example.com/a", "https://example.com/b", "not a URL"];
//! # let urls = [format!("{server}/a"), format!("{server}/b"), "not a URL".to_owned()];
//! for (url, result) in urls.iter().zip(fetcher.gather(&urls).await) {
//!     match result {
//!         Ok(response) => println!("{url} {} {}", response.status(), response.bytes().len()),
//!         Err(error) => println!("{url} {error}"),
//!     }
//! }
//! # let succeeded = fetcher.gather(&urls).await.into_iter().map(|result| result.is_ok());
//! # assert!(succeeded.eq([true, true, false]));
//! # Ok(())
//! # }
//! ```
//!
//! **Retries are on by default.** A request that is safe to repeat is retried after a connection
//! failure, a timeout, or one of the statuses 408, 425, 429, 500, 502, 503 and 504: twice, and more
//! often if the server throttles requests (429, or 503 with `Retry-After`). A `POST` that may have
//! been sent is retried only if it is marked as safe to repeat, or if the server did not process
//! it: after a 429, a 503 with `Retry-After`, or a 425. See [Retries](#retries). [`Retry::off`]
//! turns retries off.
//!
//! The crate makes three promises:
//!
//! - **One result per input.** An input with an invalid URL, a dead host or a panicking callback
//!   gets an error as its own result. Nothing aborts the batch.
//! - **A request holds a concurrency slot only while it is on the wire:** from the start of its
//!   connection attempt to the end of the response body. A request that is queued, for example for
//!   a rate limit, a backoff or a paused host, holds no slot and no connection, and none of its
//!   timeouts run.
//! - **Low memory use.** A batch reads its inputs as it needs them, so a batch can be larger than
//!   memory. Memory use grows only with the results that you keep.
//!
//! Coming from Python? [`docs::from_asyncio`] shows each asyncio and aiohttp call next to its
//! equivalent. [`docs::from_reqwest`] does the same for reqwest. [`docs::performance`] lists what a
//! request costs and the settings that change this cost.
//!
//! # Fetching one URL, or many
//!
//! A [`Fetcher`] holds connections, limits and settings. Create one per program and clone it
//! freely: a clone is a handle to the same Fetcher.
//!
//! | call | returns |
//! |---|---|
//! | [`fetch`](Fetcher::fetch) | one result; the future is `'static`, so it can be spawned |
//! | [`gather`](Fetcher::gather) | a `Vec` of all results, in input order |
//! | [`try_gather`](Batch::try_gather) | all responses, or the error that occurs first, which cancels the rest |
//! | [`as_completed`](Fetcher::as_completed) | a stream of results in completion order, each with its index and its request |
//! | [`in_order`](Batch::in_order) | a stream of results in input order |
//!
//! An input is a URL (`&str`, `String`, `Url`, `http::Uri`), a [`Request`], a [`RequestBuilder`] or
//! an `http::Request`. It can also be a pair of a value of your own, the tag, and one of these; the
//! tag is returned with the result. All of these types implement [`IntoRequest`]. Inputs come from
//! an iterator, which may borrow from the caller, or from a stream
//! ([`batch_from_stream`](Fetcher::batch_from_stream)) or a channel
//! ([`batch_from_channel`](Fetcher::batch_from_channel)).
//!
//! A [`Response`] includes the complete body, so [`text`](Response::text),
//! [`bytes`](Response::bytes) and `json` (feature `json`) are not async. See [Large
//! bodies](#large-bodies) for bodies that do not fit in memory.
//!
//! # Limits and rates
//!
//! The methods of [`Batch`] set limits for one batch. The methods of [`FetcherBuilder`] set limits
//! for everything the Fetcher does: all batches and single fetches together. A [`Host`] has limits,
//! headers and credentials for one origin (scheme, host name and port).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use fanout::{Fetcher, Host, Rate};
//!
//! let fetcher = Fetcher::builder()
//!     .concurrency_per_host(8)
//!     .host("https://api.example.com", Host::new().bearer_auth("token").rate("100/min".parse()?))
//!     .build()?;
//!
//! # let urls: [&str; 0] = [];
//! let results = fetcher
//!     .batch(urls)
//!     .concurrency(50)
//!     .rate(Rate::per_second(20))
//!     .rate_per_host(Rate::per_second(5).burst(10))
//!     .gather()
//!     .await;
//! # assert!(results.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! `concurrency` limits the number of requests on the wire. `rate` limits how often requests start;
//! each retry and each redirect counts as a start. For limits, a host is an origin unless
//! [`limit_by`](FetcherBuilder::limit_by) defines another key. While a host is at its limit,
//! requests to other hosts start if the batch has already read their inputs. A batch reads a
//! limited number of inputs ahead ([`look_ahead`](Batch::look_ahead)).
//!
//! If the limit on open files is too low for the configured concurrency, the Fetcher uses a lower
//! concurrency and logs a warning.
//!
//! - [`Concurrency::adaptive`] learns how many concurrent requests each host can serve.
//! - [`FetcherBuilder::respect_rate_limit_headers`] (on by default) slows requests down to the
//!   limits that a server announces in `RateLimit`, `X-RateLimit-*` and similar headers.
//! - If [`limit_by`](FetcherBuilder::limit_by) groups requests by a key, such as the tenant,
//!   [`FetcherBuilder::limits_for`] sets the limits of one key.
//! - [`FetcherBuilder::host_fn`] returns the [`Host`] settings for an origin, if the origins are
//!   not known in advance.
//! - [`RequestBuilder::priority`] starts a request before others of its batch.
//!
//! # Retries
//!
//! A request is retried if both of these conditions hold:
//!
//! - **The request is safe to repeat.** Its method is idempotent (`GET`, `HEAD`, `OPTIONS`,
//!   `TRACE`, `PUT`, `DELETE`), it has an `Idempotency-Key` header, or it is marked with
//!   [`RequestBuilder::idempotent`]. Any request is safe to repeat if no byte of it can have
//!   reached the server, or if an HTTP/2 server refused it unprocessed. It is also safe to repeat
//!   if the status says that the server did not process it: 429, 503 with `Retry-After`, or 425.
//!   [`Retry::retry_unprocessed_posts`] turns off this last rule.
//! - **The failure is transient.** The name did not resolve, no address accepted a connection, the
//!   connection was closed or reset, the body was cut short, a timeout other than the total timeout
//!   expired, or the status is 408, 425, 429, 500, 502, 503 or 504. [`ErrorKind`] states for each
//!   kind whether it is retried.
//!
//! A request is retried at most twice ([`Retry::max_retries`]). A retry after a 429, or after a 503
//! with a `Retry-After` header, is not counted among the two; there are at most ten of those per
//! request ([`Retry::max_throttled_attempts`]). When no retry is left, the outcome of the last
//! attempt is the result: an error, or a response with any status.
//!
//! Each retry waits for a random time between zero and a bound. The bound starts at 100 ms, or at 1
//! s after a 429 or 503, and doubles with each retry, up to 20 s. A `Retry-After` header on a 408,
//! 429 or 5xx response sets the minimum wait; until that wait is over, no request is sent to the
//! host. If `Retry-After` asks for more than 5 minutes, the response is the result and the host is
//! not paused. [`Retry`] changes each of these numbers.
//!
//! - A [retry budget](RetryBudget) limits the retries sent to one host, to 20 % of the first
//!   attempts to that host, plus 10 per second. When the budget is empty, a failed request is not
//!   retried. The budget prevents retry storms against a failing host.
//! - [`Retry::classify`] sets a callback that decides whether to retry.
//! - [`Retry::final_round`] gives each request that still failed one more attempt, after all other
//!   requests of the batch.
//!
//! One attempt can send a request twice. If a reused connection closes before any byte of the
//! response, a request that is safe to repeat is sent again on a new connection: the server has
//! most likely closed the idle connection at the moment the request was sent. [`Retry::off`] does
//! not change this.
//!
//! # Unreachable hosts
//!
//! After 5 consecutive connection failures, the [circuit breaker](Breaker) of a host opens. If
//! requests to a host use different proxies, each proxy has a breaker of its own for that host. If
//! `limit_by` is set, there are no breakers, because one key may stand for several hosts.
//!
//! For 15 s the requests to the host stay queued, without a slot. Then one of them is sent as a
//! probe. If the host responds, the queued requests start. If the probe fails as well, the queued
//! requests to the host end. A request that was already attempted gets the outcome of its last
//! attempt as its result. A request that was never attempted fails with [`ErrorKind::HostDown`].
//! Ten thousand URLs of a dead host therefore take a few connection timeouts instead of ten
//! thousand. If the [`deadline`](Batch::deadline) of a batch passes before the next probe, the
//! requests of this batch to this host end in the same way at once.
//! [`Breaker::off`] disables the breaker, for example for a health checker.
//!
//! # Budgets
//!
//! A metered API limits requests per minute and, for example, tokens per minute. A [`Budget`] is a
//! limit on the cost of requests, per period or in total. [`RequestBuilder::cost`] states the cost
//! of a request, and [`Budget::settle`] corrects it when the response has arrived. A request starts
//! when all of its budgets cover its cost; until then it is queued, without a slot. A request whose
//! cost can never be covered fails with [`ErrorKind::Budget`], unsent. [`Progress::budgets`] lists,
//! for each budget, how many units can be charged now. [`docs::metered_apis`] is a guide, from one
//! budget to a spending cap.
//!
//! ```
//! # async fn example() -> fanout::Result<()> {
//! use fanout::{Budget, Fetcher, Host, Request};
//!
//! let api = Host::new()
//!     .bearer_auth("token")
//!     .budget(Budget::per_minute("requests", 500))
//!     .budget(Budget::per_minute("tokens", 200_000));
//! let fetcher = Fetcher::builder().host("https://api.example", api).build()?;
//! let prompts = ["Hello", "Good morning"];
//! let requests = prompts.map(|prompt| {
//!     Request::post("https://api.example/chat").body(prompt).cost("tokens", 1_800)
//! });
//! let results = fetcher.gather(requests).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Redirects
//!
//! Redirects are followed, at most 10 per request ([`FetcherBuilder::max_redirects`],
//! [`RequestBuilder::max_redirects`]). A request that is redirected more often fails with
//! [`ErrorKind::Redirect`]. With a limit of 0, redirects are not followed: the redirect response is
//! the result. A [`RedirectPolicy`] decides which redirects are followed, for example those within
//! a host ([`FetcherBuilder::redirect_policy`], [`RequestBuilder::redirect_policy`]).
//!
//! An attempt consists of one or more hops: the first request, and one for each redirect. A hop is
//! subject to the limits of its host, and holds no slot while it is queued. If the scheme, host or
//! port changes, the new origin does not receive the credentials of the request. It receives only
//! the credentials that a [`Host`] sets for it. A retry continues from the hop that failed.
//! [`Response::url`] is the final URL, and [`Response::redirects`] lists the URLs before it.
//! [`https_only`](FetcherBuilder::https_only) rejects `http` URLs at every hop.
//!
//! # Large bodies
//!
//! A response body is kept in memory, up to 32 MiB ([`FetcherBuilder::max_body_size`]). For larger
//! bodies:
//!
//! - [`RequestBuilder::save_to`] writes the body to a file as it arrives. A retry resumes the
//!   download where the last attempt stopped, and so does the next run of the program.
//! - [`Batch::read_with`] passes each response to an async handler, which reads the body as a
//!   stream. A thousand large files need little memory this way. The value that the handler returns
//!   is the result of its input in `gather`, `as_completed` and `in_order`.
//! - [`Fetch::stream_body`] returns a response as soon as its head has arrived. The body is a
//!   stream, which a reverse proxy can pass on. See `examples/reverse_proxy.rs`.
//! - [`Batch::max_buffered_bytes`] limits the bodies that `as_completed` and `in_order` hold for a
//!   slow consumer. When the limit is reached, reading from the servers stops.
//!
//! A request [`Body`] is bytes, a file, a stream, or a factory that creates a new stream for each
//! attempt. A single stream can be sent only once, so its request is not retried after the stream
//! was read.
//!
//! # Credentials and cookies
//!
//! [`Host::bearer_auth`] and [`Host::basic_auth`] set the credentials of one origin.
//! [`Host::token_source`] sets an async function that returns a bearer token. It is called once for
//! all waiting requests. After a 401 response it is called again, and the request is sent again
//! with the new token. Credentials in a URL
//! (`user:password@`) apply to that request only. `FetcherBuilder::cookies`
//! (feature `cookies`) stores cookies between requests.
//!
//! # Content codings
//!
//! Requests accept gzip, deflate and br (and zstd with its feature). Responses are decoded as they
//! arrive, with up to five nested codings. [`max_body_size`](FetcherBuilder::max_body_size) limits
//! the decoded size of a body in memory, so it also bounds the memory that a compression bomb can
//! use. Corrupt or truncated data fails with [`ErrorKind::ContentEncoding`]; a partial body is
//! never returned. [`decode_content(false)`](FetcherBuilder::decode_content) returns bodies without
//! decoding them, for all requests or for [one](RequestBuilder::decode_content). A body that is
//! saved to a file is not decoded, unless the request sets `decode_content(true)`.
//!
//! # HTTP/1.1 and HTTP/2
//!
//! With `https`, the TLS handshake (ALPN) selects HTTP/1.1 or HTTP/2.
//! [`http1_only`](FetcherBuilder::http1_only) offers HTTP/1.1 only.
//! `FetcherBuilder::http2_prior_knowledge` uses HTTP/2 with `http` URLs. An HTTP/2 connection
//! carries as many concurrent requests as its server allows; another one is opened when all are
//! full. The first request to an `https` origin starts alone. The others start once its TLS
//! handshake has shown whether the server supports HTTP/2, or after 300 ms at the latest.
//!
//! # Proxies, DNS and certificates
//!
//! The environment variables `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` select a
//! proxy. Names in upper case are read too, except `HTTP_PROXY`, as in curl. The builder methods
//! [`proxy`](FetcherBuilder::proxy) and [`no_proxy`](FetcherBuilder::no_proxy) override them.
//! [`Proxy`] supports HTTP, HTTPS, SOCKS5 and SOCKS5h proxies.
//!
//! Host names are resolved once for all waiting requests, and cached for 30 s
//! ([`FetcherBuilder::dns_cache_ttl`]). [`resolver`](FetcherBuilder::resolver) replaces the system
//! resolver.
//!
//! Server certificates are verified against the system's trust store and the [certificates you
//! add](FetcherBuilder::add_root_certificates).
//! [`client_certificate`](FetcherBuilder::client_certificate) sets the certificate that is
//! presented to one origin.
//!
//! # Untrusted URLs
//!
//! [`public_addresses_only`](FetcherBuilder::public_addresses_only) rejects private, loopback,
//! link-local and cloud metadata addresses. The check applies to the resolved address at connect
//! time, for every hop and every attempt, so redirects and DNS rebinding cannot bypass it. It
//! cannot be combined with a proxy, because then the proxy opens the connection to the server, and
//! the Fetcher cannot check the address. Combine it with
//! [`https_only`](FetcherBuilder::https_only) and [`allowed_ports`](FetcherBuilder::allowed_ports)
//! for URLs from untrusted sources. A rejected request fails with [`ErrorKind::NotAllowed`].
//!
//! # Timeouts and other defaults
//!
//! All timeouts except the batch deadline count wire time only: the time in which a request holds a
//! slot. No timeout ends a queued request; only a deadline, a cancellation, a drain or an
//! unreachable host does.
//!
//! | setting | default | limits |
//! |---|---|---|
//! | [`Timeouts::connect`] | 10 s | DNS, TCP connect (all addresses) and TLS handshake |
//! | [`Timeouts::response_head`] | 30 s | sending the request and receiving the complete response head; restarts each time a part of the request body is written |
//! | [`Timeouts::body_idle`] | 20 s | the time between two chunks of the body |
//! | [`Timeouts::total`] | 120 s | the wire time of all attempts together |
//! | [`RequestBuilder::timeout`], [`FetcherBuilder::request_timeout`] | none | the wire time of one attempt |
//! | [`Batch::deadline`] | none | the duration of the whole batch, in wall-clock time |
//! | [`Batch::concurrency`] | 100 requests | requests on the wire, per batch |
//! | [`Batch::concurrency_per_host`] | none | requests on the wire, per host and batch |
//! | [`Batch::rate`], [`rate_per_host`](Batch::rate_per_host) | none | starts per unit of time |
//! | [`Batch::look_ahead`] | 16 × concurrency inputs; doubles while slots are idle, up to 65,536. Reading also pauses while the inputs read ahead hold about 64 MiB of request bodies | inputs read ahead of the results |
//! | [`Retry::max_retries`] | 2 retries | retries after the first attempt |
//! | [`Retry::max_throttled_attempts`] | 10 retries | additional retries after a 429, or after a 503 with `Retry-After` |
//! | [`FetcherBuilder::retry_budget`] | 20 % and 10/s | retries to one host |
//! | [`FetcherBuilder::breaker`] | 5 failures, 15 s | failures until a host counts as unreachable, and the time until it is tried again |
//! | [`FollowLimits`] | at most 16 links away from an input; 100,000 requests | requests added by [`follow_links`](AsCompleted::follow_links) |
//! | [`FetcherBuilder::max_redirects`] | 10 redirects | redirects per request |
//! | [`FetcherBuilder::max_body_size`] | 33,554,432 bytes (32 MiB) | the size of one body in memory |
//! | [`FetcherBuilder::idle_timeout`] | 15 s | the time an idle connection is kept |
//!
//! # Errors
//!
//! An [`Error`] has a [`kind`](Error::kind), which can be used as a map key, a [`url`](Error::url),
//! the [`attempts`](Error::attempts) that were made, and a [`source`](std::error::Error::source).
//! [`maybe_sent`](Error::maybe_sent) tells whether a server may have processed the request.
//! Neither `Display` nor `Debug` shows a credential.
//!
//! A 4xx or 5xx status is not an error. [`Response::error_for_status`] turns it into one; that
//! error keeps the response.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> fanout::Result<()> {
//! # let fetcher = fanout::Fetcher::builder().transport(axum::Router::new()).build()?;
//! use fanout::{ErrorKind, Response};
//!
//! let result = fetcher.fetch("https://example.com/gone").await;
//! match result.and_then(Response::error_for_status) {
//!     Ok(response) => println!("{}", response.text()),
//!     Err(error) if error.kind() == ErrorKind::Status => println!("{:?}", error.into_response()),
//!     Err(error) if error.is_timeout() => println!("too slow: {error}"),
//!     Err(error) => println!("{error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Pagination and crawling
//!
//! [`AsCompleted::follow_links`] adds the requests that a callback finds in each result to the
//! running batch, for a crawler. [`AsCompleted::follow_next_link`] follows the `Link: rel="next"`
//! header of a paginated API. Each result has a [`parent_index`](Completed::parent_index). The
//! depth and the number of added requests are limited; [`AsCompleted::skipped_requests`] counts the
//! requests beyond the limits.
//!
//! # Control, progress and summary
//!
//! [`Batch::handle`] returns a [`BatchHandle`] that controls a running batch from any task or
//! thread. It can pause the batch, change its limits, cancel it or its requests to one host, or
//! drain it. A drained batch finishes the requests on the wire and fails the queued requests
//! unsent, which suits a service that receives SIGTERM.
//!
//! [`BatchHandle::progress`] reports the requests that are done, in flight and waiting, and what
//! they wait for. [`Fetcher::snapshot`] reports the same for the whole Fetcher. [`BodyProgress`]
//! reports how much of one large body has arrived. [`Summary`] aggregates results by status, error
//! kind and host, with percentiles of the time spent queued, connecting, waiting for the response
//! head and reading the body. It prints as a short table.
//!
//! [`Fetcher::to_builder`] returns a builder for a second Fetcher that shares connections and
//! limits, but has its own headers, credentials or retry settings. The second Fetcher may also have
//! a lower concurrency and rate of its own. A service can thus make one such Fetcher for each of
//! its tenants.
//!
//! # Deadlines and cancellation
//!
//! [`Batch::deadline`] ends a batch after a wall-clock duration. `gather` still returns one result
//! per input: an input that is not done in time gets the result of its last finished attempt (a
//! response or an error), or [`ErrorKind::Deadline`] if no attempt has finished. If the inputs come
//! from a stream, the batch stops reading the stream.
//!
//! Dropping a batch's future or stream cancels the batch: HTTP/1.1 connections in use are closed,
//! HTTP/2 streams are reset, and queued requests are dropped. Dropping a [`Fetch`] cancels that
//! request, and so does dropping the [`StreamingResponse`] that it returned.
//! [`AsCompleted::next`] and [`InOrder::next`] are cancel safe, so they can be branches of
//! `tokio::select!`.
//!
//! # Testing without a network
//!
//! [`FetcherBuilder::transport`] replaces the network with a `tower_service::Service`, such as an
//! axum `Router`. Limits, retries and timeouts work as usual; with tokio's paused clock they take
//! no real time. The feature `test-util` adds `Mock`, which responds by URL and can simulate
//! network failures. See `examples/testing.rs`.
//!
//! # Observability
//!
//! [`Timings`] reports how long a request was queued, connecting, waiting for the response head and
//! reading the body. Each [`Response`], [`Error`], [`Completed`] and [`Attempt`] has timings.
//!
//! Logs use [`tracing`](https://docs.rs/tracing):
//!
//! - Each request has a span `request` (target `fanout::request`, level DEBUG) with its index,
//!   method and URL.
//! - Each new connection is an event within that span (target `fanout::wire`, DEBUG).
//! - Each attempt is an event within that span (target `fanout::attempt`, DEBUG) with its outcome,
//!   its timings and the backoff before the next attempt.
//! - Each settled cost of a [budget](Budget) is an event within that span (target `fanout::budget`,
//!   DEBUG) with the estimated and the actual cost, and the level of the budget.
//! - Lowering the concurrency to the limit on open files is a warning (target `fanout`).
//!
//! URLs are logged without userinfo, and with the names of their query parameters but not the
//! values: `https://a.example/search?key=***`. The same holds for errors and `Debug` output. A URL
//! is cut after 512 bytes. Paths are logged as they are.
//!
//! # Runtimes
//!
//! A Fetcher runs on tokio, on a current-thread or multi-thread runtime with I/O and time enabled.
//! Creating a Fetcher needs no runtime, so it can be a `static`. Polling a fetch or a batch outside
//! of a runtime panics. On a runtime without a time driver or I/O driver, each request fails with
//! [`ErrorKind::MissingRuntimeDriver`]. One Fetcher can serve several runtimes, concurrently or one
//! after another. Each runtime has its own connections; all runtimes share the limits.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `tls` | yes | `https` through rustls, with the system's trust store |
//! | `json` | yes | `RequestBuilder::json` and `Response::json` |
//! | `http2` | yes | HTTP/2, through ALPN or with prior knowledge |
//! | `gzip`, `deflate`, `brotli` | yes | decoding of these content codings |
//! | `zstd` | no | decoding of zstd; compiles C code |
//! | `cookies` | no | a cookie store with the public suffix list |
//! | `charset` | no | `Response::text` decodes encodings other than UTF-8 |
//! | `test-util` | no | `Mock` |
//!
//! # Not supported
//!
//! - HTTP/3.
//! - Multipart forms, `Expect: 100-continue`, Unix sockets, binding to a local address, an HTTP
//!   cache.
//!
//! # Malformed responses
//!
//! These responses fail with [`ErrorKind::Protocol`]: conflicting lengths, unknown transfer
//! codings, invalid chunks, and more than 16 informational responses. A body that is delimited by
//! the end of a TLS connection fails if the connection ends without `close_notify`. Line endings
//! without CR, and an empty line before the status line, are accepted (RFC 9112 §2.2).
//! [`docs::accepted_and_refused`] lists how malformed URLs, heads, bodies, redirects, cookies and
//! other input are treated, each rule with its source.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod batch;
mod body;
mod body_budget;
mod body_progress;
mod builder;
mod calendar;
#[cfg_attr(not(feature = "charset"), path = "charset/disabled.rs")]
mod charset;
mod credentials;
mod descriptors;
pub mod docs;
mod engine;
mod error;
mod exchange;
mod fetcher;
mod header_date;
mod header_url;
mod hop_clock;
mod host_name;
#[cfg(feature = "json")]
mod json;
mod limits;
mod link_header;
#[cfg(feature = "test-util")]
mod mock;
mod packed_headers;
mod progress;
mod proxy;
mod quoted_string;
mod redacted_url;
mod redirect_policy;
mod request;
mod request_history;
mod resolve;
mod response;
mod response_body;
mod retry;
mod schedule;
mod streaming_response;
mod summary;
mod timings;
mod two_generation_cache;
mod wire;

pub use batch::{
    AsCompleted, Batch, BatchHandle, Completed, FollowLimits, Gather, InOrder, InputReceiver,
    TryGather,
};
pub use body::Body;
pub use body_progress::BodyProgress;
pub use builder::FetcherBuilder;
pub use error::{BoxError, Error, ErrorKind, Result};
pub use fetcher::{Fetch, Fetcher};
pub use limits::{
    Breaker, Budget, Concurrency, Host, KeyLimits, ParseRateError, Priority, Rate, Retry,
    RetryBudget, RetryDecision, Timeouts,
};
#[cfg(feature = "test-util")]
pub use mock::{Mock, MockRequest, MockResponse};
pub use progress::{
    BudgetLevel, BudgetScope, HostProgress, Progress, Snapshot, WaitReason, Waiting,
};
pub use proxy::Proxy;
pub use redirect_policy::{ProposedRedirect, RedirectDecision, RedirectPolicy};
pub use request::{IntoRequest, Request, RequestBuilder};
pub use request_history::RequestHistory;
pub use resolve::{Resolve, ResolveFuture};
pub use response::{Redirect, Response};
pub use streaming_response::StreamingResponse;
pub use summary::{Histogram, HostSummary, Summarize, Summary};
pub use timings::{Attempt, Outcome, Timings};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
