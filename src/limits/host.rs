//! What is particular to one host.

use std::error::Error as StdError;
use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{Breaker, Concurrency, Rate, TokenSource};
use crate::credentials::{self, InvalidReason};

/// The limits, headers and credentials of one origin, which no other origin is sent.
///
/// A header that is not valid is reported when the Fetcher is built. `Debug` shows the names of the
/// headers, never a value.
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
    pub(crate) error: Option<InvalidReason>,
    pub(crate) concurrency: Option<Concurrency>,
    pub(crate) rate: Option<Rate>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) token_source: Option<TokenSource>,
}

impl Host {
    /// Nothing in particular.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a header of every request to this origin that does not set it itself.
    #[must_use]
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        self.set(credentials::header(name, value))
    }

    /// Sets `Authorization` to this bearer token.
    #[must_use]
    pub fn bearer_auth(self, token: impl AsRef<str>) -> Self {
        let value = credentials::bearer_authorization(token.as_ref());
        self.set(value.map(|value| (header::AUTHORIZATION, value)))
    }

    /// Sets `Authorization` to this user and password; the user name must hold no colon.
    #[must_use]
    pub fn basic_auth(self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let (user, password) = (user.as_ref().as_bytes(), password.as_ref().as_bytes());
        let value = credentials::basic_authorization(user, password);
        self.set(value.map(|value| (header::AUTHORIZATION, value)))
    }

    /// Sets `Authorization` to a bearer token that `source` is asked for.
    ///
    /// It is asked before the first request to this origin, and its token goes with all of them, but for those that bring
    /// an `Authorization` of their own. When the server answers one with 401, the source is asked again, once for all
    /// that wait: meanwhile nothing starts at this host, and none of the waiting holds a slot or a connection. Then the
    /// request goes again. That is another hop of the same attempt and no retry, whatever the method, since a 401 says
    /// that nothing was done; a second 401 is the result.
    ///
    /// The token is kept for all batches and fetches of the Fetcher, and is never shown. The future runs as a task on the
    /// runtime of a request that waits; if that runtime ends, the source is asked anew on that of another. It must give
    /// its token within the [`total`](crate::Timeouts::total) of the Fetcher, 120 s by default, and must not ask this
    /// origin of this Fetcher, which waits for it.
    ///
    /// If it fails, gives what cannot be a bearer token or takes too long, all that wait end with
    /// [`ErrorKind::Token`](crate::ErrorKind::Token), or with [`ErrorKind::Panicked`](crate::ErrorKind::Panicked) if it
    /// panics; one that waits to be tried again ends with its last result. The next request asks again.
    ///
    /// [`build`](crate::FetcherBuilder::build) fails if the host has an `Authorization` as well.
    ///
    /// ```
    /// use fanout::{Fetcher, Host};
    ///
    /// # fn main() -> fanout::Result<()> {
    /// let plain = Fetcher::new();
    /// let source = move || {
    ///     let asked = plain.fetch("https://login.example.com/token");
    ///     async move { Ok::<_, fanout::Error>(asked.await?.error_for_status()?.text().into_owned()) }
    /// };
    /// let fetcher = Fetcher::builder()
    ///     .host("https://api.example.com", Host::new().token_source(source))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn token_source<F, A, E>(self, source: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        Self {
            token_source: Some(TokenSource::new(source)),
            ..self
        }
    }

    /// Whether it has any limit, which siblings share.
    pub(crate) fn has_limits(&self) -> bool {
        let Self {
            headers: _,
            error: _,
            token_source: _,
            concurrency,
            rate,
            breaker,
        } = self;
        concurrency.is_some() || rate.is_some() || breaker.is_some()
    }

    fn set(mut self, header: Result<(HeaderName, HeaderValue), InvalidReason>) -> Self {
        let set = header.and_then(|(name, value)| {
            let set = self.headers.try_insert(name, value);
            set.map_err(|_| "there are too many headers".into())
        });
        if let Err(reason) = set {
            self.error.get_or_insert(reason);
        }
        self
    }

    /// How many requests to this origin may be on the wire at once: a number, or [`Concurrency::adaptive`]. No limit by
    /// default.
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub fn concurrency(self, concurrency: impl Into<Concurrency>) -> Self {
        let concurrency = concurrency.into();
        assert!(
            !concurrency.is_zero(),
            "a concurrency of zero would never start anything"
        );
        Self {
            concurrency: Some(concurrency),
            ..self
        }
    }

    /// How many requests to this origin may start in a time. No limit by default.
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        Self {
            rate: Some(rate),
            ..self
        }
    }

    /// When this origin is taken to be down, and what then becomes of its requests. Default: as the
    /// [Fetcher](crate::FetcherBuilder::breaker) has it.
    #[must_use]
    pub fn breaker(self, breaker: Breaker) -> Self {
        Self {
            breaker: Some(breaker),
            ..self
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Host")
            .field("headers", &names)
            .field("error", &self.error)
            .field("concurrency", &self.concurrency)
            .field("rate", &self.rate)
            .field("breaker", &self.breaker)
            .field("token_source", &self.token_source.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_no_value() {
        let host = Host::new()
            .header("x-plain", "s3cr3t")
            .basic_auth("s3cr3t", "s3cr3t");
        let shown = format!("{host:?} {:?}", host.clone().bearer_auth("s3cr3t"));
        assert!(
            !shown.contains("s3cr3t") && !shown.contains("czNj"),
            "{shown}"
        );
        assert!(shown.contains("x-plain") && shown.contains("authorization"));
    }

    #[test]
    fn the_first_invalid_header_is_remembered() {
        let host = Host::new()
            .header("x-a", "s3cr3t\n")
            .header("b b", "x")
            .header("x-c", "y");
        let error = host.error.as_deref().unwrap();
        assert!(
            error.contains("\"x-a\"") && !error.contains("s3cr3t"),
            "{error}"
        );
        assert_eq!(host.headers["x-c"], "y");
        assert!(Host::new().bearer_auth("").error.is_some());
    }

    #[test]
    #[should_panic(expected = "concurrency of zero")]
    fn a_concurrency_of_zero_panics() {
        let _ = Host::new().concurrency(0);
    }
}
