//! The rules for retrying failed requests.

use std::time::Duration;

use super::{RetryClassifier, RetryDecision};
use crate::error::Result;
use crate::response::Response;

/// How often a request is retried, and the delay before each retry.
///
/// A request is retried after a failure that may be temporary: a kind of error that
/// [`ErrorKind`](crate::ErrorKind) documents as retried, one of the statuses 408, 425, 429, 500,
/// 502, 503 and 504, or a [403 because of a rate
/// limit](crate::FetcherBuilder::respect_rate_limit_headers). A request is retried only if sending
/// it again is safe: it is [idempotent](crate::Request::is_idempotent), no byte of it was sent, or
/// the status says that the server [did not process it](Self::retry_unprocessed_posts).
///
/// The server may decide otherwise in the header `x-should-retry` of an unsuccessful response, as
/// the servers of OpenAI and Anthropic do. After `false` the request is not retried. After `true`
/// it is retried with any status and any method, because the server says that sending it again is
/// safe. [`max_retries`](Self::max_retries), [`max_retry_after`](Self::max_retry_after) and
/// [`classify`](Self::classify) still apply.
///
/// The delay before a retry is random, between zero and an upper bound that doubles with each retry
/// (exponential backoff with full jitter), so requests that fail together are not retried together.
/// A request in backoff holds no concurrency slot.
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
    pub(crate) retry_unprocessed_posts: bool,
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
            retry_unprocessed_posts: true,
            classify: None,
            final_round: false,
        }
    }
}

impl Retry {
    /// Retries nothing: the outcome of the first attempt is the result.
    #[must_use]
    pub fn off() -> Self {
        Self::default().max_retries(0)
    }

    /// Sets how many retries may follow the first attempt. Default: 2 retries.
    ///
    /// A retry after a [throttled attempt](Self::max_throttled_attempts) does not count. With 0,
    /// throttled attempts are not retried either. The [`RetryBudget`](crate::RetryBudget) of the
    /// host also limits retries. After an attempt that [enlarges the file of a
    /// download](crate::RequestBuilder::save_to), the request may be retried this often again.
    #[must_use]
    pub fn max_retries(self, max_retries: u32) -> Self {
        Self {
            max_retries,
            ..self
        }
    }

    /// Sets the upper bound of the delay before the first retry. Default: 100 ms.
    #[must_use]
    pub fn base_delay(self, base_delay: Duration) -> Self {
        Self { base_delay, ..self }
    }

    /// Sets the upper bound of the delay before the first retry after a 429 or 503 response.
    /// Default: 1 s.
    #[must_use]
    pub fn throttled_base_delay(self, throttled_base_delay: Duration) -> Self {
        Self {
            throttled_base_delay,
            ..self
        }
    }

    /// Sets the upper bound of the delay before any retry. Default: 20 s. A delay that
    /// `Retry-After` requests may be longer.
    #[must_use]
    pub fn max_delay(self, max_delay: Duration) -> Self {
        Self { max_delay, ..self }
    }

    /// Sets the longest delay of a `Retry-After` or `retry-after-ms` header after which a request
    /// is retried. Default: 5 min.
    ///
    /// If the header requests a longer delay, the request is not retried: the response is the
    /// result. `retry-after-ms`, in milliseconds, precedes `Retry-After`.
    #[must_use]
    pub fn max_retry_after(self, max_retry_after: Duration) -> Self {
        Self {
            max_retry_after,
            ..self
        }
    }

    /// Sets how many throttled attempts of a request do not count as retries. Default: 10 attempts.
    ///
    /// An attempt is throttled if the response is a 429 (RFC 6585 §4), a 503 with `Retry-After`
    /// (RFC 9110 §10.2.3), or a [403 because of a rate
    /// limit](crate::FetcherBuilder::respect_rate_limit_headers): the server did not process the
    /// request and accepts it later. The next attempt does not count against
    /// [`max_retries`](Self::max_retries) and withdraws nothing from the
    /// [`RetryBudget`](crate::RetryBudget). Without `Retry-After` the delay grows with each
    /// throttled attempt. Throttled attempts beyond this number count as retries.
    ///
    /// A server that requests several minutes each time can delay a request for most of an hour. To
    /// limit the delay, lower this number or [`max_retry_after`](Self::max_retry_after), or set a
    /// [`deadline`](crate::Batch::deadline).
    #[must_use]
    pub fn max_throttled_attempts(self, max_throttled_attempts: u32) -> Self {
        Self {
            max_throttled_attempts,
            ..self
        }
    }

    /// Sets whether a `POST`, or another request that is not
    /// [idempotent](crate::Request::is_idempotent), is retried after a status that says that the
    /// server did not process it. Default: `true`.
    ///
    /// These statuses are 429 (RFC 6585 §4), 503 with `Retry-After` (RFC 9110 §15.6.4), 425
    /// (RFC 8470 §5.2), and [403 because of a rate
    /// limit](crate::FetcherBuilder::respect_rate_limit_headers). The setting has no effect on a
    /// response with `x-should-retry`. Turn the setting off for a server that processes a request
    /// and then responds with such a status, for example if a gateway counts requests after they
    /// were forwarded.
    ///
    /// A request whose body is a stream is not retried, because the body cannot be sent again.
    ///
    /// ```
    /// use fanout::Retry;
    ///
    /// let retry = Retry::default().retry_unprocessed_posts(false);
    /// ```
    #[must_use]
    pub fn retry_unprocessed_posts(self, retry_unprocessed_posts: bool) -> Self {
        Self {
            retry_unprocessed_posts,
            ..self
        }
    }

