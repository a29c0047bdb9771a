//! What a summary is told of one result, whatever its type.

use std::any::Any;

use http::StatusCode;

use crate::request::origin;
use crate::{Completed, Error, ErrorKind, Response, Result, Timings};

/// What can be summed up: a `&Result<Response>` or a `&Completed`, also with what a handler returned in place of the
/// response.
pub trait Summarize: Sealed {}

impl<S: Sealed> Summarize for S {}

pub trait Sealed {
    fn sample(&self) -> Sample<'_>;
}

/// By default nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample<'a> {
    pub(super) origin: Option<&'a str>,
    pub(super) kind: Option<ErrorKind>,
    pub(super) status: Option<StatusCode>,
    pub(super) attempts: usize,
    pub(super) timings: Timings,
    pub(super) bytes: u64,
}

impl<'a> Sample<'a> {
    /// What the result says by itself: all, but of what a handler returned nothing.
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
            kind: None,
            status: Some(response.status()),
            attempts: response.attempts().len(),
            timings: response.timings(),
            bytes: response.bytes().len() as u64 + response.saved_bytes().unwrap_or(0),
        }
    }

    fn from_error(error: &'a Error) -> Self {
        let status_error_response = error
            .response()
            .map(Self::from_response)
            .unwrap_or_default();
        Self {
            origin: error.origin().or(status_error_response.origin),
            kind: Some(error.kind()),
            attempts: error.attempts().len(),
            timings: error.timings(),
            ..status_error_response
        }
    }
}

impl<R: 'static> Sealed for &Result<R> {
    fn sample(&self) -> Sample<'_> {
        Sample::from_result(self)
    }
}

impl<T, R: 'static> Sealed for &Completed<T, R> {
    fn sample(&self) -> Sample<'_> {
        let sample = Sample::from_result(&self.result);
        Sample {
            origin: sample.origin.or_else(|| self.request.url().map(origin)),
            status: sample
                .status
                .or(self.status.filter(|_| self.result.is_ok())),
            attempts: self.attempts as usize,
            timings: self.timings(),
            ..sample
        }
    }
}
