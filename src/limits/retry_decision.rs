//! A user's own word on what is tried again.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::{Error, ErrorKind, Response, Result};

/// What comes after an attempt, as [`Retry::classify`](crate::Retry::classify) is told it and says it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryDecision {
    /// What it came to is the result.
    Done,
    /// Another attempt, after the default_decision back-off.
    Retry,
    /// Another attempt, no sooner than after this.
    RetryAfter(Duration),
}

type ClassifyFn = dyn Fn(&Result<Response>, RetryDecision) -> RetryDecision + Send + Sync;

#[derive(Clone)]
pub(crate) struct RetryClassifier(Arc<ClassifyFn>);

impl RetryClassifier {
    pub(super) fn new(
        function: impl Fn(&Result<Response>, RetryDecision) -> RetryDecision + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(function))
    }

    /// # Errors
    ///
    /// If it panics.
    pub(crate) fn call(
        &self,
        outcome: &Result<Response>,
        default_decision: RetryDecision,
    ) -> Result<RetryDecision> {
        catch_unwind(AssertUnwindSafe(|| (self.0)(outcome, default_decision)))
            .map_err(|_| Error::from_kind(ErrorKind::Panicked).with_detail("in `Retry::classify`"))
    }
}

/// The same function, not one that does the same.
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