    /// Sets whether requests that used up their retries get one more attempt at the end of their
    /// batch. Default: `false`.
    ///
    /// A request is set aside, instead of failing, if its retries are used up or the
    /// [`RetryBudget`](crate::RetryBudget) of its host is empty. The final round begins when the
    /// inputs have ended and no other request of the batch is queued or in flight. All requests
    /// that were set aside then start once more, without backoff and without withdrawing from the
    /// budget. The outcome of this last attempt is the result.
    ///
    /// A request that was set aside stays in the [look-ahead window](crate::Batch::look_ahead). If
    /// such requests fill a window that cannot grow, the final round begins early. Do not use a
    /// final round with an endless stream of inputs. If the deadline passes before the final round,
    /// the outcome of the last attempt is the result. The setting has no effect on single fetches,
    /// nor if [`max_retries`](Self::max_retries) is 0.
    #[must_use]
    pub fn final_round(self, final_round: bool) -> Self {
        Self {
            final_round,
            ..self
        }
    }

    /// Sets a function that decides whether each attempt is retried. Default: none; the rules of
    /// [`Retry`] apply.
    ///
    /// The function receives the outcome of the attempt and the decision of the default rules, and
    /// returns the decision that applies. These limits still apply: `max_retries`, the
    /// [`RetryBudget`](crate::RetryBudget), all timeouts, and the fact that a body from a stream
    /// cannot be sent twice. The function can therefore retry a 404 or accept a 503. It can also
    /// retry a `POST` that the server may have processed: check
    /// [`Error::maybe_sent`](crate::Error::maybe_sent) first. The function cannot shorten the pause
    /// of a host that `Retry-After` requested.
    ///
    /// The function is not called for redirects that are followed, nor after a cancellation, a
    /// panic, an expired [`Timeouts::total`](crate::Timeouts::total) or a passed deadline. With
    /// [`read_with`](crate::Batch::read_with) and
    /// [`stream_body`](crate::Fetch::stream_body) the function is called before the body is read,
    /// with a response without a body. It runs in the worker task of the request. It may be called
    /// for a response that arrives while the batch is dropped. If the function panics, the result
    /// is [`ErrorKind::Panicked`](crate::ErrorKind::Panicked).
    ///
    /// Two `Retry` values with a `classify` function are equal only if one is a clone of the other.
    ///
    /// ```
    /// use fanout::{Retry, RetryDecision};
    ///
    /// // Also retries a 404, for a page that is still being published.
    /// let retry = Retry::default().classify(|outcome, default_decision| match outcome {
    ///     Ok(response) if response.status() == 404 => RetryDecision::Retry,
    ///     _ => default_decision,
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

    /// Returns a random delay before the retry with the number `retry_number`, which is 1 for the
    /// first retry. `random` is a random number in `[0, 1)`.
    pub(crate) fn random_backoff(
        &self,
        retry_number: u32,
        is_overloaded: bool,
        random: f64,
    ) -> Duration {
        let base = if is_overloaded {
            self.throttled_base_delay
        } else {
            self.base_delay
        };
        let doubled = 2u32
            .checked_pow(retry_number.saturating_sub(1))
            .and_then(|factor| base.checked_mul(factor))
            .unwrap_or(Duration::MAX);
        let upper_bound = if base.is_zero() {
            base
        } else {
            doubled.min(self.max_delay)
        };
        Duration::try_from_secs_f64(upper_bound.as_secs_f64() * random).unwrap_or(upper_bound)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALMOST_ONE: f64 = 1.0 - f64::EPSILON;

    #[test]
    fn backoff_doubles_up_to_max_delay() {
        let retry = Retry::default();
        for (number, is_overloaded, millis) in [
            (1, false, 100),
            (2, false, 200),
            (3, false, 400),
            (1, true, 1_000),
            (4, true, 8_000),
            (6, true, 20_000),
            (9, false, 20_000),
            (u32::MAX, false, 20_000),
        ] {
            let delay = retry.random_backoff(number, is_overloaded, ALMOST_ONE);
            let expected = Duration::from_millis(millis);
            assert!(delay <= expected && expected - delay < Duration::from_micros(1));
            assert_eq!(
                retry.random_backoff(number, is_overloaded, 0.0),
                Duration::ZERO
            );
        }
    }

    #[test]
    fn off_allows_no_retries() {
        assert_eq!(Retry::off().max_retries, 0);
    }

    #[test]
    fn zero_base_delay_means_no_backoff() {
        let retry = Retry::default().base_delay(Duration::ZERO);
        assert_eq!(
            retry.random_backoff(u32::MAX, false, ALMOST_ONE),
            Duration::ZERO
        );
    }

    proptest! {
        #[test]
        fn backoff_never_exceeds_max_delay(
            retry_number in any::<u32>(), is_overloaded: bool, random in 0.0..1.0f64,
            base in any::<Duration>(), max_delay in any::<Duration>(),
        ) {
            let retry = Retry::default()
                .base_delay(base)
                .throttled_base_delay(base)
                .max_delay(max_delay);
            let delay = retry.random_backoff(retry_number, is_overloaded, random);
            // The conversion through f64 may round a delay of months up by a nanosecond.
            prop_assert!(delay <= max_delay || max_delay > Duration::from_secs(1 << 23));
        }
    }
}
