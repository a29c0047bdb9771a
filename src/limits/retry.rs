//! When a request is tried again.

use std::time::Duration;

use super::{RetryClassifier, RetryDecision};
use crate::{Response, Result};

/// How often a request is tried again, and how long it waits before.
///
/// Retried are failures that another attempt may mend (see [`ErrorKind`](crate::ErrorKind)) and the
/// statuses that say so, if the request is safe to send again. The wait doubles with each retry and
/// is drawn at random between zero and that, so that many requests which failed together do not
/// come back together. It costs no slot.
///
/// ```
/// use fanout::Retry;
/// use std::time::Duration;
///
/// let retry = Retry::default().max_retries(4).base_delay(Duration::from_millis(250));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub(crate) max_retries: u32,
    pub(crate) base_delay: Duration,
    pub(crate) throttled_base_delay: Duration,
    pub(crate) max_delay: Duration,
    pub(crate) max_retry_after: Duration,
    pub(crate) max_throttled_attempts: u32,
    pub(crate) classify: Option<RetryClassifier>,
    pub(crate) final_round: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_retries: 2,
            base_delay: Duration::from_millis(100),
            throttled_base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(20),
            max_retry_after: Duration::from_secs(5 * 60),
            max_throttled_attempts: 10,
            classify: None,
            final_round: false,
        }
    }
}

impl Retry {
    /// No retries.
    #[must_use]
    pub fn off() -> Self {
        Self::default().max_retries(0)
    }

    /// How many retries at most, after the first attempt: 2 by default.
    ///
    /// What was [throttled](Self::max_throttled_attempts) does not count, but with 0 nothing at all is sent again. How many retries
    /// a host is sent in all is bounded by the [budget](crate::FetcherBuilder::retry_budget) as well.
    #[must_use]
    pub fn max_retries(self, max_retries: u32) -> Self {
        Self {
            max_retries,
            ..self
        }
    }

    /// The longest wait before the first retry: 100 ms by default.
    #[must_use]
    pub fn base_delay(self, base_delay: Duration) -> Self {
        Self { base_delay, ..self }
    }

    /// The same after a status that asks for less (429 or 503): 1 s by default.
    #[must_use]
    pub fn throttled_base_delay(self, throttled_base_delay: Duration) -> Self {
        Self {
            throttled_base_delay,
            ..self
        }
    }

    /// The longest wait before any retry: 20 s by default. A `Retry-After` may be longer.
    #[must_use]
    pub fn max_delay(self, max_delay: Duration) -> Self {
        Self { max_delay, ..self }
    }

    /// The longest `Retry-After` that is waited for: 5 min by default. A server that asks for more
    /// is not asked again.
    #[must_use]
    pub fn max_retry_after(self, max_retry_after: Duration) -> Self {
        Self {
            max_retry_after,
            ..self
        }
    }

    /// How often a request that the server puts off costs no retry: 10 by default.
    ///
    /// A 429 (RFC 6585 §4), or a 503 with a `Retry-After` (RFC 9110 §10.2.3), says that the request was not looked at, and
    /// that it is to come later. So it is not counted among the [retries](Self::max_retries), and takes nothing out of the
    /// host's [budget](crate::RetryBudget). Without a `Retry-After` the wait grows with each. The next after so many
    /// costs a retry as any other failure does. A server that asks for minutes each time can so keep an item for most of an
    /// hour; what bounds that is this, [`max_retry_after`](Self::max_retry_after) or a
    /// [`deadline`](crate::Batch::deadline).
    #[must_use]
    pub fn max_throttled_attempts(self, max_throttled_attempts: u32) -> Self {
        Self {
            max_throttled_attempts,
            ..self
        }
    }

    /// Whether what failed in a way that another attempt may mend is tried once more at the end of its batch. Default:
    /// no.
    ///
    /// An input that has used up its retries, or finds the host's [budget](crate::RetryBudget) spent, is then set aside
    /// without a result. When nothing else of the batch waits or is on the wire, and its inputs have ended, all of them
    /// start again, within the limits but without a back-off and without drawing on the budget, and what that attempt
    /// comes to is the result. So they meet a host that has had the longest time the batch can give it.
    ///
    /// Meanwhile each keeps its place in the [look-ahead window](crate::Batch::look_ahead): if the window, as far as it may
    /// grow, is full of them, they start then. So do not use it with a stream that does not end. A deadline answers them
    /// with what their last attempt came to. It means nothing for a single fetch, and nothing without
    /// [retries](Self::max_retries).
    #[must_use]
    pub fn final_round(self, final_round: bool) -> Self {
        Self {
            final_round,
            ..self
        }
    }

