//! The Fetcher, the handle that users hold.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::batch::{AsCompleted, Batch, Gather, InputReceiver, ReceiverStream};
use crate::builder::FetcherBuilder;
use crate::engine::{Engine, JobOptions, SingleFetch, TenantHandle};
use crate::error::{BoxError, Result};
use crate::progress::Snapshot;
use crate::request::{IntoRequest, Request};
use crate::response::Response;
use crate::response_body::type_erased_handler;
use crate::streaming_response::StreamingResponse;

/// Fetches one URL or millions of URLs. A Fetcher holds the connections, the limits and the request
/// settings.
///
/// A Fetcher is a handle: its clones share everything. Create one Fetcher per program and keep it,
/// for example in a `static`. All batches and single fetches share the connections and limits, on
/// any tokio runtime.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let app = axum::Router::new().route("/{page}", axum::routing::get(|| async { "hello" }));
/// # let fetcher = fanout::Fetcher::builder().transport(app).build().unwrap();
/// # let _ = || {
/// let fetcher = fanout::Fetcher::new();
/// # };
/// let urls = ["http://127.0.0.1:8000/a", "http://127.0.0.1:8000/b", "not a URL"];
/// for result in fetcher.gather(urls).await {
///     match result {
///         Ok(response) => println!("{} {}", response.url(), response.status()),
///         Err(error) => println!("{error}"),
///     }
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Fetcher {
    /// The connections and limits, which clones and siblings (see [`to_builder`](Self::to_builder))
    /// share.
    engine: Arc<Engine>,
    /// The request settings, and the defaults of each job (one input on the way to its result).
    job_options: Arc<JobOptions>,
    /// Set if this Fetcher is a sibling with limits of its own, or shares those of such a sibling.
    tenant: Option<Arc<TenantHandle>>,
}

impl Fetcher {
    /// Creates a Fetcher with the default settings: 100 requests of a batch in flight, 2 retries,
    /// no rate limit.
    ///
    /// `new` never fails and performs no I/O. It can be called outside a runtime.
    pub fn new() -> Self {
        FetcherBuilder::default().build_default()
    }

    /// Returns a builder for a Fetcher with other settings.
    pub fn builder() -> FetcherBuilder {
        FetcherBuilder::default()
    }

    pub(crate) fn from_engine_and_options(
        engine: Arc<Engine>,
        job_options: Arc<JobOptions>,
    ) -> Self {
        Self {
            engine,
            job_options,
            tenant: None,
        }
    }

    pub(crate) fn with_tenant(self, tenant: Option<Arc<TenantHandle>>) -> Self {
        Self { tenant, ..self }
    }

