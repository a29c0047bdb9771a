//! The user's function that decides whether an attempt is retried.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Result, catch_user_panic};
use crate::response::Response;

/// The decision whether an attempt is retried. The function of
/// [`Retry::classify`](crate::Retry::classify) receives and returns such a decision.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryDecision {
    /// No attempt follows: the outcome of this attempt is the result of the request.
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

    /// Calls the user's function with the outcome of an attempt and the default decision, and
    /// returns the decision of the function.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) if the function panics.
    pub(crate) fn call_user_function(
        &self,
        outcome: &Result<Response>,
        default_decision: RetryDecision,
    ) -> Result<RetryDecision> {
        catch_user_panic("in `Retry::classify`", || {
            (self.0)(outcome, default_decision)
        })
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