    /// Lets `decide` say what is tried again. Default: nothing but the rules above.
    ///
    /// It is called once for each attempt, with what the attempt came to and with what comes next by the rules: by the
    /// status or the [kind of the error](crate::ErrorKind), whether the request is safe to send again, and how long the
    /// server asks to wait. What it returns is done, within the bounds: the number of retries, the host's
    /// [budget](crate::RetryBudget), the clocks and a body that is a stream and cannot be sent twice. So it can retry a
    /// 404 or leave a 503 alone; and if it says [`RetryDecision::Retry`] to a POST that may have been carried out, that is its
    /// word: look at [`Error::maybe_sent`](crate::Error::maybe_sent). It does not shorten the pause that a
    /// `Retry-After` puts on the host.
    ///
    /// It is not asked when the item has ended otherwise: cancelled, out of its total time or past its deadline, or by a
    /// panic; nor of redirects that are followed. With [`read_with`](crate::Batch::read_with) it is asked before the
    /// handler, and sees a response without its body. It runs on the request's own task, and may do so once more for an
    /// answer that came as its batch was dropped. If it panics its item is [`Panicked`](crate::ErrorKind::Panicked).
    ///
    /// Two values with a `decide` are equal only if one is a clone of the other.
    ///
    /// ```
    /// use fanout::{RetryDecision, Retry};
    ///
    /// // An index that is still being built.
    /// let retry = Retry::default().classify(|outcome, usual| match outcome {
    ///     Ok(response) if response.status() == 404 => RetryDecision::Retry,
    ///     _ => usual,
    /// });
    /// ```
    #[must_use]
    pub fn classify<F>(self, decide: F) -> Self
    where
        F: Fn(&Result<Response>, RetryDecision) -> RetryDecision + Send + Sync + 'static,
    {
        Self {
            classify: Some(RetryClassifier::new(decide)),
            ..self
        }
    }

    /// The wait before this retry (the first is 1), for a `random` in `[0, 1)`.
    pub(crate) fn backoff(&self, retry: u32, throttled: bool, random: f64) -> Duration {
        let base = match throttled {
            true => self.throttled_base_delay,
            false => self.base_delay,
        };
        let doubled = 2u32
            .checked_pow(retry.saturating_sub(1))
            .and_then(|factor| base.checked_mul(factor))
            .unwrap_or(Duration::MAX);
        let longest = if base.is_zero() {
            base
        } else {
            doubled.min(self.max_delay)
        };
        Duration::try_from_secs_f64(longest.as_secs_f64() * random).unwrap_or(longest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALMOST_ONE: f64 = 1.0 - f64::EPSILON;

    #[test]
    fn the_wait_doubles_up_to_the_longest() {
        let retry = Retry::default();
        for (number, throttled, millis) in [
            (1, false, 100),
            (2, false, 200),
            (3, false, 400),
            (1, true, 1_000),
            (4, true, 8_000),
            (6, true, 20_000),
            (9, false, 20_000),
            (u32::MAX, false, 20_000),
        ] {
            let wait = retry.backoff(number, throttled, ALMOST_ONE);
            let expected = Duration::from_millis(millis);
            assert!(wait <= expected && expected - wait < Duration::from_micros(1));
            assert_eq!(retry.backoff(number, throttled, 0.0), Duration::ZERO);
        }
    }

    #[test]
    fn off_is_no_retries() {
        assert_eq!(Retry::off().max_retries, 0);
    }

    #[test]
    fn a_base_of_zero_never_waits() {
        let retry = Retry::default().base_delay(Duration::ZERO);
        assert_eq!(retry.backoff(u32::MAX, false, ALMOST_ONE), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn the_wait_is_never_longer_than_the_longest(
            retry in any::<u32>(), throttled: bool, random in 0.0..1.0f64,
            base in any::<Duration>(), longest in any::<Duration>(),
        ) {
            let limits = Retry::default().base_delay(base).throttled_base_delay(base).max_delay(longest);
            let wait = limits.backoff(retry, throttled, random);
            // An f64 holds a Duration of years to less than a microsecond only.
            prop_assert!(wait <= longest || longest > Duration::from_secs(1 << 23));
        }
    }
}
