//! The limits that a Fetcher and a batch have in common.

use super::{Concurrency, Rate};

/// The four limits that both [`FetcherBuilder`](crate::FetcherBuilder) and [`Batch`](crate::Batch)
/// set. `None` is no limit.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct LimitSettings {
    /// Requests in flight.
    pub(crate) concurrency: Option<usize>,
    /// Request starts.
    pub(crate) rate: Option<Rate>,
    /// Requests in flight to one host.
    pub(crate) concurrency_per_host: Option<Concurrency>,
    /// Request starts to one host.
    pub(crate) rate_per_host: Option<Rate>,
}

impl LimitSettings {
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub(crate) fn set_concurrency(&mut self, limit: usize) {
        assert_ne!(limit, 0, "a concurrency of zero would never start anything");
        self.concurrency = Some(limit);
    }

    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub(crate) fn set_concurrency_per_host(&mut self, limit: Concurrency) {
        assert!(
            !limit.is_zero(),
            "a concurrency of zero would never start anything"
        );
        self.concurrency_per_host = Some(limit);
    }
}
