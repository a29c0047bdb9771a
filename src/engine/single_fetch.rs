//! A single fetch: a job of the batch that all single fetches of a runtime and tenant share.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::runtime::Id;

use super::job::Job;
use super::job_options::JobOptions;
use super::response_outlet::ResponseOutlet;
use super::result_slot::ResultSlot;
use super::tenant_handle::TenantHandle;
use super::{Engine, runtimes};
use crate::error::Error;
use crate::request::Request;
use crate::response::Response;
use crate::response_body::BodyHandler;
use crate::schedule::TenantId;
use crate::streaming_response::{RequestInFlight, StreamingResponse};

pub(crate) struct SingleFetch {
    engine: Arc<Engine>,
    job_options: Arc<JobOptions>,
    tenant: Option<Arc<TenantHandle>>,
    body_handler: Option<Arc<dyn BodyHandler>>,
    /// Receives the response from the handler if the fetch hands the body out.
    streaming_response_slot: Option<Arc<ResultSlot<StreamingResponse>>>,
    fetch_state: FetchState,
}

enum FetchState {
    NotSubmitted(Box<Request>),
    Submitted(SubmittedFetch),
    Done,
}

struct SubmittedFetch {
    result_slot: Arc<ResultSlot<Box<Job>>>,
    runtime_id: Id,
}

impl SingleFetch {
    pub(crate) fn new(
        engine: Arc<Engine>,
        options: Arc<JobOptions>,
        tenant: Option<Arc<TenantHandle>>,
        request: Request,
    ) -> Self {
        Self {
            engine,
            job_options: options,
            tenant,
            body_handler: None,
            streaming_response_slot: None,
            fetch_state: FetchState::NotSubmitted(Box::new(request)),
        }
    }

    fn tenant_id(&self) -> Option<TenantId> {
        self.tenant.as_deref().map(TenantHandle::tenant_id)
    }

    /// # Panics
    ///
    /// Panics if the fetch was polled before.
    #[track_caller]
    pub(crate) fn set_body_handler(&mut self, handler: Arc<dyn BodyHandler>) {
        let is_new = matches!(self.fetch_state, FetchState::NotSubmitted(_));
        assert!(
            is_new,
            "`read_with` or `stream_body` was called on a `Fetch` that was polled"
        );
        self.body_handler = Some(handler);
    }

    /// Makes [`poll_streaming_response`](Self::poll_streaming_response) return the response with
    /// its body unread.
    ///
    /// # Panics
    ///
    /// Panics if the fetch was polled before.
    #[track_caller]
    pub(crate) fn enable_body_streaming(&mut self) {
        let response_slot = ResultSlot::new();
        self.set_body_handler(Arc::new(ResponseOutlet(Arc::clone(&response_slot))));
        self.streaming_response_slot = Some(response_slot);
    }

    /// Polls for the response with its body in memory.
    pub(crate) fn poll_response(&mut self, cx: &Context<'_>) -> Poll<Result<Response, Error>> {
        self.poll(cx).map(|mut job| job.take_result())
    }

