//! The data that a summary takes from one result.

use std::any::Any;

use http::StatusCode;

use crate::batch::Completed;
use crate::error::{Error, ErrorKind, Result};
use crate::request::origin;
use crate::response::Response;
use crate::timings::Timings;

/// A result that a [`Summary`](crate::Summary) accepts.
///
/// The trait is implemented for `&Result<Response>` and for `&Completed`, with a response or with a
/// value that a handler returned. The trait is sealed.
pub trait Summarize: Sealed {}

impl<S: Sealed> Summarize for S {}

pub trait Sealed {
    fn to_sample(&self) -> ResultSample<'_>;
}

/// The data that a summary takes from one result. The default sample has no data.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResultSample<'a> {
    pub(super) origin: Option<&'a str>,
    pub(super) error_kind: Option<ErrorKind>,
    pub(super) status: Option<StatusCode>,
    pub(super) attempt_count: usize,
    pub(super) timings: Timings,
    pub(super) body_bytes: u64,
}

impl<'a> ResultSample<'a> {
    /// Takes the data from a response or an error. A value that a handler returned gives a sample
    /// without data.
    fn from_result<R: 'static>(result: &'a Result<R>) -> Self {
        match result {
            Ok(value) => match (value as &dyn Any).downcast_ref::<Response>() {
                Some(response) => Self::from_response(response),
                None => Self::default(),
            },
            Err(error) => Self::from_error(error),
        }
    }

    fn from_response(response: &'a Response) -> Self {
        Self {
            origin: Some(response.url())
                .filter(|url| url.has_host())
                .map(origin),
            error_kind: None,
            status: Some(response.status()),
            attempt_count: response.attempts().len(),
            timings: response.timings(),
            body_bytes: response.bytes().len() as u64 + response.saved_bytes().unwrap_or(0),
        }
    }

    fn from_error(error: &'a Error) -> Self {
        let status_error_response = error
            .response()
            .map(Self::from_response)
            .unwrap_or_default();
        Self {
            origin: error.url_origin().or(status_error_response.origin),
            error_kind: Some(error.kind()),
            attempt_count: error.attempts().len(),
            timings: error.timings(),
            ..status_error_response
        }
    }
}

impl<R: 'static> Sealed for &Result<R> {
    fn to_sample(&self) -> ResultSample<'_> {
        ResultSample::from_result(self)
    }
}

impl<T, R: 'static> Sealed for &Completed<T, R> {
    fn to_sample(&self) -> ResultSample<'_> {
        let sample = ResultSample::from_result(&self.result);
        ResultSample {
            origin: sample.origin.or_else(|| self.request.url().map(origin)),
            status: sample
                .status
                .or(self.status.filter(|_| self.result.is_ok())),
            attempt_count: self.history.attempts().len(),
            timings: self.timings(),
            ..sample
        }
    }
}
