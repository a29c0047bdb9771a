//! The endings of a batch: the four methods that run a batch and return its results.

use super::as_completed::AsCompleted;
use super::gather::{Gather, TryGather};
use super::in_order::InOrder;
use super::run::{BatchRun, ConsumerKind};
use super::{Batch, ExtractResult};
use crate::body_budget::BodyBudget;

impl<'a, T: 'a, R> Batch<'a, T, R> {
    /// Fetches all inputs and returns exactly one result for each, in input order.
    ///
    /// Nothing aborts the batch. An input that fails has its error at its index. Tags are dropped,
    /// because the order tells which result belongs to which input. See [`Gather`] for
    /// cancellation.
    pub fn gather(self) -> Gather<'a, R> {
        let (run, extract_result) = self
            .without_tags()
            .into_batch_run(ConsumerKind::TakesAllResultsAtEnd);
        Gather::new(run, extract_result)
    }

    /// Fetches all inputs and returns all responses in input order, or the first error. An error
    /// cancels the rest of the batch.
    ///
    /// A status such as 404 is not an error. A request that is retried fails only if its last
    /// attempt fails.
    ///
    /// # Errors
    ///
    /// Returns the error of the first input that fails.
    pub fn try_gather(self) -> TryGather<'a, R> {
        let (run, extract_result) = self
            .without_tags()
            .into_batch_run(ConsumerKind::TakesEachResult);
        TryGather::new(Gather::new(run, extract_result))
    }

    /// Yields each result as soon as it is complete, with its input and tag.
    ///
    /// With [`follow_links`](AsCompleted::follow_links), the batch also fetches the requests found
    /// in results.
    pub fn as_completed(self) -> AsCompleted<'a, T, R> {
        let in_order = false;
        let (run, extract_result) = self
            .with_body_budget(in_order)
            .into_batch_run(ConsumerKind::TakesEachResult);
        AsCompleted::new(run, extract_result)
    }

    /// Yields the results one by one, in input order.
    ///
    /// A result that is complete before the result of an earlier input is buffered. The
    /// [look-ahead window](Self::look_ahead) bounds the number of buffered results.
    pub fn in_order(self) -> InOrder<'a, T, R> {
        let in_order = true;
        let (run, extract_result) = self
            .with_body_budget(in_order)
            .into_batch_run(ConsumerKind::TakesEachResult);
        InOrder::new(run, extract_result)
    }

    fn without_tags(self) -> Batch<'a, (), R> {
        Batch {
            engine: self.engine,
            inputs: self.inputs.without_tags(),
            options: self.options,
            control: self.control,
            extract_result: self.extract_result,
        }
    }

    fn with_body_budget(mut self, in_order: bool) -> Self {
        // Bodies that a handler reads are not kept in memory, so they need no budget.
        if let (Some(max_bytes), None) = (
            self.options.max_buffered_bytes,
            &self.options.job_options.body_handler,
        ) {
            self.options.job_options.body_budget = Some(BodyBudget::new(max_bytes, in_order));
        }
        self
    }

    fn into_batch_run(self, consumer_kind: ConsumerKind) -> (BatchRun<'a, T>, ExtractResult<R>) {
        let run = BatchRun::new(
            self.engine,
            self.options,
            self.control,
            self.inputs,
            consumer_kind,
        );
        (run, self.extract_result)
    }
}
