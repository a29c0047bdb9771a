//! How many at once.

/// How many requests may be on the wire to one host at once: a number, or one that is learned.
///
/// A plain number is a [`fixed`](Self::fixed) one wherever a `Concurrency` is asked for, as in `concurrency_per_host(4)`.
///
/// With [`adaptive`](Self::adaptive) each host learns its own number from how it answers, and no host lowers that of
/// another. It starts with 8 and doubles for as long as all goes well. It goes back to what went well when requests fail
/// (429, 503, refused or lost connections, timeouts), more than one in sixteen; and when the heads of answers take half as
/// long again as usual, half the number is tried, to see whether that does as much. After that it stays, and tries one
/// more now and then, so it follows a host that becomes faster or slower. A number that is not in use does not grow.
/// What was learned of a host is kept while it is in use, and for a minute after.
///
/// The work that is done is at least nine tenths of what the best fixed number would do, on servers that queue what they
/// cannot do at once, and on such as refuse it, for 4 to 64 at once and with times that differ by 30 %. To find out costs
/// some refusals. It looks at the heads of answers only, so it does not learn what the bandwidth allows; and if the
/// times differ far more, by a factor of ten from one URL to the next, it may keep to less than the host could do.
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
    pub(crate) initial: usize,
    /// The least and the most, if it learns.
    pub(crate) adaptive_bounds: Option<(usize, usize)>,
}

/// Of an adaptive concurrency, if nobody says.
const DEFAULT_ADAPTIVE_INITIAL: usize = 8;

impl Concurrency {
    /// Always so many.
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[track_caller]
    pub fn fixed(requests: usize) -> Self {
        assert_ne!(
            requests, 0,
            "a concurrency of zero would never start anything"
        );
        Self::from(requests)
    }

    /// As many as each host turns out to be able to use: at least 1, with no upper bound but the other limits, and 8 to
    /// begin with.
    pub fn adaptive() -> Self {
        Self {
            initial: DEFAULT_ADAPTIVE_INITIAL,
            adaptive_bounds: Some((1, usize::MAX)),
        }
    }

    /// It does not become less than this. Default 1. A fixed number has no use for it.
    ///
    /// # Panics
    ///
    /// If it is zero, or more than the most.
    #[track_caller]
    pub fn min(mut self, requests: usize) -> Self {
        assert_ne!(
            requests, 0,
            "a concurrency of zero would never start anything"
        );
        if let Some((min, max)) = &mut self.adaptive_bounds {
            assert!(requests <= *max, "the least is more than the most");
            *min = requests;
            self.initial = self.initial.max(requests);
        }
        self
    }

    /// It does not become more than this. Default: no bound of its own. A fixed number has no use for it.
    ///
    /// # Panics
    ///
    /// If it is zero, or less than the least.
    #[track_caller]
    pub fn max(mut self, requests: usize) -> Self {
        assert_ne!(
            requests, 0,
            "a concurrency of zero would never start anything"
        );
        if let Some((min, max)) = &mut self.adaptive_bounds {
            assert!(requests >= *min, "the most is less than the least");
            *max = requests;
            self.initial = self.initial.min(requests);
        }
        self
    }

    /// Where it begins. Default 8. A fixed number has no use for it.
    ///
    /// # Panics
    ///
    /// If it is less than the least, or more than the most.
    #[track_caller]
    pub fn initial(mut self, requests: usize) -> Self {
        if let Some((min, max)) = self.adaptive_bounds {
            assert!(
                (min..=max).contains(&requests),
                "it begins where it may not be"
            );
            self.initial = requests;
        }
        self
    }

    /// Whether nothing could ever start.
    pub(crate) fn is_zero(self) -> bool {
        self.initial == 0
    }
}

/// A [fixed](Concurrency::fixed) number. Zero is refused by whoever it is given to.
impl From<usize> for Concurrency {
    fn from(requests: usize) -> Self {
        Self {
            initial: requests,
            adaptive_bounds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_within_its_bounds() {
        assert_eq!(Concurrency::adaptive().max(4).initial, 4);
        assert_eq!(Concurrency::adaptive().min(20).initial, 20);
        assert_eq!(Concurrency::adaptive().initial(3).min(2).max(9).initial, 3);
    }

    #[test]
    fn a_number_is_a_fixed_one() {
        assert_eq!(Concurrency::from(4), Concurrency::fixed(4));
        assert_eq!(Concurrency::fixed(4).initial(9).min(5).max(7).initial, 4);
    }

    #[test]
    #[should_panic(expected = "the least is more than the most")]
    fn bounds_that_leave_nothing_panic() {
        let _ = Concurrency::adaptive().max(4).min(5);
    }

    #[test]
    #[should_panic(expected = "begins where it may not be")]
    fn an_initial_number_out_of_bounds_panics() {
        let _ = Concurrency::adaptive().max(4).initial(5);
    }
}
