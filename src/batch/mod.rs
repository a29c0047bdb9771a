//! A batch: what it is asked to be, and the ways it ends.

mod completed;
mod follow;
mod gather;
mod handle;
mod inputs;
mod run;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;

pub use completed::{AsCompleted, Completed, InOrder};
pub use follow::Follow;
pub use gather::{Gather, TryGather};
pub use handle::BatchHandle;

use crate::engine::{
    self, BodyBudget, BodyHandler, ControlOwner, Engine, Job, JobOptions, adaptive_gate_limits,
    gate_limits,
};
use crate::limits::{Concurrency, Rate, Retry, Timeouts};
use crate::{IntoRequest, Response, Result, StreamingResponse};
use inputs::Inputs;
use run::{BatchOptions, BatchRun, ConsumerKind, ExtractResult};

/// How far ahead of the results a batch reads its inputs at most, unless it is told otherwise.
const MAX_LOOK_AHEAD: usize = 65_536;
/// The window a batch starts with unless it is told, as a multiple of what it may have on the wire. With 16, 100,000
/// requests wake the reader 270 times; with 2, 30,000 times, at a third more CPU.
const WINDOW_PER_SLOT: usize = 16;

fn initial_window(concurrency: usize) -> usize {
    concurrency
        .saturating_mul(WINDOW_PER_SLOT)
        .min(MAX_LOOK_AHEAD)
}

/// A batch of requests with limits of its own, from [`Fetcher::batch`](crate::Fetcher::batch).
///
/// What is set here holds for this batch alone, within the limits of the [`Fetcher`](crate::Fetcher). Several batches on
/// one Fetcher share its limits in turns. Nothing is sent before one of the endings is polled: [`gather`](Self::gather),
/// [`try_gather`](Self::try_gather), [`as_completed`](Self::as_completed) or [`in_order`](Self::in_order).
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
    /// What holds where the batch says nothing.
    defaults: Arc<JobOptions>,
    inputs: Inputs<'a, T>,
    concurrency: Option<usize>,
    rate: Option<Rate>,
    concurrency_per_host: Option<Concurrency>,
    rate_per_host: Option<Rate>,
    retry: Option<Retry>,
    timeouts: Option<Timeouts>,
    deadline: Option<Duration>,
    look_ahead: Option<usize>,
    handler: Option<Arc<dyn BodyHandler>>,
    max_buffered_bytes: Option<u64>,
    control: ControlOwner,
    extract_result: ExtractResult<R>,
}

impl<'a, T: 'a> Batch<'a, T> {
    pub(crate) fn from_iter<I>(engine: &Arc<Engine>, defaults: &Arc<JobOptions>, inputs: I) -> Self
    where
        I: IntoIterator<Item: IntoRequest<Tag = T> + 'a, IntoIter: Send + 'a>,
    {
        Self::new(engine, defaults, Inputs::from_iter(inputs))
    }

    pub(crate) fn from_stream<S>(
        engine: &Arc<Engine>,
        defaults: &Arc<JobOptions>,
        inputs: S,
    ) -> Self
    where
        S: Stream<Item: IntoRequest<Tag = T>> + Send + 'a,
    {
        Self::new(engine, defaults, Inputs::from_stream(inputs))
    }

    fn new(engine: &Arc<Engine>, defaults: &Arc<JobOptions>, inputs: Inputs<'a, T>) -> Self {
        Self {
            engine: Arc::clone(engine),
            defaults: Arc::clone(defaults),
            control: ControlOwner::new(engine, inputs.total()),
            inputs,
            concurrency: None,
            rate: None,
            concurrency_per_host: None,
            rate_per_host: None,
            retry: None,
            timeouts: None,
            deadline: None,
            look_ahead: None,
            handler: None,
            max_buffered_bytes: None,
            extract_result: Job::take_response,
        }
    }

    /// Reads each body with `handler` as it comes, instead of keeping it in memory. What the handler returns is the
    /// result of its input, in every ending.
    ///
    /// The handler gets the head, whatever the status, and reads the body piece by piece: a thousand large files pass
    /// through the memory of as many pieces as are on the wire (over HTTP/2 a server may send 1 MiB ahead in each). It
    /// runs where the request does and holds its slot until it returns; a body that it leaves unread costs the
    /// connection.
    ///
    /// An error that it returns is the error of its input: [`ErrorKind::Handler`](crate::ErrorKind::Handler) with the
    /// error as its source, or, if it is what [`StreamingResponse::next`] gave, that error itself. A panic in it is
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked).
    ///
    /// Redirects and retries come before it: it is not called for an answer after which the request is sent again. Once
    /// it has the head there is no other attempt, whatever becomes of the body. From then on no clock runs but
    /// [`Timeouts::body_idle`], while it waits for the peer, and the [`deadline`](Self::deadline); a handler may take
    /// its time. The body cap does not hold. After the batch is dropped no handler starts, and one that runs is dropped.
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
    ///         Ok::<_, fanout::Error>(length)
    ///     })
    ///     .as_completed();
    /// while let Some(completed) = lengths.next().await {
    ///     println!("{} {:?}", completed.request.url_str(), completed.result);
    /// }
    /// # }
    /// ```
    pub fn read_with<F, A, R, E>(self, handler: F) -> Batch<'a, T, R>
    where
        F: Fn(StreamingResponse) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        Batch {
            engine: self.engine,
            defaults: self.defaults,
            inputs: self.inputs,
            concurrency: self.concurrency,
            rate: self.rate,
            concurrency_per_host: self.concurrency_per_host,
            rate_per_host: self.rate_per_host,
            retry: self.retry,
            timeouts: self.timeouts,
            deadline: self.deadline,
            look_ahead: self.look_ahead,
            handler: Some(engine::boxed_handler(handler)),
            max_buffered_bytes: self.max_buffered_bytes,
            control: self.control,
            extract_result: Job::take_handler_output,
        }
    }
}

