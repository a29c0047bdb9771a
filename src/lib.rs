//! `fanout` fetches ten or ten million URLs and hands back one result for each.
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
//!         Ok(response) => println!("{url} {} {} bytes", response.status(), response.bytes().len()),
//!         Err(error) => println!("{url} {error}"),
//!     }
//! }
//! # let succeeded = fetcher.gather(&urls).await.into_iter().map(|result| result.is_ok());
//! # assert!(succeeded.eq([true, true, false]));
//! # Ok(())
//! # }
//! ```
//!
//! **Retries are on.** A request that is safe to send again (an idempotent method, an `Idempotency-Key`, or marked with
//! [`RequestBuilder::idempotent`]) is tried again, at most twice, after a failed connection, a reset, a body cut short, a
//! timeout, or one of the statuses 408, 425, 429, 500, 502, 503 and 504. It waits before each retry, for a random time
//! that grows. `Retry-After` is honoured and pauses the whole host. The [details](#retries) are below; [`Retry::off`]
//! turns it off.
//!
//! What it promises:
//!
//! - **One result for each input.** A bad URL, a dead host or a panic is the result of its own input and of no other.
//! - **A slot is held only on the wire.** What waits for a rate, a back-off or a paused host holds no slot, no
//!   connection and no timeout.
//! - **Memory for what is under way**, not for the whole batch: inputs are read as they are needed, so a batch may be
//!   longer than memory. What grows with it is what you keep: all of it with [`gather`](Fetcher::gather).
//!
//! If you come from Python, [`docs::from_asyncio`] puts each call beside its twin; [`docs::from_reqwest`] does so for
//! reqwest. [`docs::performance`] says what a request costs, beside others, and what there is to tune.
//!
//! # One, many, as they come
//!
//! A [`Fetcher`] is a handle to connections and limits. Make one for a program and clone it freely.
//!
//! | call | gives |
//! |---|---|
//! | [`fetch`](Fetcher::fetch) | one result; the future may be spawned |
//! | [`gather`](Fetcher::gather) | a `Vec` with all results, in the order of the inputs |
//! | [`try_gather`](Batch::try_gather) | all responses, or the first error, which cancels the rest |
//! | [`as_completed`](Fetcher::as_completed) | each result when it is there, with its index, its request and your own value |
//! | [`in_order`](Batch::in_order) | each result in its turn, in the order of the inputs |
//!
//! An input is a URL (`&str`, `String`, `Url`, `http::Uri`), a [`Request`] or an `http::Request`, or a pair of a value
//! of your own and one of these ([`IntoRequest`]). Inputs come from an iterator, and may be borrowed, or from a stream
//! ([`batch_from_stream`](Fetcher::batch_from_stream)).
//!
//! A [`Response`] is complete, body included, so reading it is a plain call: [`text`](Response::text),
//! [`bytes`](Response::bytes), and with the feature `json` `json`.
//!
//! # Limits and rates
//!
//! [`batch`](Fetcher::batch) sets limits for one batch; [`Fetcher::builder`] sets a ceiling over all batches and single
//! fetches together. [`Host`] gives one origin limits, headers and credentials of its own.
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
//! A concurrency counts requests on the wire, a rate counts starts, and each retry or redirect is a start. A host is an
//! origin (scheme, host and port) unless [`limit_by`](FetcherBuilder::limit_by) says otherwise. A host at its limit
//! delays no other, within the [look-ahead window](Batch::look_ahead). A concurrency is fitted to the system's limit on
//! open files, with a warning in the log.
//!
//! [`Concurrency::adaptive`] lets each host learn how many requests at once it can use. What a server announces of its own
//! limits (`RateLimit`, `X-RateLimit-*`) [is heeded](FetcherBuilder::respect_rate_limit_headers) before it refuses.
//! [`FetcherBuilder::host_fn`] gives hosts their particulars by a function of the origin, and a
//! [`Priority`](RequestBuilder::priority) puts one request before others of its batch.
//!
//! # Retries
//!
//! A request is tried again, at most twice, if both of these hold:
//!
//! - It is safe to send again: its method is idempotent (`GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT`, `DELETE`), or it has
//!   an `Idempotency-Key`, or it is marked with [`RequestBuilder::idempotent`]. Any request is safe if no byte of it can have
//!   reached the server.
//! - Another attempt may fare better: the name did not resolve, no address accepted a connection, the connection was
//!   closed or reset, the body was cut short, a timeout other than the total ran out ([`ErrorKind`] says of each kind
//!   whether it is retried), or the status is 408, 425, 429, 500, 502, 503 or 504.
//!
//! Before each retry there is a wait of random length: at most 100 ms before the first (1 s after 429 and 503), at most
//! twice that before the second, and so on up to 20 s. `Retry-After` (with 408, 429 and 5xx) is honoured: it is the
//! least wait, and until then nothing starts to that host at all. If it is longer than 5 min the response is the
//! result, and the host is not paused. [`Retry`] changes each of these numbers. When the attempts are used up the last
//! one is the result: an error, or a response with the status it has.
//!
//! A 429, and a 503 with a `Retry-After`, costs no retry, ten times a request ([`Retry::max_throttled_attempts`]): the server said
//! when to come back. A [budget](RetryBudget) bounds the retries that one host is sent, to a fifth of the fresh requests
//! and ten a second, so that a broken host is not sent three times its load. [`Retry::classify`] lets a function of yours
//! decide, and [`Retry::final_round`] sends what still failed once more when its batch is at its end.
//!
//! There is one repetition that is no retry. A reused connection that closes before a byte of an answer was most likely
//! closed by the server as the request went out; such a request is sent once more on a fresh connection, if it is safe
//! to send again. It is the same attempt, and [`Retry::off`] does not turn it off.
//!
//! # Hosts that are down
//!
//! After 5 failures in a row to connect to a host its [breaker](Breaker) opens: for 15 s nothing is sent there, and then
//! one request as a probe. Meanwhile its requests wait, without a slot or a clock; once the host has been down for longer
//! than 15 s they end at once as [`ErrorKind::HostDown`], unsent. So ten thousand URLs of a dead host cost seconds, and
//! not ten thousand timeouts. [`Breaker::off`] is for one who asks hosts whether they are up.
//!
//! # Redirects
//!
//! They are followed, at most 10 for a request ([`FetcherBuilder::max_redirects`], [`RequestBuilder::max_redirects`]); one more
//! is [`ErrorKind::Redirect`], and with a limit of 0 the first redirect is the result. A redirect is another hop of the
//! same attempt, and goes through the limits of the host it leads to, where it waits without a slot. On a change of
//! scheme, host or port the credentials of the request stay behind. A retry goes on from the hop that failed.
//! [`Response::url`] is the URL that answered, and [`Response::redirects`] the way there.
//! [`https_only`](FetcherBuilder::https_only) refuses `http` at every hop.
//!
//! # Large bodies
//!
//! A response is held whole, up to 32 MiB, unless it is told otherwise. [`RequestBuilder::save_to`] writes a body to a file as it
//! comes, and a retry goes on where the last attempt stopped. [`Batch::read_with`] hands each response to a handler of
//! yours that reads it as a stream, so that a thousand large files pass through little memory; every ending still works.
//! [`Batch::max_buffered_bytes`] bounds what the results that nobody has taken yet may hold. A request's [`Body`] may be bytes, a
//! file, a stream, or a factory of streams that can be sent again.
//!
//! # Credentials and cookies
//!
//! A [`Host`] holds the credentials of one origin; [`Host::token_source`] asks for a token when it is needed, and once for
//! all requests that wait when a 401 says that it is out of date. User-info in a URL is that request's own. With the
//! feature `cookies`, `FetcherBuilder::cookies` keeps them between requests.
//!
//! # Content codings
//!
//! Answers in gzip, deflate and br are asked for and decoded as they come in (zstd with its feature), up to five layers.
//! The [cap](FetcherBuilder::max_body_size) counts decoded bytes, and bounds the memory a compression bomb can take. Corrupt
//! data is [`ErrorKind::ContentEncoding`], never a short body. [`decode(false)`](FetcherBuilder::decode_content) gives the bytes as they
//! are.
//!
//! # HTTP/1.1 and HTTP/2
//!
//! An `https` server is asked in the TLS handshake which of the two it speaks;
//! [`http1_only`](FetcherBuilder::http1_only) does not ask, and `FetcherBuilder::http2_prior_knowledge` speaks HTTP/2 with
//! `http` servers too. Over HTTP/2 many requests share a connection. The first request to an unknown origin goes alone, for
//! 300 ms at most, to find out whether one connection is enough.
//!
//! # Proxies, names and certificates
//!
//! The proxies of the environment are used as curl does (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`), unless
//! [`no_proxy`](FetcherBuilder::no_proxy) or a [`Proxy`] of your own is set; HTTP, HTTPS, SOCKS5 and SOCKS5h are spoken.
//! Names are looked up once and kept for a short while; [`resolver`](FetcherBuilder::resolver) puts another resolver in
//! place. Certificates are checked against the system's roots and
//! [those added](FetcherBuilder::add_root_certificates); a server may be shown a
//! [client certificate](FetcherBuilder::client_certificate).
//!
//! # URLs you did not choose
//!
//! [`public_addresses_only`](FetcherBuilder::public_addresses_only) refuses private, loopback, link-local and metadata
//! addresses when connecting, on the address itself: for every hop, every retry and every name, so that neither a
//! redirect nor a resolver that changes its mind gets past it. With
//! [`https_only`](FetcherBuilder::https_only) and [`allowed_ports`](FetcherBuilder::allowed_ports) it makes a Fetcher fit
//! for URLs from outside. What they refuse is [`ErrorKind::NotAllowed`].
//!
//! # Timeouts and other defaults
//!
//! Every timeout but the deadline counts wire time only, so that waiting in line is never an error.
//!
//! | setting | default | what it bounds |
//! |---|---|---|
//! | [`Timeouts::connect`] | 10 s | name, connection and TLS handshake, over all addresses |
//! | [`Timeouts::response_head`] | 30 s | from then until the response head is complete |
//! | [`Timeouts::body_idle`] | 20 s | between one piece of the body and the next |
//! | [`Timeouts::total`] | 120 s | the wire time of all attempts together |
//! | [`RequestBuilder::timeout`] | none | the wire time of one attempt |
//! | [`Batch::deadline`] | none | the whole batch, by the clock on the wall |
//! | [`Batch::concurrency`] | 100 requests | on the wire at once, in a batch |
//! | [`Batch::concurrency_per_host`] | none | on the wire at once, to one host |
//! | [`Batch::rate`], [`rate_per_host`](Batch::rate_per_host) | none | starts in a time |
//! | [`Batch::look_ahead`] | grows to 65,536 inputs | read ahead of the results, at most |
//! | [`Retry::max_retries`] | 2 retries | after the first attempt |
//! | [`Retry::max_throttled_attempts`] | 10 answers | that say when to come back, and cost no retry |
//! | [`FetcherBuilder::retry_budget`] | 20 % and 10/s | retries that one host is sent |
//! | [`FetcherBuilder::breaker`] | 5 failures, 15 s | until a host counts as down, and for how long |
//! | [`Follow::max_depth`], [`max_requests`](Follow::max_requests) | 16 steps, 100,000 requests | what results lead to |
//! | [`FetcherBuilder::max_redirects`] | 10 redirects | followed for one request |
//! | [`FetcherBuilder::max_body_size`] | 33,554,432 bytes (32 MiB) | one body |
//! | [`FetcherBuilder::idle_timeout`] | 15 s | the rest of an unused connection |
//!
//! # Errors
//!
//! An [`Error`] has a [`kind`](Error::kind), which can be the key of a map, a [`url`](Error::url), the
//! [`attempts`](Error::attempts) that were made, and its causes below it in [`source`](std::error::Error::source).
//! [`maybe_sent`](Error::maybe_sent) tells whether the server may have seen the request. Neither `Display` nor `Debug`
//! shows a credential.
//!
//! A status is not an error until [`Response::error_for_status`] makes it one, and that error keeps the response.
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
//! # Pages that lead to more
//!
//! [`AsCompleted::follow`] takes what a result leads to into the same batch: the next page of a list
//! ([`Follow::next_link`]), or the links of a page, for a crawler ([`Follow::new`]). Each result knows its
//! [`parent`](Completed::parent). Depth and count are bounded, and [what was left out](AsCompleted::skipped) is counted.
//!
//! # Steering, progress and summary
//!
//! [`Batch::handle`] gives a [`BatchHandle`], by which any task or thread pauses a batch, changes its limits, cancels all
//! of it or one host, or drains it: what is on the wire is finished, and the rest is answered unsent, as a service does on
//! SIGTERM. [`BatchHandle::progress`] tells what is done, what is under way and what waits for what;
//! [`Fetcher::snapshot`] tells it of all that a Fetcher does. [`Summary`] counts any results by kind, status and host, with
//! percentiles of where the time went, and prints as a short table.
//!
//! [`Fetcher::to_builder`] makes a sibling, which shares connections and limits and has other headers, credentials or
//! retries.
//!
//! # Deadlines and cancellation
//!
//! A [`deadline`](Batch::deadline) ends a batch by the clock on the wall. `gather` then still answers every input: what
//! was not done in time has its last attempt's result, or [`ErrorKind::Deadline`]. The exception is a stream of inputs,
//! from which nothing more is taken.
//!
//! Dropping the future or the stream of a batch cancels it: connections in use are closed, and what waits is forgotten.
//! Dropping a [`Fetch`] cancels that request. Reading with `next` is cancel safe, so it may be a branch of
//! `tokio::select!`.
//!
//! # Testing without a network
//!
//! [`FetcherBuilder::transport`] puts a service in place of the network, such as an axum `Router`. Limits, retries and
//! timeouts stay the real ones, and with tokio's clock paused they take no time. The feature `test-util` adds `Mock`,
//! which answers by URL and can fail as a network does. See `examples/testing.rs`.
//!
//! # Observability
//!
//! [`Timings`] say where the time went: in line, connecting, waiting for the head, reading the body. They are on each
//! [`Response`], [`Error`] and [`Completed`], and for each [`Attempt`].
//!
//! Logs go to [`tracing`](https://docs.rs/tracing): a span `request` for each request (target `fanout::request`, level
//! DEBUG, with index, method and URL), in it an event for each connection made (target `fanout::wire`, DEBUG) and for
//! each attempt (target `fanout::attempt`, DEBUG, with outcome, times and the wait before the next), and warnings when a
//! limit had to be lowered. URLs are logged with their query and without user-info.
//!
//! # Runtimes
//!
//! A Fetcher works on a tokio runtime, current-thread or multi-thread, with I/O and time enabled. It is made without
//! one, so it may be a `static`; to poll a fetch or a batch outside a runtime panics. One Fetcher may serve several
//! runtimes, at once or one after another: each has its own connections, and all share the limits.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `tls` | yes | `https`, through rustls, with the system's trust store |
//! | `json` | yes | `RequestBuilder::json` and `Response::json` |
//! | `http2` | yes | HTTP/2, where a server chooses it in the TLS handshake |
//! | `gzip`, `deflate`, `brotli` | yes | these content codings |
//! | `zstd` | no | this one too; it compiles C |
//! | `cookies` | no | cookies kept between requests, with the public-suffix list |
//! | `charset` | no | `Response::text` in the character sets of the web |
//! | `test-util` | no | `Mock` |
//!
//! # What is not supported
//!
//! - HTTP/3.
//! - Multipart forms, `Expect: 100-continue`, Unix sockets, a choice of the local address, a cache.
//!
//! What is malformed is refused and not guessed at: lengths that disagree, codings of the transfer that are not known,
//! chunks that make no sense, more than 16 informational answers, a TLS stream that ends without saying so. Line ends
//! without CR and an empty line before the status are accepted, as RFC 9112 §2.2 allows.

