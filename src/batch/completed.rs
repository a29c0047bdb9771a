//! The result of one input, with the input itself.

use http::StatusCode;

use super::ExtractResult;
use crate::engine::Job;
use crate::error::Result;
use crate::request::Request;
use crate::request_history::RequestHistory;
use crate::response::Response;
use crate::timings::Timings;

/// The result of one input, with its request and tag.
///
/// The fields can be moved out one by one.
///
/// ```
/// # async fn example(fetcher: fanout::Fetcher) {
/// let inputs = [("home", "http://127.0.0.1/"), ("news", "http://127.0.0.1/news")];
/// let mut results = fetcher.as_completed(inputs);
/// while let Some(completed) = results.next().await {
///     match completed.result {
///         Ok(response) => println!("{} {}", completed.tag, response.status()),
///         Err(error) => println!("{} {error}", completed.tag),
///     }
///     println!("{:?} on the wire", completed.history.timings().wire());
/// }
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed<T = (), R = Response> {
    /// Index of the input, from 0. A [followed](crate::AsCompleted::follow_links) request gets the
    /// next index when it is queued.
    pub index: usize,
    /// The tag given with the input; `()` if there was none.
    pub tag: T,
    /// The request, as it was passed to the batch.
    pub request: Request,
    /// The response, or the value that a [handler](crate::Batch::read_with) returned, or an error.
    pub result: Result<R>,
    /// Index of the result that led to this request
    /// ([`follow_links`](crate::AsCompleted::follow_links)); `None` for an input.
    pub parent_index: Option<usize>,
    /// Number of links from an input to this request; 0 for an input.
    pub depth: usize,
    /// The timings, attempts and redirects of the request. They can be read after `result` was
    /// moved out.
    pub history: RequestHistory,
    /// Status of the response, even if a handler read the response.
    pub(crate) status: Option<StatusCode>,
}

impl<T, R> Completed<T, R> {
    /// The time the request spent queued and in each phase on the wire, summed over all attempts.
    pub fn timings(&self) -> Timings {
        self.history.timings()
    }

    pub(super) fn new(tag: T, mut job: Box<Job>, extract_result: ExtractResult<R>) -> Self {
        let history = job.history();
        let status = job.response_status();
        let result = extract_result(&mut job);
        let Job { index, request, .. } = *job;
        Self {
            index,
            tag,
            request,
            result,
            parent_index: None,
            depth: 0,
            history,
            status,
        }
    }
}
