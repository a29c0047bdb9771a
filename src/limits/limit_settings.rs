//! The limits that both a Fetcher and a batch can set.

use super::{Concurrency, Rate};

/// The four limits that both [`FetcherBuilder`](crate::FetcherBuilder) and [`Batch`](crate::Batch)
/// set. `None` means no limit.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct LimitSettings {
    /// The maximum number of requests in flight.
    pub(crate) concurrency: Option<usize>,
    /// The maximum rate of request starts.
    pub(crate) rate: Option<Rate>,
    /// The maximum number of requests in flight to one host.
    pub(crate) concurrency_per_host: Option<Concurrency>,
    /// The maximum rate of request starts to one host.
    pub(crate) rate_per_host: Option<Rate>,
}

impl LimitSettings {
    /// # Panics
    ///
    /// Panics if `limit` is 0.
    #[track_caller]
    pub(crate) fn set_concurrency(&mut self, limit: usize) {
        assert_ne!(limit, 0, "a concurrency of zero would never start anything");
        self.concurrency = Some(limit);
    }

    /// # Panics
    ///
    /// Panics if `limit` is 0.
    #[track_caller]
    pub(crate) fn set_concurrency_per_host(&mut self, limit: Concurrency) {
        self.concurrency_per_host = Some(limit.assert_nonzero());
    }
}