    /// Returns a builder for a sibling: another Fetcher that shares connections and limits with
    /// this Fetcher, but has other headers, credentials, retries or timeouts, or limits of its own
    /// within the shared limits.
    ///
    /// The builder starts with the settings of this Fetcher. These settings apply to the sibling
    /// alone:
    ///
    /// - default headers and the user agent;
    /// - the headers, credentials and token source of a [`host`](FetcherBuilder::host), which
    ///   together replace the headers, credentials and token source that this Fetcher has for the
    ///   host;
    /// - [`retry`](FetcherBuilder::retry), [`timeouts`](FetcherBuilder::timeouts),
    ///   [`request_timeout`](FetcherBuilder::request_timeout),
    ///   [`max_redirects`](FetcherBuilder::max_redirects),
    ///   [`redirect_policy`](FetcherBuilder::redirect_policy),
    ///   [`max_body_size`](FetcherBuilder::max_body_size),
    ///   [`decode_content`](FetcherBuilder::decode_content),
    ///   [`respect_rate_limit_headers`](FetcherBuilder::respect_rate_limit_headers),
    ///   [`https_only`](FetcherBuilder::https_only),
    ///   [`allowed_ports`](FetcherBuilder::allowed_ports) and `FetcherBuilder::cookies`.
    ///
    /// All other settings are shared, and setting one makes [`build`](FetcherBuilder::build) fail,
    /// even with an equal value: concurrency and rates per host; `limit_by` and `limits_for`; the
    /// breaker and the retry budget; and everything about connections, such as `transport`,
    /// `idle_timeout`, proxies, the resolver, HTTP versions, certificates and
    /// `public_addresses_only`. A host that is paused or down is paused or down for all siblings.
    ///
    /// # Limits of a sibling
    ///
    /// [`concurrency`](FetcherBuilder::concurrency), [`rate`](FetcherBuilder::rate) and
    /// [`budget`](FetcherBuilder::budget) limit a sibling for itself, for example one sibling for
    /// each tenant of a service. The limit applies to all batches and single fetches of the sibling
    /// and its clones together. A request starts when this limit and all limits of this Fetcher
    /// permit it. The requests of this Fetcher do not count against the limits of a sibling. The
    /// limits end with the last clone of the sibling and its last batch.
    ///
    /// A sibling that sets none of them shares the limits of the Fetcher it was made from. The
    /// sibling of a sibling with limits of its own therefore shares these limits, too, and setting
    /// other limits for it makes [`build`](FetcherBuilder::build) fail.
    ///
    /// # Credentials
    ///
    /// Shared connections carry no credentials of an origin, except its client certificate.
    /// Siblings share client certificates and proxy credentials. Siblings must not be used with
    /// servers that authenticate the connection instead of each request (NTLM and Negotiate, RFC
    /// 4559). Cookies are not shared: a sibling starts with an empty cookie jar. A token source
    /// that the sibling does not replace is called once for all siblings.
    ///
    /// ```
    /// # fn main() -> fanout::Result<()> {
    /// use fanout::{Fetcher, Host, Rate, Retry};
    ///
    /// let alice = Fetcher::builder()
    ///     .concurrency_per_host(8)
    ///     .host("https://api.example.com", Host::new().bearer_auth("alice's"))
    ///     .build()?;
    /// let bob = alice
    ///     .to_builder()
    ///     .host("https://api.example.com", Host::new().bearer_auth("bob's"))
    ///     .retry(Retry::off())
    ///     .build()?;
    /// // Together they never have more than 8 requests in flight to one host.
    ///
    /// let nightly = alice.to_builder().concurrency(2).rate(Rate::per_second(5)).build()?;
    /// // All batches of `nightly` together start at most 5 requests per second.
    /// # Ok(())
    /// # }
    /// ```
    pub fn to_builder(&self) -> FetcherBuilder {
        FetcherBuilder::new_for_sibling(&self.engine, &self.job_options, self.tenant.as_ref())
    }

