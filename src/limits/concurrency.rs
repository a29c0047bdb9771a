//! Limits on the requests in flight to one host.

/// How many requests may be in flight to one host: a fixed limit, or one that adapts.
///
/// A plain number is a [`fixed`](Self::fixed) limit, as in `concurrency_per_host(4)`.
///
/// An [`adaptive`](Self::adaptive) limit is learned for each host separately, from the responses of
/// the host. If requests to the host use different proxies, each proxy has a limit of its own, and
/// the maximum also limits all of them together.
///
/// - The limit starts at 8 requests and doubles while requests succeed.
/// - When more than one request in sixteen fails (429, 503, refused or lost connections, timeouts),
///   the limit returns to the last value that worked.
/// - When response heads take 1.5 times as long as usual, half the limit is tried. If throughput
///   stays the same, the lower limit is kept.
/// - Once found, the limit is kept. From time to time a limit higher by one is tried, so the limit
///   follows a host that becomes faster or slower.
///
/// A limit that is never reached does not grow. The learned limit is kept while the host is in use
/// and for one minute afterwards.
///
/// In tests with servers that queue or reject excess requests, with optimal limits between 4 and 64
/// and response times that vary by 30 %, throughput reached at least 90 % of that of the best fixed
/// limit. While a limit is learned, the server rejects some requests. Only response heads are
/// measured, so the limit does not adapt to bandwidth. If response times differ by a factor of ten
/// between URLs, the limit may stay below what the host could handle.
///
/// ```
/// use fanout::{Concurrency, Fetcher, Host};
///
/// # fn main() -> fanout::Result<()> {
/// let fetcher = Fetcher::builder()
///     .concurrency_per_host(Concurrency::adaptive().max(32))
///     .host("https://slow.example.com", Host::new().concurrency(2))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
#[must_use]
pub struct Concurrency {
    pub(crate) fixed_or_initial_limit: usize,
    /// The minimum and maximum of an adaptive limit. `None` if the limit is fixed.
    pub(crate) adaptive_min_and_max: Option<(usize, usize)>,
}

/// The default initial value of an adaptive limit, in requests in flight.
const DEFAULT_INITIAL_ADAPTIVE_LIMIT: usize = 8;

impl Concurrency {
    /// A fixed limit.
    ///
    /// # Panics
    ///
    /// Panics if `requests` is zero.
    #[track_caller]
    pub fn fixed(requests: usize) -> Self {
        assert_ne!(
            requests, 0,
            "a concurrency of zero would never start anything"
        );
        Self::from(requests)
    }

    /// A limit that adapts to each host. Default: initially 8 requests, at least 1 request, no
    /// maximum.
    pub fn adaptive() -> Self {
        Self {
            fixed_or_initial_limit: DEFAULT_INITIAL_ADAPTIVE_LIMIT,
            adaptive_min_and_max: Some((1, usize::MAX)),
        }
    }

    /// Sets the minimum of an adaptive limit, in requests in flight. Default: 1. The minimum has no
    /// effect on a fixed limit.
    ///
    /// # Panics
    ///
    /// Panics if `requests` is zero, or greater than the maximum.
    #[track_caller]
    pub fn min(mut self, requests: usize) -> Self {
        assert_ne!(
            requests, 0,
            "a concurrency of zero would never start anything"
        );
        if let Some((min, max)) = &mut self.adaptive_min_and_max {
            assert!(requests <= *max, "the minimum is greater than the maximum");
            *min = requests;
            self.fixed_or_initial_limit = self.fixed_or_initial_limit.max(requests);
        }
        self
    }

    /// Sets the maximum of an adaptive limit, in requests in flight. Default: none. The maximum has
    /// no effect on a fixed limit.
    ///
    /// # Panics
    ///
    /// Panics if `requests` is zero, or less than the minimum.
    #[track_caller]
    pub fn max(mut self, requests: usize) -> Self {
        assert_ne!(
            requests, 0,
            "a concurrency of zero would never start anything"
        );
        if let Some((min, max)) = &mut self.adaptive_min_and_max {
            assert!(requests >= *min, "the maximum is less than the minimum");
            *max = requests;
            self.fixed_or_initial_limit = self.fixed_or_initial_limit.min(requests);
        }
        self
    }

    /// Sets the initial value of an adaptive limit, in requests in flight. Default: 8. The initial
    /// value has no effect on a fixed limit.
    ///
    /// # Panics
    ///
    /// Panics if `requests` is less than the minimum or greater than the maximum.
    #[track_caller]
    pub fn initial(mut self, requests: usize) -> Self {
        if let Some((min, max)) = self.adaptive_min_and_max {
            assert!(
                (min..=max).contains(&requests),
                "the initial limit is not between the minimum and the maximum"
            );
            self.fixed_or_initial_limit = requests;
        }
        self
    }

    /// Returns the limit unchanged.
    ///
    /// # Panics
    ///
    /// Panics if the limit is zero.
    #[track_caller]
    pub(crate) fn assert_nonzero(self) -> Self {
        assert!(
            self.fixed_or_initial_limit != 0,
            "a concurrency of zero would never start anything"
        );
        self
    }
}

/// Makes a [fixed](Concurrency::fixed) limit. The conversion accepts zero; the setters that take a
/// `Concurrency` panic on it.
impl From<usize> for Concurrency {
    fn from(requests: usize) -> Self {
        Self {
            fixed_or_initial_limit: requests,
            adaptive_min_and_max: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_limit_stays_within_min_and_max() {
        assert_eq!(Concurrency::adaptive().max(4).fixed_or_initial_limit, 4);
        assert_eq!(Concurrency::adaptive().min(20).fixed_or_initial_limit, 20);
        assert_eq!(
            Concurrency::adaptive()
                .initial(3)
                .min(2)
                .max(9)
                .fixed_or_initial_limit,
            3
        );
    }

    #[test]
    fn number_converts_to_a_fixed_limit() {
        assert_eq!(Concurrency::from(4), Concurrency::fixed(4));
        assert_eq!(
            Concurrency::fixed(4)
                .initial(9)
                .min(5)
                .max(7)
                .fixed_or_initial_limit,
            4
        );
    }

    #[test]
    #[should_panic(expected = "the minimum is greater than the maximum")]
    fn min_greater_than_max_panics() {
        let _ = Concurrency::adaptive().max(4).min(5);
    }

    #[test]
    #[should_panic(expected = "not between the minimum and the maximum")]
    fn initial_limit_out_of_bounds_panics() {
        let _ = Concurrency::adaptive().max(4).initial(5);
    }
}
