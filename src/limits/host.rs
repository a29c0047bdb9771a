//! The settings of one host.

use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{Breaker, Budget, Concurrency, Rate, TokenSource};
use crate::credentials::{self, InvalidReason};
use crate::error::BoxError;

/// The limits, headers and credentials of one origin, for
/// [`FetcherBuilder::host`](crate::FetcherBuilder::host).
///
/// The headers and credentials are sent to that origin only. An invalid header is reported by
/// [`build`](crate::FetcherBuilder::build). `Debug` shows the names of the headers, never a value.
///
/// ```
/// use fanout::{Host, Rate};
///
/// let host = Host::new()
///     .bearer_auth("token")
///     .header("x-client", "nightly")
///     .concurrency(4)
///     .rate(Rate::per_second(10));
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Host {
    pub(crate) headers: HeaderMap,
    pub(crate) first_header_error: Option<InvalidReason>,
    pub(crate) concurrency: Option<Concurrency>,
    pub(crate) rate: Option<Rate>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) budgets: Vec<Budget>,
    pub(crate) token_source: Option<TokenSource>,
}

impl Host {
    /// Creates a `Host` without settings: the settings of the Fetcher apply.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header to the requests to this origin. Default: none. A header that a request sets
    /// itself takes precedence.
    #[must_use]
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        self.insert_header_or_record_error(credentials::parse_header_name_and_value(name, value))
    }

    /// Sets `Authorization` to the bearer token `token` (RFC 6750). Default: none.
    #[must_use]
    pub fn bearer_auth(self, token: impl AsRef<str>) -> Self {
        let value = credentials::bearer_authorization(token.as_ref());
        self.insert_header_or_record_error(value.map(|value| (header::AUTHORIZATION, value)))
    }

    /// Sets `Authorization` to a user name and password (basic authentication, RFC 7617). Default:
    /// none. The user name must not contain a colon.
    #[must_use]
    pub fn basic_auth(self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let (user, password) = (user.as_ref().as_bytes(), password.as_ref().as_bytes());
        let value = credentials::basic_authorization(user, password);
        self.insert_header_or_record_error(value.map(|value| (header::AUTHORIZATION, value)))
    }

    /// Sets a function that provides the bearer token for `Authorization`. Default: none.
    ///
    /// `source` is called before the first request to this origin. The token is added to all
    /// requests without an `Authorization` of their own. When the server responds with 401,
    /// `source` is called again, once for all requests. Until `source` returns, no request to this
    /// host starts; its requests are queued without a slot or a connection. Afterwards the rejected
    /// request is sent again, as another hop of the same attempt, not as a retry. Requests of any
    /// method are sent again, because a 401 means that the server did not process the request. A
    /// second 401 is the result.
    ///
    /// The token is shared by all batches and fetches of the Fetcher. It never appears in `Debug`
    /// output or logs. The future of `source` runs as a task on the runtime of a queued request. If
    /// that runtime shuts down, `source` is called again on another runtime. `source` must return
    /// within [`Timeouts::total`](crate::Timeouts::total) of the Fetcher, 120 s by default. It must
    /// not fetch from this origin with this Fetcher, because its request would wait for the token.
    ///
    /// If `source` fails, takes too long or returns an invalid token, all queued requests fail with
    /// [`ErrorKind::Token`](crate::ErrorKind::Token), or with
    /// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) if it panics. A request that was queued
    /// for a retry ends with the outcome of its last attempt. The next request calls `source`
    /// again.
    ///
    /// # Errors
    ///
    /// [`build`](crate::FetcherBuilder::build) returns an error if the host also has an
    /// `Authorization` header.
    ///
    /// ```
    /// use fanout::{Fetcher, Host};
    ///
    /// # fn main() -> fanout::Result<()> {
    /// let plain = Fetcher::new();
    /// let source = move || {
    ///     let login = plain.fetch("https://login.example.com/token");
    ///     async move {
    ///         let response = login.await?.error_for_status()?;
    ///         Ok(response.text().into_owned())
    ///     }
    /// };
    /// let fetcher = Fetcher::builder()
    ///     .host("https://api.example.com", Host::new().token_source(source))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn token_source<F, A>(self, source: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, BoxError>> + Send + 'static,
    {
        Self {
            token_source: Some(TokenSource::new(source)),
            ..self
        }
    }

    /// Whether any limit is set. A sibling (a Fetcher from `to_builder`) shares the limits of its
    /// parent, so it must not set limits.
    pub(crate) fn sets_any_limit(&self) -> bool {
        let Self {
            headers: _,
            first_header_error: _,
            token_source: _,
            concurrency,
            rate,
            breaker,
            budgets,
        } = self;
        concurrency.is_some() || rate.is_some() || breaker.is_some() || !budgets.is_empty()
    }

    fn insert_header_or_record_error(
        mut self,
        header: Result<(HeaderName, HeaderValue), InvalidReason>,
    ) -> Self {
        let inserted = header.and_then(|(name, value)| {
            let inserted = self.headers.try_insert(name, value);
            inserted.map_err(|_| "there are too many headers".into())
        });
        if let Err(reason) = inserted {
            self.first_header_error.get_or_insert(reason);
        }
        self
    }

    /// Limits the requests in flight to this origin: a number, or [`Concurrency::adaptive`].
    /// Default: the [`concurrency_per_host`](crate::FetcherBuilder::concurrency_per_host) of the
    /// Fetcher.
    ///
    /// # Panics
    ///
    /// Panics if the limit is zero.
    #[must_use]
    #[track_caller]
    pub fn concurrency(self, concurrency: impl Into<Concurrency>) -> Self {
        Self {
            concurrency: Some(concurrency.into().assert_nonzero()),
            ..self
        }
    }

    /// Limits how often requests to this origin start. Default: the
    /// [`rate_per_host`](crate::FetcherBuilder::rate_per_host) of the Fetcher.
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        Self {
            rate: Some(rate),
            ..self
        }
    }

    /// Sets the circuit breaker of this origin. Default: the
    /// [breaker of the Fetcher](crate::FetcherBuilder::breaker).
    #[must_use]
    pub fn breaker(self, breaker: Breaker) -> Self {
        Self {
            breaker: Some(breaker),
            ..self
        }
    }

    /// Adds a budget: a limit on the cost of the requests to this origin. Default: none.
    ///
    /// The budgets of the batch and of the Fetcher apply as well.
    ///
    /// # Errors
    ///
    /// [`build`](crate::FetcherBuilder::build) returns an error if the host has two budgets with
    /// the same name.
    ///
    /// ```
    /// use fanout::{Budget, Host};
    ///
    /// let api = Host::new()
    ///     .bearer_auth("token")
    ///     .budget(Budget::per_minute("requests", 500))
    ///     .budget(Budget::per_minute("tokens", 200_000).burst(10_000));
    /// ```
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budgets.push(budget);
        self
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Host")
            .field("headers", &names)
            .field("header_error", &self.first_header_error)
            .field("concurrency", &self.concurrency)
            .field("rate", &self.rate)
            .field("breaker", &self.breaker)
            .field("budgets", &self.budgets)
            .field("token_source", &self.token_source.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_header_names_but_no_values() {
        let host = Host::new()
            .header("x-plain", "s3cr3t")
            .basic_auth("s3cr3t", "s3cr3t");
        let debug = format!("{host:?} {:?}", host.clone().bearer_auth("s3cr3t"));
        assert!(
            !debug.contains("s3cr3t") && !debug.contains("czNj"),
            "{debug}"
        );
        assert!(debug.contains("x-plain") && debug.contains("authorization"));
    }

    #[test]
    fn first_invalid_header_is_reported() {
        let host = Host::new()
            .header("x-a", "s3cr3t\n")
            .header("b b", "x")
            .header("x-c", "y");
        let error = host.first_header_error.as_deref().unwrap();
        assert!(
            error.contains("\"x-a\"") && !error.contains("s3cr3t"),
            "{error}"
        );
        assert_eq!(host.headers["x-c"], "y");
        assert!(Host::new().bearer_auth("").first_header_error.is_some());
    }

    #[test]
    #[should_panic(expected = "concurrency of zero")]
    fn zero_concurrency_panics() {
        let _ = Host::new().concurrency(0);
    }
}