#![forbid(unsafe_code)]

mod batch;
mod body;
mod body_budget;
mod builder;
#[cfg_attr(not(feature = "charset"), path = "charset/disabled.rs")]
mod charset;
mod credentials;
pub mod docs;
mod engine;
mod error;
mod exchange;
mod fetcher;
#[cfg(feature = "json")]
mod json;
mod limits;
mod link_header;
#[cfg(feature = "test-util")]
mod mock;
mod packed_headers;
mod progress;
mod proxy;
mod request;
mod resolve;
mod response;
mod response_body;
mod schedule;
mod streaming_response;
mod summary;
mod timings;
mod two_generation_cache;
mod wire;

pub use batch::{AsCompleted, Batch, BatchHandle, Completed, Follow, Gather, InOrder, TryGather};
pub use body::Body;
pub use builder::FetcherBuilder;
pub use error::{Error, ErrorKind, Result};
pub use fetcher::{Fetch, Fetcher};
pub use limits::{
    Breaker, Concurrency, Host, ParseRateError, Priority, Rate, Retry, RetryBudget, RetryDecision,
    Timeouts,
};
#[cfg(feature = "test-util")]
pub use mock::{Mock, MockRequest, MockResponse};
pub use progress::{HostProgress, Progress, Snapshot, WaitReason, Waiting};
pub use proxy::Proxy;
pub use request::{IntoRequest, Request, RequestBuilder};
pub use resolve::{Resolve, ResolveFuture};
pub use response::{Redirect, Response};
pub use streaming_response::StreamingResponse;
pub use summary::{Histogram, HostSummary, Summarize, Summary};
pub use timings::{Attempt, Outcome, Timings};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
