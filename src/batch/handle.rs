//! Steering a batch from elsewhere while it runs.

use std::fmt;
use std::sync::Arc;

use crate::engine::{BatchControl, Command};
use crate::limits::Rate;
use crate::{Progress, Result};

/// Steers a batch and tells how far it has come, from any task or thread; from [`Batch::handle`](crate::Batch::handle),
/// or from what an ending gives.
///
/// What is ordered holds when the call returns, whether the batch is polled or not: nothing that it forbids starts after
/// that. What is ordered before the batch is first polled holds from its beginning; after its end an order does nothing.
/// Clones steer the same batch. A handle does not keep the batch alive, nor the Fetcher.
///
/// A service that is told to end lets what is on the wire come to its end, and nothing more:
///
/// ```
/// # async fn told_to_end() {}
/// # async fn example(fetcher: fanout::Fetcher, urls: Vec<String>) {
/// let batch = fetcher.batch(&urls);
/// let handle = batch.handle();
/// let watch = async {
///     told_to_end().await;
///     handle.drain();
/// };
/// let (results, ()) = tokio::join!(batch.gather(), watch);
/// // One result for each input: those that were not sent are `ErrorKind::Cancelled`.
/// assert_eq!(results.len(), urls.len());
/// # }
/// ```
#[derive(Clone)]
pub struct BatchHandle {
    control: Arc<BatchControl>,
}

impl BatchHandle {
    pub(super) fn new(control: &Arc<BatchControl>) -> Self {
        Self {
            control: Arc::clone(control),
        }
    }

    /// Nothing of the batch starts until it is [resumed](Self::resume).
    ///
    /// What is on the wire goes on to its end. What waits holds no slot, no connection and no timeout; other batches have
    /// the limits to themselves. Only the [deadline](crate::Batch::deadline) goes on. To pause twice is to pause once.
    pub fn pause(&self) {
        self.control.send(Command::Pause);
    }

    /// The batch goes on where it was [paused](Self::pause), in the same order.
    pub fn resume(&self) {
        self.control.send(Command::Resume);
    }

    /// Ends all of it at once: what is on the wire is cut off, and what waits is answered.
    ///
    /// Each input that was taken still has its one result:
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), or what its last attempt came to if it waited to be tried
    /// again. Nothing more is [followed](crate::AsCompleted::follow). No more inputs are taken but by
    /// [`gather`](crate::Batch::gather), which answers what is left of an iterator in the same way, so that it has a result
    /// for each; [`try_gather`](crate::Batch::try_gather) fails. A connection that is cut off is closed, an unfinished file
    /// is removed, and a handler is dropped where it waits.
    pub fn cancel(&self) {
        self.control.send(Command::Cancel);
    }

    /// Ends what of it is for one host, now and later, as [`cancel`](Self::cancel) does; the rest goes on.
    ///
    /// It is meant by a URL of that host: scheme, host and port count. Where
    /// [`limit_by`](crate::FetcherBuilder::limit_by) says what a host is, it is meant by what that returns. A request is
    /// where its redirects have led it. An input for that host that is taken later is answered at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest) if it is not a URL, as `example.com` is not.
    pub fn cancel_host(&self, host: impl AsRef<str>) -> Result<()> {
        let lane = self.control.lane_key(host.as_ref())?;
        self.control.send(Command::CancelHost(lane));
        Ok(())
    }

    /// Ends it in good order: takes no more inputs, finishes what is on the wire, and answers what waits.
    ///
    /// After this nothing new is sent. What was never sent is [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) with
    /// [`maybe_sent`](crate::Error::maybe_sent) false; what is on the wire has its result when it comes, without another
    /// attempt or a redirect; what waits to be tried again has the result of its last attempt. For the inputs that are
    /// left it is as with [`cancel`](Self::cancel), which may still follow, if the wire takes too long.
    /// [`try_gather`](crate::Batch::try_gather) fails at the first that was not sent, which cuts off the rest.
    pub fn drain(&self) {
        self.control.send(Command::Drain);
    }

    /// From now on at most so many are on the wire at once, as with [`Batch::concurrency`](crate::Batch::concurrency).
    ///
    /// More start at once; where there are too many, those on the wire stay, and nothing starts until they are fewer. A
    /// limit set on the Fetcher stays the ceiling, and so does the one on open files.
    ///
    /// # Panics
    ///
    /// If `limit` is 0; to have nothing start, [`pause`](Self::pause).
    #[track_caller]
    pub fn set_concurrency(&self, limit: usize) {
        assert!(
            limit > 0,
            "a batch with a concurrency of 0 could not start anything: pause it"
        );
        let clamped_concurrency = self.control.clamped_concurrency(limit);
        self.control.send(Command::Concurrency(clamped_concurrency));
    }

    /// From now on at most so many start in a time, as with [`Batch::rate`](crate::Batch::rate); `None` is no limit.
    ///
    /// What was started before counts: the new rate goes on where the old one was, with no burst of its own if that was
    /// spent.
    pub fn set_rate(&self, rate: impl Into<Option<Rate>>) {
        self.control.send(Command::Rate(rate.into()));
    }

    /// How far it has come. Before the batch is first polled nothing but the total is known; after its end it stays.
    ///
    /// It costs about 30 ns for each host of the batch, under a lock: a microsecond for a few dozen, 2 ms for 65,000. So it
    /// may be called for each frame of a display.
    pub fn progress(&self) -> Progress {
        self.control.progress()
    }
}

impl fmt::Debug for BatchHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchHandle").finish_non_exhaustive()
    }
}