    /// Fetches one request. If the input has a tag, the tag is dropped.
    ///
    /// The future does nothing until it is polled, and can be spawned. All single fetches of a
    /// runtime together have the concurrency of one batch, 100 by default; further fetches are
    /// queued. The single fetches of a [sibling with limits of its own](Self::to_builder) count
    /// separately.
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
    /// let one = tokio::spawn(fetcher.fetch("http://127.0.0.1:8000/one"));
    /// let two = fetcher.fetch("http://127.0.0.1:8000/two").await?.error_for_status()?;
    /// println!("{} {:?}", two.text(), one.await.map(|one| one.is_ok()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn fetch(&self, request: impl IntoRequest) -> Fetch {
        self.fetch_request(request.into_request().1)
    }

    fn fetch_request(&self, request: Request) -> Fetch {
        Fetch {
            single_fetch: SingleFetch::new(
                Arc::clone(&self.engine),
                Arc::clone(&self.job_options),
                self.tenant.clone(),
                request,
            ),
            poll_result: SingleFetch::poll_response,
        }
    }

    /// Fetches all inputs and returns one result for each, in input order.
    ///
    /// `gather` runs a [`batch`](Self::batch) with default options. Inputs may be borrowed.
    /// [`Gather`] documents cancellation and panics.
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher) {
    /// let urls = vec!["http://127.0.0.1:8000/a".to_owned(), "http://127.0.0.1:8000/b".to_owned()];
    /// let results = fetcher.gather(&urls).await;
    /// assert_eq!(results.len(), 2);
    /// # }
    /// ```
    pub fn gather<'a, I>(&self, inputs: I) -> Gather<'a>
    where
        I: IntoIterator<Item: IntoRequest<Tag: 'a> + 'a, IntoIter: Send + 'a>,
    {
        self.batch(inputs).gather()
    }

    /// Fetches all inputs and yields each result as it completes, with its input and tag.
    ///
    /// `as_completed` runs a [`batch`](Self::batch) with default options.
    ///
    /// ```
    /// # struct Product { name: &'static str, url: String }
    /// # async fn example(fetcher: fanout::Fetcher, products: Vec<Product>) {
    /// let mut done = fetcher.as_completed(products.iter().map(|product| (product, &product.url)));
    /// while let Some(completed) = done.next().await {
    ///     let status = completed.result.map(|response| response.status());
    ///     println!("{} {status:?}", completed.tag.name);
    /// }
    /// # }
    /// ```
    pub fn as_completed<'a, T, I>(&self, inputs: I) -> AsCompleted<'a, T>
    where
        T: 'a,
        I: IntoIterator<Item: IntoRequest<Tag = T> + 'a, IntoIter: Send + 'a>,
    {
        self.batch(inputs).as_completed()
    }

    /// Creates a batch of `inputs`, whose options are set with the methods of [`Batch`].
    pub fn batch<'a, T, I>(&self, inputs: I) -> Batch<'a, T>
    where
        T: 'a,
        I: IntoIterator<Item: IntoRequest<Tag = T> + 'a, IntoIter: Send + 'a>,
    {
        Batch::from_iter(
            &self.engine,
            &self.job_options,
            self.tenant.as_ref(),
            inputs,
        )
    }

    /// Creates a batch whose inputs come from a stream, such as the lines of a file or another
    /// batch.
    ///
    /// The stream is polled only while the [look-ahead window](Batch::look_ahead) (the inputs
    /// pulled ahead of the results) has room.
    ///
    /// ```
    /// # async fn example<S>(fetcher: fanout::Fetcher, urls: S)
    /// # where
    /// #     S: futures_core::Stream<Item = String> + Send,
    /// # {
    /// let mut done = fetcher.batch_from_stream(urls).as_completed();
    /// while let Some(completed) = done.next().await {
    ///     println!("{} {}", completed.request.url_str(), completed.result.is_ok());
    /// }
    /// # }
    /// ```
    pub fn batch_from_stream<'a, T, S>(&self, inputs: S) -> Batch<'a, T>
    where
        T: 'a,
        S: Stream<Item: IntoRequest<Tag = T>> + Send + 'a,
    {
        Batch::from_stream(
            &self.engine,
            &self.job_options,
            self.tenant.as_ref(),
            inputs,
        )
    }

    /// Creates a batch whose inputs come from a tokio channel:
    /// [`tokio::sync::mpsc::Receiver`] or [`tokio::sync::mpsc::UnboundedReceiver`].
    ///
    /// The batch ends when all senders are dropped and all inputs have a result. Inputs are
    /// received only while the [look-ahead window](Batch::look_ahead) (the inputs pulled ahead of
    /// the results) has room. A bounded channel then stops its senders, so a slow consumer slows
    /// its producers.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> fanout::Result<()> {
    /// # let mock = fanout::Mock::new().fallback(200);
    /// # let fetcher = fanout::Fetcher::builder().transport(mock).build()?;
    /// let (sender, receiver) = tokio::sync::mpsc::channel(10);
    /// tokio::spawn(async move {
    ///     for n in 0..100 {
    ///         sender.send(format!("http://a.example/{n}")).await.unwrap();
    ///     }
    /// });
    /// let results = fetcher.batch_from_channel(receiver).gather().await;
    /// assert_eq!(results.len(), 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch_from_channel<'a, T, C>(&self, inputs: C) -> Batch<'a, T>
    where
        T: 'a,
        C: InputReceiver<Input: IntoRequest<Tag = T>> + Send + 'a,
    {
        self.batch_from_stream(ReceiverStream(inputs))
    }

    /// Returns the current progress of all batches and single fetches of this Fetcher, its clones
    /// and its [siblings](Self::to_builder).
    ///
    /// `snapshot` can be called from any thread. A call takes about 0.1 µs per host of each batch,
    /// under a lock.
    ///
    /// ```
    /// # fn example(fetcher: fanout::Fetcher) {
    /// let now = fetcher.snapshot();
    /// let in_flight = now.progress().in_flight();
    /// println!("{in_flight} requests in flight on {} connections", now.open_connections());
    /// # }
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        self.engine.snapshot()
    }
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

