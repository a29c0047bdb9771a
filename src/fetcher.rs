//! The one thing a user holds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::engine::{Engine, Job, JobOptions, SingleFetch};
use crate::response_body::boxed_handler;
use crate::{
    AsCompleted, Batch, FetcherBuilder, Gather, IntoRequest, Request, Response, Result, Snapshot,
    StreamingResponse,
};

/// Fetches URLs, one or ten million, and keeps the connections, the limits and the manners between them.
///
/// It is a handle: clones share everything. Make one for a program and keep it, in a `static` if you like; every batch
/// and every single fetch on it shares its connections and its limits, on whatever runtimes they run.
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
    /// The connections and the limits.
    engine: Arc<Engine>,
    /// The manners, and what holds for a single fetch.
    options: Arc<JobOptions>,
}

impl Fetcher {
    /// A Fetcher with every default: 100 requests of a batch on the wire, two retries, no rate.
    ///
    /// It never fails and does no I/O; it may be called outside a runtime.
    pub fn new() -> Self {
        FetcherBuilder::default().build_default()
    }

    /// Sets limits, retries, timeouts, headers and hosts first.
    pub fn builder() -> FetcherBuilder {
        FetcherBuilder::default()
    }

    pub(crate) fn from_parts(engine: Arc<Engine>, options: Arc<JobOptions>) -> Self {
        Self { engine, options }
    }

    /// Makes a sibling: another Fetcher with the same connections and limits, and with other headers, credentials,
    /// retries or timeouts.
    ///
    /// The builder has what this Fetcher has. What is set on it holds for the sibling alone:
    ///
    /// - default headers, the user agent, and the headers, credentials and token source of each
    ///   [`host`](FetcherBuilder::host), which all together take the place of those it had here;
    /// - [`retry`](FetcherBuilder::retry), [`timeouts`](FetcherBuilder::timeouts), redirects, the cap on bodies,
    ///   decoding, `https_only` and `allowed_ports`.
    ///
    /// All else is shared, and a setting of it makes [`build`](FetcherBuilder::build) fail, even with the value it has:
    /// concurrency and rates, in all and per host, also those of a [`Host`](crate::Host); `limit_by`; the breaker and the
    /// retry budget; and all that concerns connections (`transport`, proxies, the resolver, `idle_timeout`, protocols,
    /// certificates, `public_addresses_only`). A host that is paused, or down, is so for all siblings.
    ///
    /// A connection carries no credentials of an origin but the client certificate, which is shared, as are those for a
    /// proxy. (Some servers take all requests on a connection to be from whoever has logged in on it with NTLM or
    /// Negotiate, RFC 4559: siblings are not for these.) Cookies are not shared: if they are kept here, the sibling keeps
    /// its own, and begins with none. A token source that is not replaced is asked once for all siblings.
    ///
    /// ```
    /// # fn main() -> fanout::Result<()> {
    /// use fanout::{Fetcher, Host, Retry};
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
    /// // Both together never have more than 8 requests on the wire to one host.
    /// # Ok(())
    /// # }
    /// ```
    pub fn to_builder(&self) -> FetcherBuilder {
        FetcherBuilder::derive_from(&self.engine, &self.options)
    }

    /// Fetches one request; a tag, if there is one, is dropped.
    ///
    /// The future does nothing before it is polled, and may be spawned. All single fetches of a runtime together may
    /// have as many on the wire as one batch, 100 by default; beyond that they wait their turn.
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
                Arc::clone(&self.options),
                request,
            ),
            extract_result: Job::take_response,
        }
    }

    /// Fetches all of the inputs, and gives one result for each, in their order.
    ///
    /// It is [`batch`](Self::batch) with nothing set. Inputs may be borrowed. See [`Gather`] on cancelling and panics.
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

    /// Fetches all of the inputs, and gives each result as it comes, with its input and tag.
    ///
    /// It is [`batch`](Self::batch) with nothing set.
    ///
    /// ```
    /// # struct Product { name: &'static str, url: String }
    /// # async fn example(fetcher: fanout::Fetcher, products: Vec<Product>) {
    /// let mut done = fetcher.as_completed(products.iter().map(|product| (product, &product.url)));
    /// while let Some(completed) = done.next().await {
    ///     println!("{} {:?}", completed.tag.name, completed.result.map(|response| response.status()));
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

    /// A batch that may have limits of its own; see [`Batch`].
    pub fn batch<'a, T, I>(&self, inputs: I) -> Batch<'a, T>
    where
        T: 'a,
        I: IntoIterator<Item: IntoRequest<Tag = T> + 'a, IntoIter: Send + 'a>,
    {
        Batch::from_iter(&self.engine, &self.options, inputs)
    }

    /// A batch whose inputs come from a stream: a channel, a file that is being read, another batch.
    ///
    /// The stream is polled only while there is room in the look-ahead window.
    ///
    /// ```
    /// # async fn example<S: futures_core::Stream<Item = String> + Send>(fetcher: fanout::Fetcher, urls: S) {
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
        Batch::from_stream(&self.engine, &self.options, inputs)
    }

    /// What it does at this instant, all batches and single fetches together; the same for every clone of it, and
    /// every [sibling](Self::to_builder).
    ///
    /// It may be called from any thread. It costs about 0.1 µs for each host of each batch, under a lock.
    ///
    /// ```
    /// # fn example(fetcher: fanout::Fetcher) {
    /// let now = fetcher.snapshot();
    /// println!("{} requests in flight on {} connections", now.progress().in_flight(), now.open_connections());
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

/// The future of [`Fetcher::fetch`]: one result.
///
/// # Cancel safety
///
/// Dropping it cancels the request: its connection is closed, or it leaves the queue.
///
/// # Panics
///
/// When polled outside a tokio runtime, or again after it has given its result.
#[must_use = "a fetch does nothing until it is awaited"]
pub struct Fetch<R = Response> {
    single_fetch: SingleFetch,
    extract_result: fn(&mut Job) -> Result<R>,
}

impl Fetch {
    /// Reads the body with `handler` as it comes, instead of keeping it in memory. What the handler returns is the result.
    ///
    /// It is [`Batch::read_with`] for one request; see there.
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher) -> fanout::Result<()> {
    /// let length = fetcher.fetch("http://127.0.0.1:8000/large").read_with(|mut body| async move {
    ///     let mut length = 0;
    ///     while let Some(chunk) = body.next().await {
    ///         length += chunk?.len();
    ///     }
    ///     Ok::<_, fanout::Error>(length)
    /// });
    /// println!("{} bytes", length.await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If it was polled before.
    #[track_caller]
    pub fn read_with<F, A, R, E>(mut self, handler: F) -> Fetch<R>
    where
        F: Fn(StreamingResponse) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        self.single_fetch.set_handler(boxed_handler(handler));
        Fetch {
            single_fetch: self.single_fetch,
            extract_result: Job::take_handler_output,
        }
    }
}

impl<R> Future for Fetch<R> {
    type Output = Result<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut job = ready!(self.single_fetch.poll(cx));
        Poll::Ready((self.extract_result)(&mut job))
    }
}

impl<R> fmt::Debug for Fetch<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch").finish_non_exhaustive()
    }
}
