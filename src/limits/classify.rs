//! A user's own word on what is tried again.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::{Error, ErrorKind, Response, Result};

/// What comes after an attempt, as [`Retry::classify`](crate::Retry::classify) is told it and says it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// What it came to is the result.
    Done,
    /// Another attempt, after the usual back-off.
    Retry,
    /// Another attempt, no sooner than after this.
    RetryAfter(Duration),
}

type Ask = dyn Fn(&Result<Response>, Decision) -> Decision + Send + Sync;

#[derive(Clone)]
pub(crate) struct Classify(Arc<Ask>);

impl Classify {
    pub(super) fn new(
        ask: impl Fn(&Result<Response>, Decision) -> Decision + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    /// # Errors
    ///
    /// If it panics.
    pub(crate) fn ask(&self, outcome: &Result<Response>, usual: Decision) -> Result<Decision> {
        catch_unwind(AssertUnwindSafe(|| (self.0)(outcome, usual)))
            .map_err(|_| Error::of(ErrorKind::Panicked).because("in `Retry::classify`"))
    }
}

/// The same function, not one that does the same.
impl PartialEq for Classify {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Classify {}

impl fmt::Debug for Classify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classify")
    }
}