/// The future of [`Fetcher::fetch`], which returns one result.
///
/// # Cancel safety
///
/// Dropping the future cancels the request. If the request is in flight, its connection is closed;
/// if it is queued, it is removed from the queue. After [`Fetch::stream_body`] has returned a
/// response, dropping the response cancels the request.
///
/// # Panics
///
/// Panics if the future is polled outside a tokio runtime, or polled again after it has completed.
///
/// # Errors
///
/// Returns an [`Error`](crate::Error) if there is no complete response, or if [`Fetch::read_with`]
/// was called and the handler failed. A 4xx or 5xx status is not an error.
#[must_use = "a fetch does nothing until it is awaited"]
pub struct Fetch<R = Response> {
    single_fetch: SingleFetch,
    poll_result: fn(&mut SingleFetch, &Context<'_>) -> Poll<Result<R>>,
}

impl Fetch {
    /// Reads the response body with `handler` while it arrives, instead of keeping it in memory.
    /// The value that the handler returns is the result.
    ///
    /// The handler is called under the rules of [`Batch::read_with`].
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
    /// let length = fetcher.fetch("http://127.0.0.1:8000/large").read_with(|mut body| async move {
    ///     let mut length = 0;
    ///     while let Some(chunk) = body.next().await {
    ///         length += chunk?.len();
    ///     }
    ///     Ok(length)
    /// });
    /// println!("{} bytes", length.await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if the future was polled before.
    #[track_caller]
    pub fn read_with<F, A, R>(mut self, handler: F) -> Fetch<R>
    where
        F: Fn(StreamingResponse) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, BoxError>> + Send + 'static,
        R: Send + 'static,
    {
        self.single_fetch
            .set_body_handler(type_erased_handler(handler));
        Fetch {
            single_fetch: self.single_fetch,
            poll_result: SingleFetch::poll_handler_output,
        }
    }
}

impl Fetch {
    /// Returns the response as soon as its head has arrived. The body is a stream, which can be
    /// read on any task, thread or runtime, for example as the body of a response of a server.
    ///
    /// Redirects and retries happen before the response is returned. The request is not sent again
    /// after that. A failure is then an item of the stream, and the last one: a body that is cut
    /// short never ends without an error.
    ///
    /// The request holds its concurrency slot and its connection until the body has been read to
    /// its end or to an error, or the [`StreamingResponse`] is dropped. Dropping it earlier cancels
    /// the request: an HTTP/1.1 connection is closed, and an HTTP/2 stream is reset. At most 100
    /// responses of a runtime can therefore be open at once, unless the
    /// [concurrency](crate::FetcherBuilder::concurrency) of the Fetcher is set; further fetches are
    /// queued. A task that keeps a response without reading it must not wait for another fetch,
    /// which may need the same slot.
    ///
    /// The connection is read only when a chunk is requested. While the stream waits for the
    /// server, [`Timeouts::body_idle`](crate::Timeouts::body_idle) applies. While no chunk is
    /// requested, no timeout runs. The [total timeout](crate::Timeouts::total) and the timeout of
    /// an [attempt](crate::RequestBuilder::timeout) apply until the head has arrived. The [maximum
    /// body size](crate::FetcherBuilder::max_body_size) does not apply.
    ///
    /// The body is [decoded](crate::RequestBuilder::decode_content) unless the setting is off. A
    /// proxy turns decoding off, so that the body and its headers stay as received; see
    /// `examples/reverse_proxy.rs`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> fanout::Result<()> {
    /// # let app = axum::Router::new().fallback(|| async { "a large body" });
    /// # let fetcher = fanout::Fetcher::builder().transport(app).build()?;
    /// let mut response = fetcher.fetch("http://127.0.0.1:8000/large").stream_body().await?;
    /// println!("{} {:?}", response.status(), response.length());
    /// let mut length = 0;
    /// while let Some(chunk) = response.next().await {
    ///     length += chunk?.len();
    /// }
    /// assert_eq!(length, 12);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The response is an [`http_body::Body`], which axum and hyper send:
    ///
    /// ```
    /// # use fanout::Fetcher;
    /// use axum::{body::Body, extract::State, response::Response};
    ///
    /// async fn download(State(fetcher): State<Fetcher>) -> Result<Response, http::StatusCode> {
    ///     let fetch = fetcher.fetch("http://127.0.0.1:8000/large").stream_body();
    ///     let upstream = fetch.await.map_err(|_| http::StatusCode::BAD_GATEWAY)?;
    ///     Ok(Response::new(Body::new(upstream)))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an [`Error`](crate::Error) if no response head has arrived, or
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) if the body is also
    /// [saved to a file](crate::RequestBuilder::save_to).
    ///
    /// The stream yields the error of a body that is not complete, with the attempts and the URL.
    /// If the runtime that ran the fetch shuts down, the stream yields
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// # Panics
    ///
    /// Panics if the future was polled before.
    #[track_caller]
    pub fn stream_body(mut self) -> Fetch<StreamingResponse> {
        self.single_fetch.enable_body_streaming();
        Fetch {
            single_fetch: self.single_fetch,
            poll_result: SingleFetch::poll_streaming_response,
        }
    }
}

