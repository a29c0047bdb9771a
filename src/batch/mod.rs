//! A batch: its options, its endings (the methods that run it), and how its consumer (the task that
//! takes the results) drives it.
//!
//! ```text
//!   Batch ──ending──► Gather, TryGather, AsCompleted, InOrder ──poll──► BatchRun ──► engine
//! ```
//!
//! [`Batch`] collects the options. An ending, such as `gather`, turns the batch into a future or
//! stream, which the consumer polls. Each future or stream wraps a [`BatchRun`](run::BatchRun),
//! which pulls the inputs, pushes jobs to the engine and takes results.

mod as_completed;
mod completed;
mod endings;
mod follow;
mod follow_limits;
mod frontier;
mod gather;
mod handle;
mod in_order;
mod input_receiver;
mod inputs;
mod options;
mod run;
mod window;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_core::Stream;

pub use as_completed::AsCompleted;
pub use completed::Completed;
pub use follow_limits::FollowLimits;
pub use gather::{Gather, TryGather};
pub use handle::BatchHandle;
pub use in_order::InOrder;
pub use input_receiver::InputReceiver;
pub(crate) use input_receiver::ReceiverStream;

use crate::engine::{ControlOwner, Engine, Job, JobOptions, TenantHandle};
use crate::error::{BoxError, Result};
use crate::request::IntoRequest;
use crate::response::Response;
use crate::response_body::type_erased_handler;
use crate::streaming_response::StreamingResponse;
use inputs::Inputs;
use options::BatchOptions;

/// A batch of requests with its own options, from [`Fetcher::batch`](crate::Fetcher::batch).
///
/// The options apply to this batch only. The limits of the [`Fetcher`](crate::Fetcher) apply as
/// well, and the batches on one Fetcher share these limits fairly.
///
/// Nothing is sent until an ending is called and polled: [`gather`](Self::gather),
/// [`try_gather`](Self::try_gather), [`as_completed`](Self::as_completed) or
/// [`in_order`](Self::in_order).
///
/// ```
/// # async fn example(urls: Vec<String>) {
/// use std::time::Duration;
/// use fanout::{Fetcher, Rate, Retry};
///
/// let fetcher = Fetcher::new();
/// let results = fetcher
///     .batch(&urls)
///     .concurrency(50)
///     .concurrency_per_host(4)
///     .rate(Rate::per_second(100))
///     .rate_per_host(Rate::per_second(5).burst(10))
///     .retry(Retry::default().max_retries(2))
///     .deadline(Duration::from_secs(60))
///     .gather()
///     .await;
/// assert_eq!(results.len(), urls.len());
/// # }
/// ```
#[must_use = "a batch does nothing until one of its endings is awaited"]
pub struct Batch<'a, T = (), R = Response> {
    engine: Arc<Engine>,
    inputs: Inputs<'a, T>,
    options: BatchOptions,
    control: ControlOwner,
    extract_result: ExtractResult<R>,
}

/// Takes the result out of a finished job: the response, or the value that a handler returned.
type ExtractResult<R> = fn(&mut Job) -> Result<R>;