    /// Polls for the value that the handler returned.
    pub(crate) fn poll_handler_output<R: 'static>(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Result<R, Error>> {
        self.poll(cx).map(|mut job| job.take_handler_output())
    }

    /// Polls for the response with its body unread. The request is then owned by the response.
    pub(crate) fn poll_streaming_response(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Result<StreamingResponse, Error>> {
        if let Poll::Ready(mut job) = self.poll(cx) {
            let response: Result<StreamingResponse, Error> = job.take_handler_output();
            return Poll::Ready(response.map(|response| response.with_fetch_consumer(None)));
        }
        let Some(response_slot) = &self.streaming_response_slot else {
            return Poll::Pending;
        };
        let response = ready!(response_slot.poll_result(cx));
        let request = Self {
            engine: Arc::clone(&self.engine),
            job_options: Arc::clone(&self.job_options),
            tenant: self.tenant.clone(),
            body_handler: self.body_handler.take(),
            streaming_response_slot: None,
            fetch_state: std::mem::replace(&mut self.fetch_state, FetchState::Done),
        };
        Poll::Ready(Ok(response.with_fetch_consumer(Some(Box::new(request)))))
    }

    /// # Panics
    ///
    /// Panics if called outside a tokio runtime, or after the fetch has completed.
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Box<Job>> {
        loop {
            match std::mem::replace(&mut self.fetch_state, FetchState::Done) {
                FetchState::NotSubmitted(request) => match self.submit(*request) {
                    Ok(submitted) => self.fetch_state = FetchState::Submitted(submitted),
                    Err(rejected) => return Poll::Ready(rejected),
                },
                FetchState::Submitted(submitted) => match submitted.result_slot.poll_result(cx) {
                    Poll::Ready(job) => {
                        let runtime = submitted.runtime_id;
                        self.engine
                            .update(|tx| tx.unregister_batch_or_fetch(runtime));
                        return Poll::Ready(job);
                    }
                    Poll::Pending => {
                        self.fetch_state = FetchState::Submitted(submitted);
                        return Poll::Pending;
                    }
                },
                FetchState::Done => panic!("a `Fetch` was polled after it had completed"),
            }
        }
    }

    /// Pushes the job of the request into the schedule.
    ///
    /// # Errors
    ///
    /// Returns the finished job, with its error, if the request is invalid, the settings forbid it,
    /// or the runtime has no time driver.
    fn submit(&self, request: Request) -> Result<SubmittedFetch, Box<Job>> {
        let engine = &self.engine;
        let current_runtime = runtimes::current_runtime();
        let has_time_driver = runtimes::has_time_driver(&current_runtime);
        let (runtime, batch) = engine.update(|tx| {
            let runtime = tx.runtimes_mut().register_batch_or_fetch(current_runtime);
            let tenant = self.tenant_id();
            let batch = match tx.state().runtimes().single_fetch_batch(runtime, tenant) {
                Some(batch) => batch,
                None => {
                    let limits = engine
                        .limits
                        .single_fetch_batch_limits(self.tenant.as_deref());
                    let batch = tx.add_batch(limits, tenant, runtime, None);
                    tx.runtimes_mut()
                        .set_single_fetch_batch(runtime, tenant, batch);
                    batch
                }
            };
            (runtime, batch)
        });
        // The job is made without a lock, because the `limit_by` callback may run. Meanwhile, the
        // batch stays open, because the fetch is registered on the runtime.
        let job = match &self.body_handler {
            None => engine.new_job(0, request, batch, &self.job_options, has_time_driver),
            Some(handler) => {
                let options = JobOptions {
                    body_handler: Some(Arc::clone(handler)),
                    ..JobOptions::clone(&self.job_options)
                };
                engine.new_job(0, request, batch, &Arc::new(options), has_time_driver)
            }
        };
        let mut job = job.inspect_err(|_rejected| {
            engine.update(|tx| tx.unregister_batch_or_fetch(runtime));
        })?;
        let result_slot = ResultSlot::new();
        job.result_slot = Some(Arc::clone(&result_slot));
        engine.update(|tx| tx.push_jobs(batch, [job]));
        Ok(SubmittedFetch {
            result_slot,
            runtime_id: runtime,
        })
    }
}

/// The end of the body is the result of the fetch. An error has the attempts and the URL.
impl RequestInFlight for SingleFetch {
    fn poll_result(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        self.poll(cx).map(|mut job| job.take_result().map(drop))
    }
}

/// Dropping a fetch cancels its request, whether in flight or queued.
impl Drop for SingleFetch {
    fn drop(&mut self) {
        let FetchState::Submitted(submitted) = &self.fetch_state else {
            return;
        };
        submitted.result_slot.abandon();
        if let Some(handler) = &self.body_handler {
            handler.close_to_starts();
        }
        self.engine.update(|tx| {
            if !tx.cancel_single_fetch_in_flight(&submitted.result_slot)
                && let Some(batch) = tx
                    .state()
                    .runtimes()
                    .single_fetch_batch(submitted.runtime_id, self.tenant_id())
            {
                let abandoned = tx
                    .schedule_mut()
                    .note_abandoned_job_and_remove_if_many(batch);
                tx.defer_job_drop(abandoned);
            }
            tx.unregister_batch_or_fetch(submitted.runtime_id);
        });
    }
}
