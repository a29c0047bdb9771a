//! The user's own rule for retries.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::response::Response;

/// What follows an attempt; the argument and the result of
/// [`Retry::classify`](crate::Retry::classify).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryDecision {
    /// The outcome of the attempt is the result.
    Done,
    /// Another attempt follows after the usual backoff.
    Retry,
    /// Another attempt follows after at least this delay.
    RetryAfter(Duration),
}

type ClassifyFn = dyn Fn(&Result<Response>, RetryDecision) -> RetryDecision + Send + Sync;

#[derive(Clone)]
pub(crate) struct RetryClassifier(Arc<ClassifyFn>);

impl RetryClassifier {
    pub(super) fn new(
        classify: impl Fn(&Result<Response>, RetryDecision) -> RetryDecision + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(classify))
    }

    /// Calls the user's function.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Panicked`] if the function panics.
    pub(crate) fn call(
        &self,
        outcome: &Result<Response>,
        default_decision: RetryDecision,
    ) -> Result<RetryDecision> {
        catch_unwind(AssertUnwindSafe(|| (self.0)(outcome, default_decision)))
            .map_err(|_| Error::from_kind(ErrorKind::Panicked).with_detail("in `Retry::classify`"))
    }
}

/// Two classifiers are equal if one is a clone of the other.
impl PartialEq for RetryClassifier {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for RetryClassifier {}

impl fmt::Debug for RetryClassifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetryClassifier")
    }
}
