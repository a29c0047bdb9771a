//! The attempts and redirects of a request.

use crate::response::Redirect;
use crate::timings::{Attempt, AttemptList, Timings};

/// The attempts and the redirects of a request, from
/// [`Completed::history`](crate::Completed::history).
///
/// [`Response`](crate::Response) and [`Error`](crate::Error) have the same methods. The history
/// remains available after the result was moved out of its [`Completed`](crate::Completed), and for
/// a [handler](crate::Batch::read_with) that returned a value in place of the response.
#[derive(Clone, Debug)]
pub struct RequestHistory {
    attempts: AttemptList,
    redirects: Box<[Redirect]>,
}

impl RequestHistory {
    pub(crate) fn new(attempts: AttemptList, redirects: Box<[Redirect]>) -> Self {
        Self {
            attempts,
            redirects,
        }
    }

    /// The time spent queued and in each phase on the wire, summed over all attempts of the
    /// request.
    pub fn timings(&self) -> Timings {
        self.attempts.total_timings()
    }

    /// The attempts of the request, oldest first; empty if there were none.
    pub fn attempts(&self) -> &[Attempt] {
        self.attempts.as_slice()
    }

    /// The redirects that were followed before the result, in order.
    pub fn redirects(&self) -> &[Redirect] {
        &self.redirects
    }

    pub(crate) fn attempt_list(&self) -> &AttemptList {
        &self.attempts
    }
}
