//! When a request is tried again.

use std::time::Duration;

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
/// let retry = Retry::default().max_retries(4).base(Duration::from_millis(250));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub(crate) max_retries: u32,
    pub(crate) base: Duration,
    pub(crate) throttled_base: Duration,
    pub(crate) max_delay: Duration,
    pub(crate) max_retry_after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_retries: 2,
            base: Duration::from_millis(100),
            throttled_base: Duration::from_secs(1),
            max_delay: Duration::from_secs(20),
            max_retry_after: Duration::from_secs(5 * 60),
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
    #[must_use]
    pub fn max_retries(self, max_retries: u32) -> Self {
        Self {
            max_retries,
            ..self
        }
    }

    /// The longest wait before the first retry: 100 ms by default.
    #[must_use]
    pub fn base(self, base: Duration) -> Self {
        Self { base, ..self }
    }

    /// The same after a status that asks for less (429 or 503): 1 s by default.
    #[must_use]
    pub fn throttled_base(self, throttled_base: Duration) -> Self {
        Self {
            throttled_base,
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

    /// The wait before this retry (the first is 1), for a `random` in `[0, 1)`.
    pub(crate) fn backoff(&self, retry: u32, throttled: bool, random: f64) -> Duration {
        let base = match throttled {
            true => self.throttled_base,
            false => self.base,
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
        let retry = Retry::default().base(Duration::ZERO);
        assert_eq!(retry.backoff(u32::MAX, false, ALMOST_ONE), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn the_wait_is_never_longer_than_the_longest(
            retry in any::<u32>(), throttled: bool, random in 0.0..1.0f64,
            base in any::<Duration>(), longest in any::<Duration>(),
        ) {
            let limits = Retry::default().base(base).throttled_base(base).max_delay(longest);
            let wait = limits.backoff(retry, throttled, random);
            // An f64 holds a Duration of years to less than a microsecond only.
            prop_assert!(wait <= longest || longest > Duration::from_secs(1 << 23));
        }
    }
}