impl<R> Future for Fetch<R> {
    type Output = Result<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            single_fetch,
            poll_result,
        } = &mut *self;
        poll_result(single_fetch, cx)
    }
}

impl<R> fmt::Debug for Fetch<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::Rate;
    use crate::mock::{Mock, MockResponse};

    /// Every other sibling is dropped while its fetch is in flight.
    #[tokio::test(start_paused = true)]
    async fn siblings_with_limits_leave_nothing_behind() {
        let response = MockResponse::text("x").delay(Duration::from_millis(1));
        let mock = Mock::new().fallback(response).max_recorded_requests(0);
        let parent = Fetcher::builder().transport(mock).build().unwrap();
        let mut open_batch = parent.as_completed(std::iter::repeat("http://a.example/"));
        open_batch.next().await;
        let mut max_tenant_count = 0;
        for number in 0..10_000 {
            let sibling = parent
                .to_builder()
                .concurrency(1)
                .rate(Rate::per_minute(1))
                .build()
                .unwrap();
            let fetch = sibling.fetch("http://b.example/");
            let queued = sibling.fetch("http://b.example/");
            drop(sibling);
            if number % 2 == 0 {
                fetch.await.unwrap();
            } else {
                let both = async { tokio::join!(fetch, queued) };
                let timeout = tokio::time::timeout(Duration::from_micros(1), both);
                assert!(timeout.await.is_err());
            }
            max_tenant_count = max_tenant_count.max(parent.engine.tenant_count());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(max_tenant_count < 100, "{max_tenant_count} tenants");
        assert_eq!(parent.engine.tenant_count(), 0);
        assert_eq!(parent.engine.snapshot().open_batches(), 1);
    }
}