impl<'a, T: 'a> Batch<'a, T> {
    pub(crate) fn from_iter<I>(
        engine: &Arc<Engine>,
        defaults: &Arc<JobOptions>,
        tenant: Option<&Arc<TenantHandle>>,
        inputs: I,
    ) -> Self
    where
        I: IntoIterator<Item: IntoRequest<Tag = T> + 'a, IntoIter: Send + 'a>,
    {
        Self::new(engine, defaults, tenant, Inputs::from_iter(inputs))
    }

    pub(crate) fn from_stream<S>(
        engine: &Arc<Engine>,
        defaults: &Arc<JobOptions>,
        tenant: Option<&Arc<TenantHandle>>,
        inputs: S,
    ) -> Self
    where
        S: Stream<Item: IntoRequest<Tag = T>> + Send + 'a,
    {
        Self::new(engine, defaults, tenant, Inputs::from_stream(inputs))
    }

    fn new(
        engine: &Arc<Engine>,
        defaults: &Arc<JobOptions>,
        tenant: Option<&Arc<TenantHandle>>,
        inputs: Inputs<'a, T>,
    ) -> Self {
        Self {
            engine: Arc::clone(engine),
            control: ControlOwner::new(engine, inputs.exact_input_count()),
            inputs,
            options: BatchOptions::new(JobOptions::clone(defaults), tenant.cloned()),
            extract_result: Job::take_result,
        }
    }

    /// Reads each response body with `handler` while it arrives, instead of keeping it in memory.
    /// The value that the handler returns is the result of its input. Default: bodies are kept in
    /// memory.
    ///
    /// `handler` is an async closure or function that takes a [`StreamingResponse`] and returns
    /// `Result<_, BoxError>`. The operator `?` converts any error into a [`BoxError`].
    ///
    /// The handler is called with the response head, whatever the status, and reads the body chunk
    /// by chunk. Memory holds one chunk per request in flight; with HTTP/2, a server may send up to
    /// 1 MiB ahead for each request. The handler runs as part of the request, which holds its
    /// concurrency slot until the handler returns. If the handler does not read the body to its
    /// end, the connection is closed.
    ///
    /// Redirects and retries happen before the handler is called. The handler is not called for a
    /// response after which the request is sent again. Once the handler has been called, there is
    /// no further attempt.
    ///
    /// While the handler runs, two limits apply:
    /// [`Timeouts::body_idle`](crate::Timeouts::body_idle) while it waits for the server, and the
    /// [`deadline`](Self::deadline). The [maximum body size](crate::FetcherBuilder::max_body_size)
    /// does not apply. When the batch is dropped, running handlers are dropped and no handler is
    /// called any more.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Handler`](crate::ErrorKind::Handler) as the result of an input if its
    /// handler returns an error, which becomes the source. An error that came from
    /// [`StreamingResponse::next`] is returned unchanged. Returns
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) if the handler panics.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
    /// let mut lengths = fetcher
    ///     .batch(&urls)
    ///     .concurrency(8)
    ///     .read_with(|mut body| async move {
    ///         let mut length = 0;
    ///         while let Some(chunk) = body.next().await {
    ///             length += chunk?.len();
    ///         }
    ///         Ok(length)
    ///     })
    ///     .as_completed();
    /// while let Some(completed) = lengths.next().await {
    ///     println!("{} {:?}", completed.request.url_str(), completed.result);
    /// }
    /// # }
    /// ```
    pub fn read_with<F, A, R>(mut self, handler: F) -> Batch<'a, T, R>
    where
        F: Fn(StreamingResponse) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, BoxError>> + Send + 'static,
        R: Send + 'static,
    {
        self.options.job_options.body_handler = Some(type_erased_handler(handler));
        Batch {
            engine: self.engine,
            inputs: self.inputs,
            options: self.options,
            control: self.control,
            extract_result: Job::take_handler_output,
        }
    }
}

impl<T, R> Batch<'_, T, R> {
    /// Returns a handle that pauses, drains or cancels this batch, changes its limits and reports
    /// its progress, from any task or thread.
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
    /// let batch = fetcher.batch(&urls);
    /// let handle = batch.handle();
    /// std::thread::spawn(move || {
    ///     std::thread::sleep(std::time::Duration::from_secs(60));
    ///     handle.set_concurrency(5);
    /// });
    /// let results = batch.gather().await;
    /// # }
    /// ```
    pub fn handle(&self) -> BatchHandle {
        BatchHandle::new(self.control.control())
    }
}

impl<T, R> fmt::Debug for Batch<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BatchOptions {
            limit_settings,
            job_options,
            tenant: _,
            deadline,
            look_ahead,
            max_buffered_bytes,
        } = &self.options;
        f.debug_struct("Batch")
            .field("concurrency", &limit_settings.concurrency)
            .field("concurrency_per_host", &limit_settings.concurrency_per_host)
            .field("rate", &limit_settings.rate)
            .field("rate_per_host", &limit_settings.rate_per_host)
            .field("budgets", &job_options.budgets)
            .field("retry", &job_options.retry)
            .field("timeouts", &job_options.timeouts)
            .field("deadline", deadline)
            .field("look_ahead", look_ahead)
            .field("max_buffered_bytes", max_buffered_bytes)
            .finish_non_exhaustive()
    }
}