impl<'a, T: 'a, R> Batch<'a, T, R> {
    /// At most so many of this batch's requests are on the wire at once. Default 100, or what the Fetcher was given.
    ///
    /// A limit set on the Fetcher stays the ceiling; so does the system's limit on open files, to which any number is
    /// fitted with a warning in the log.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn concurrency(mut self, limit: usize) -> Self {
        assert!(
            limit > 0,
            "a batch with a concurrency of 0 could not start anything"
        );
        self.concurrency = Some(limit);
        self
    }

    /// At most so many of this batch's requests are on the wire to one host at once: a number, or
    /// [`Concurrency::adaptive`]. Default: no limit of its own.
    ///
    /// What a batch learns of a host is for itself; to learn it once for all batches, say so on the
    /// [Fetcher](crate::FetcherBuilder::concurrency_per_host).
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn concurrency_per_host(mut self, limit: impl Into<Concurrency>) -> Self {
        let limit = limit.into();
        assert!(
            !limit.is_zero(),
            "a host with a concurrency of 0 could never be asked anything"
        );
        self.concurrency_per_host = Some(limit);
        self
    }

    /// At most so many of this batch's requests start in a time, retries included. Default: no limit.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// At most so many of this batch's requests to one host start in a time, retries included. Default: no limit.
    pub fn rate_per_host(mut self, rate: Rate) -> Self {
        self.rate_per_host = Some(rate);
        self
    }

    /// What is tried again, and when. Default: as the Fetcher does.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// How long each phase on the wire may take. Default: as the Fetcher does.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = Some(timeouts);
        self
    }

    /// How long the whole batch may take, by the clock on the wall, from when it is first polled. Default: no limit.
    ///
    /// An input that has no result by then, or could not start (or start again) before, ends with what its last attempt
    /// came to, or with [`ErrorKind::Deadline`](crate::ErrorKind::Deadline) if it had none. [`gather`](Self::gather)
    /// answers so for every input there is, except that it stops reading a stream; the endings that answer one by one
    /// stop taking inputs.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[track_caller]
    pub fn deadline(mut self, limit: Duration) -> Self {
        assert!(
            limit > Duration::ZERO,
            "a batch with a deadline of zero could not start anything"
        );
        self.deadline = Some(limit);
        self
    }

    /// How far ahead of the results the inputs are read at most. Default: 16 times the concurrency, and up to 65,536
    /// inputs while a slot is idle because no host of the inputs at hand may start.
    ///
    /// Inputs in the window cost memory; inputs beyond it cannot start. So many hosts that come one after another, each
    /// with a low limit, are fetched side by side only as far as the window reaches. With 100,000 inputs of 100 hosts,
    /// sorted by host, 100 at once and 1 to a host, the default takes 41 % longer than the limits allow; with 2 to a host
    /// 10 %, and with 4 to a host 6 %. With a window that holds all of them it takes no longer; nor does it by default if
    /// the inputs are shuffled.
    ///
    /// # Panics
    ///
    /// If `inputs` is 0.
    #[track_caller]
    pub fn look_ahead(mut self, inputs: usize) -> Self {
        assert!(
            inputs > 0,
            "a batch that looks no input ahead could not start anything"
        );
        self.look_ahead = Some(inputs);
        self
    }

    /// At most about so many bytes of bodies are in memory at once, for [`as_completed`](Self::as_completed) and
    /// [`in_order`](Self::in_order): those under way and those that are not taken yet. Default: no limit of its own.
    ///
    /// When it is reached, nothing more is read from any connection, and no clock but the [`deadline`](Self::deadline)
    /// runs meanwhile: the servers wait until results are taken. Nothing is lost by it. It may be passed by one piece
    /// for each connection (over HTTP/2 by the 1 MiB that a server may send ahead in each body), and by the oldest body
    /// under way, which goes on while there is no result to take, so that a body larger than all of it comes through.
    ///
    /// With `in_order` only the next in turn is a result to take. While that backs off before a retry the ones after it
    /// wait with it; then they go on one by one until it has a slot, and at its own host it comes before what has not
    /// started yet. So they do, too, while it waits for its rate or for a host that asked to be left alone: then the
    /// [look-ahead window](Self::look_ahead) bounds how many bodies are held.
    ///
    /// A body that is [saved](crate::RequestBuilder::save_to) or read by a [handler](Self::read_with) does not count. The other
    /// endings keep all bodies at once, so for them it means nothing.
    ///
    /// ```
    /// # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
    /// let mut done = fetcher.batch(&urls).max_buffered_bytes(256 << 20).as_completed();
    /// while let Some(completed) = done.next().await {
    ///     println!("{} {:?}", completed.index, completed.result.map(|response| response.bytes().len()));
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If `bytes` is 0.
    #[track_caller]
    pub fn max_buffered_bytes(mut self, bytes: u64) -> Self {
        assert!(
            bytes > 0,
            "a batch that may hold no byte could not read anything"
        );
        self.max_buffered_bytes = Some(bytes);
        self
    }

    /// What steers this batch from elsewhere, once one of the endings has taken it: pauses it, changes its limits, drains
    /// or cancels it, and tells how far it has come.
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

    /// All results, in the order of the inputs: exactly one for each.
    ///
    /// Nothing aborts the batch; an input that fails has its error at its index. Tags are dropped: the order tells which
    /// is which. See [`Gather`] on cancelling.
    pub fn gather(self) -> Gather<'a, R> {
        let (engine, options, inputs, extract_result) = self.into_parts();
        let run = BatchRun::new(engine, options, ConsumerKind::Gather, inputs.untagged());
        Gather::new(run, extract_result)
    }

    /// All responses in the order of the inputs, or the first error, which cancels the rest.
    ///
    /// A status such as 404 is not an error. An input that is retried is an error only when its last attempt is.
    ///
    /// # Errors
    ///
    /// The error of the first input to fail.
    pub fn try_gather(self) -> TryGather<'a, R> {
        let (engine, options, inputs, extract_result) = self.into_parts();
        let run = BatchRun::new(engine, options, ConsumerKind::Stream, inputs.untagged());
        TryGather::new(Gather::new(run, extract_result))
    }

    /// The results one by one, in the order of completion; with [`follow`](AsCompleted::follow), those of what they lead
    /// to as well.
    pub fn as_completed(self) -> AsCompleted<'a, T, R> {
        let body_budget = self.body_budget(false);
        let (engine, mut options, inputs, extract_result) = self.into_parts();
        options.body_budget = body_budget;
        AsCompleted::new(
            BatchRun::new(engine, options, ConsumerKind::Stream, inputs),
            extract_result,
        )
    }

    /// The results one by one, in the order of the inputs.
    ///
    /// What comes before its turn is kept, within the [look-ahead window](Self::look_ahead).
    pub fn in_order(self) -> InOrder<'a, T, R> {
        let body_budget = self.body_budget(true);
        let (engine, mut options, inputs, extract_result) = self.into_parts();
        options.body_budget = body_budget;
        InOrder::new(
            BatchRun::new(engine, options, ConsumerKind::Stream, inputs),
            extract_result,
        )
    }

    /// A handler keeps no body, so there is nothing to bound.
    fn body_budget(&self, in_order: bool) -> Option<Arc<BodyBudget>> {
        let cap = self.max_buffered_bytes.filter(|_| self.handler.is_none())?;
        Some(BodyBudget::new(cap, in_order))
    }

    fn into_parts(self) -> (Arc<Engine>, BatchOptions, Inputs<'a, T>, ExtractResult<R>) {
        let limits = &self.engine.limits;
        let concurrency = limits
            .clamped_concurrency(self.concurrency.unwrap_or(limits.default_batch_concurrency));
        let options = BatchOptions {
            policy: Arc::clone(&self.defaults.policy),
            overall: gate_limits(Some(concurrency), self.rate),
            per_lane: adaptive_gate_limits(self.concurrency_per_host, self.rate_per_host),
            retry: self.retry.unwrap_or_else(|| self.defaults.retry.clone()),
            timeouts: self
                .timeouts
                .unwrap_or_else(|| self.defaults.timeouts.clone()),
            deadline: self.deadline,
            initial_window: self.look_ahead.unwrap_or(initial_window(concurrency)),
            max_window: self.look_ahead.unwrap_or(MAX_LOOK_AHEAD),
            handler: self.handler,
            body_budget: None,
            control: self.control,
        };
        (self.engine, options, self.inputs, self.extract_result)
    }
}

impl<T, R> fmt::Debug for Batch<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("concurrency", &self.concurrency)
            .field("concurrency_per_host", &self.concurrency_per_host)
            .field("rate", &self.rate)
            .field("rate_per_host", &self.rate_per_host)
            .field("retry", &self.retry)
            .field("timeouts", &self.timeouts)
            .field("deadline", &self.deadline)
            .field("look_ahead", &self.look_ahead)
            .field("max_buffered_bytes", &self.max_buffered_bytes)
            .finish_non_exhaustive()
    }
}
