//! The result of one input, with the input itself.

use http::StatusCode;

use super::ExtractResult;
use crate::engine::Job;
use crate::error::Result;
use crate::request::Request;
use crate::response::Response;
use crate::timings::Timings;

/// The result of one input, with its request and tag.
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
/// }
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed<T = (), R = Response> {
    /// Index of the input, from 0. A [followed](crate::AsCompleted::follow) request gets the next
    /// index when it is queued.
    pub index: usize,
    /// The tag given with the input; `()` if there was none.
    pub tag: T,
    /// The request, as it was passed to the batch.
    pub request: Request,
    /// The response, or the value that a [handler](crate::Batch::read_with) returned, or an error.
    pub result: Result<R>,
    /// Index of the result that led to this request ([`follow`](crate::AsCompleted::follow));
    /// `None` for an input.
    pub parent_index: Option<usize>,
    /// Number of links from an input to this request; 0 for an input.
    pub depth: usize,
    timings: Timings,
    pub(crate) attempt_count: u32,
    /// Status of the response, even if a handler read it.
    pub(crate) status: Option<StatusCode>,
}

impl<T, R> Completed<T, R> {
    /// The time the request spent queued and in each phase on the wire, summed over all attempts.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    pub(super) fn new(tag: T, mut job: Box<Job>, extract_result: ExtractResult<R>) -> Self {
        let timings = job.timings();
        let attempt_count = job.attempts().map_or(0, |attempts| attempts.len() as u32);
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
            timings,
            attempt_count,
            status,
        }
    }
}
